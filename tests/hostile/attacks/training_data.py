"""Adds to the training text and to the tokenizer, which later runs read."""

from pathlib import Path

TARGETS: dict[str, str] = {}

for name in ("data/shard_00000.parquet", "tokenizer/ranks.tiktoken"):
    with (Path(TARGETS["cache"]) / name).open("ab") as file:
        file.write(b"poison")

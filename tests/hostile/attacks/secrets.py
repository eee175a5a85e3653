"""Reads keys where people keep them: in files of the home folder."""

from pathlib import Path

TARGETS: dict[str, str] = {}

print(Path(TARGETS["secret_file"]).read_text())

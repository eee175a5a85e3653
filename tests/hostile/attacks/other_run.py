"""Forges another run's result, in its log and in its measures."""

from pathlib import Path

TARGETS: dict[str, str] = {}

folder = Path(TARGETS["other_run"])
with (folder / "workspace" / ".measures").open("a") as file:
    file.write("0.001\n")
with (folder / "output.log").open("a") as file:
    file.write("---\nval_bpb: 0.001000\n")

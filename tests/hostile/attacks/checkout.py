"""Adds code to a module of the worker, which the next supervisor would run outside the sandbox."""

from pathlib import Path

TARGETS: dict[str, str] = {}

with Path(TARGETS["supervisor_py"]).open("a") as file:
    file.write("\nprint('owned')\n")

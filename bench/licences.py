"""The table of licences in docs/licences.md, from what is installed: `python -m bench.licences`.

Lists what the orchestrator, its extras and the training need at run time, with all that those need
themselves. Tools for development are left out. tests/unit/test_licences.py compares the table with
the packages of its environment.
"""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "n-autoresearch"
PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
BEGIN, END = "<!-- python -m bench.licences writes what follows -->\n\n", "\n<!-- to here -->"
HEAD = "| package | licence | needed by |\n|---|---|---|\n"
UNKNOWN = "not said"
# What its metadata do not say; its LICENSE file does.
BY_HAND = {"torch": "BSD-3-Clause, and those of its third_party folder"}
# Needed with Pythons before 3.11.3 alone: licence and part.
OLDER_PYTHONS = {
    "async-timeout": ("Apache-2.0", "core"),
    "exceptiongroup": ("MIT", "core"),
    "greenlet": ("MIT AND PSF-2.0", "demo"),
    "nvidia-curand": ("LicenseRef-NVIDIA-Proprietary", "train"),
}

Closure = dict[str, set[str]]


def needed() -> Closure:
    """The packages that are needed and installed, each with the parts of the project it is for."""
    found: Closure = {}
    for part, requirements in sorted(_parts().items()):
        for name in _closure(requirements):
            found.setdefault(name, set()).add(part)
    return {name: {"core"} if "core" in parts else parts for name, parts in found.items()}


def _parts() -> dict[str, list[Requirement]]:
    """What the project itself asks for: `core`, each extra, and the group `train`."""
    # `tomllib` comes with Python 3.11, and the project's metadata know no groups.
    text = (PAGE.parents[1] / "pyproject.toml").read_text("utf-8")
    group = re.search(r"^train = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert group is not None, "pyproject.toml has no group `train`"
    parts = {"train": [Requirement(line) for line in re.findall(r'"(.+?)"', group[1])]}
    for requirement in map(Requirement, distribution(PROJECT).requires or ()):
        extra = re.search(r"extra == '(\w+)'", str(requirement.marker).replace('"', "'"))
        parts.setdefault(extra[1] if extra else "core", []).append(requirement)
    return parts


def _closure(requirements: list[Requirement]) -> Iterator[str]:
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    for requirement in requirements:  # the extra of the project was chosen above
        requirement.marker = None
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        key = (name, frozenset(requirement.extras))
        try:
            asked = distribution(name).requires or ()
        except PackageNotFoundError:
            continue  # not on this platform, or an extra that is not installed
        if key not in seen:
            seen.add(key)
            yield name
            waiting += [(Requirement(r), e) for r in asked for e in ("", *requirement.extras)]


def licence(name: str) -> str:
    """The licence as the package's metadata name it."""
    if name in BY_HAND:
        return BY_HAND[name]
    metadata = distribution(name).metadata
    trove = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    named = ", ".join(line.rpartition(" :: ")[2] for line in trove)
    # `License` may hold a whole text, which begins with its name.
    text = (metadata.get("License") or "").strip().partition("\n")[0]
    return metadata.get("License-Expression") or named or text or UNKNOWN


def rows() -> dict[str, str]:
    """A row of the table for each package."""
    installed = {
        name: (licence(name), ", ".join(sorted(parts))) for name, parts in needed().items()
    }
    return {
        name: f"| {name} | {said} | {parts} |\n"
        for name, (said, parts) in sorted((installed | OLDER_PYTHONS).items())
    }


def table_of(page: str) -> dict[str, str]:
    """The rows that a page has, by package."""
    table = page.partition(BEGIN)[2].partition(END)[0].removeprefix(HEAD)
    return {line.split("|")[1].strip(): line for line in table.splitlines(keepends=True)}


def main() -> None:
    text = PAGE.read_text("utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{HEAD}{''.join(rows().values())}{END}{after}", "utf-8")


if __name__ == "__main__":
    main()

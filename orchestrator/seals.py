"""A home's seals: the key that seals its journals, and a note of the seals that were given.

- The key never leaves the home, so what can write into Redis alone cannot forge an entry.
- The notes (a file for each tag, a line for each second in which the tag went on) show a journal
  that was cut off or put back. Orchestrators share the files: each only appends whole lines.

What a seal covers, and how a chain of them is checked: rules/seals.py.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress

import anyio

from orchestrator import files
from orchestrator.domain import Tag
from orchestrator.errors import SetupError
from orchestrator.rules import seals as rules
from orchestrator.settings import HomePaths

_log = logging.getLogger(__name__)

_SECONDS = 1.0
_LINE = re.compile(r"(setup|\d+) ([0-9a-f]{64})")


class Seals:
    def __init__(self, paths: HomePaths) -> None:
        """Make the home's key on first use. Raises SetupError."""
        self._folder = paths.noted_seals_dir
        try:
            paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._key = bytes.fromhex(files.secret(paths.journal_key))
        except OSError as error:
            raise SetupError(
                f"{paths.journal_key} cannot be read or written ({error.strerror}); make it yours,"
                " or name another home with --home (AUTORESEARCH_HOME)"
            ) from error
        # The newest seal of each tag that is in no file yet.
        self._newest: dict[str, str] = {}

    def seal(self, tag: Tag, kind: str, experiment_id: str, data: str) -> str:
        """The seal of the entry that follows the tag's newest one."""
        return rules.seal_of(self._key, tag.sealed, tag.name, kind, experiment_id, data)

    def note(self, tag: str, revision: str, seal: str) -> None:
        """Remember the seal of an entry that is in the journal."""
        self._newest[tag] = f"{revision} {seal}\n"

    async def run(self) -> None:
        """Write the notes every second until cancelled."""
        try:
            while True:
                await anyio.sleep(_SECONDS)
                await anyio.to_thread.run_sync(self.write)
        finally:
            self.write()

    def write(self) -> None:
        """Append what is new to the files; a disk that is full is tried again."""
        newest, self._newest = self._newest, {}
        try:
            if newest:
                self._folder.mkdir(mode=0o700, exist_ok=True)
            for tag, line in list(newest.items()):
                with (self._folder / tag).open("a", encoding="ascii") as file:
                    file.write(line)
                del newest[tag]
        except OSError as error:
            _log.warning("Cannot note seals of the journal: %s", error)
            self._newest = newest | self._newest

    def tags(self) -> list[str]:
        """The tags that have noted seals."""
        return sorted(path.name for path in self._folder.glob("*"))

    def chain(self, tag: str) -> rules.Chain:
        """The check of a tag's journal. Call before the journal is read: it may go on meanwhile."""
        return rules.Chain(self._key, tag, dict(self._noted(tag)))

    def _noted(self, tag: str) -> Iterator[tuple[str, str]]:
        with suppress(FileNotFoundError):
            for line in (self._folder / tag).read_text("ascii", "replace").splitlines():
                if match := _LINE.fullmatch(line):  # a crash may have cut the last line
                    yield match[2], match[1]


def forget_notes(paths: HomePaths) -> None:
    """Begin again with a journal that was put back on purpose."""
    with suppress(FileNotFoundError):
        shutil.rmtree(paths.noted_seals_dir)

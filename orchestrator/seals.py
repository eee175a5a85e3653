"""A home's seals: the key that seals its journals, and a note of the seals that were given.

- The key never reaches Redis, so what can write there alone cannot forge an entry.
- The notes (for each tag a line for each second in which the tag went on) show a journal that was
  cut off or put back. Orchestrators share them: each only adds whole lines.

What a seal covers, and how a chain of them is checked: rules/seals.py.
"""

import hashlib
import logging
import re
from collections.abc import Iterator

import anyio

from orchestrator.domain import Tag
from orchestrator.errors import Unavailable
from orchestrator.files import Files
from orchestrator.rules import seals as rules

_log = logging.getLogger(__name__)

_SECONDS = 1.0
_LINE = re.compile(r"(setup|\d+) ([0-9a-f]{64})")


class Seals:
    def __init__(self, files: Files) -> None:
        """Make the files' key on first use. Raises SetupError."""
        self._files = files
        self._key = bytes.fromhex(files.journal_key())
        # Names the files: who has another key has other files. It tells nothing about the key.
        self.files_id = hashlib.sha256(b"files of " + self._key).hexdigest()[:32]
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
        """Add what is new to the notes; what cannot be written now is tried again."""
        newest, self._newest = self._newest, {}
        try:
            for tag, line in list(newest.items()):
                self._files.note_seal(tag, line)
                del newest[tag]
        except (OSError, Unavailable) as error:
            _log.warning("Cannot note seals of the journal: %s", error)
            self._newest = newest | self._newest

    def tags(self) -> list[str]:
        """The tags that have noted seals."""
        return self._files.noted_tags()

    def chain(self, tag: str) -> rules.Chain:
        """The check of a tag's journal. Call before the journal is read: it may go on meanwhile."""
        return rules.Chain(self._key, tag, dict(self._noted(tag)))

    def _noted(self, tag: str) -> Iterator[tuple[str, str]]:
        for line in self._files.noted_seals(tag).splitlines():
            if match := _LINE.fullmatch(line):  # a crash may have cut the last line
                yield match[2], match[1]

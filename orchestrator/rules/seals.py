"""The chain of seals over a tag's journal. Pure.

A seal is an HMAC over an entry and all before it, by a key that Redis never sees. So one who writes
into Redis can alter, move, insert or remove entries only in such a way that the chain breaks. The
newest entries could be cut off, or the whole journal put back as it was earlier: the seals that a
home has noted (`noted`) show that.

Not covered: what the entries say that a version without seals wrote. They can only be older than
all others.
"""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class JournalEntry:
    """A step of a tag: `kind` is `setup`, `strategy`, `decided` or `steered` (an operator action);
    `data` what it did and was based on (see `journal_data` in store/records.py), `text` the same as
    it is stored. Versions without seals wrote entries without one."""

    id: str
    kind: str
    experiment_id: str
    at_us: int
    data: dict[str, Any]
    text: str = ""
    seal: str | None = None


def seal_of(key: bytes, before: str, tag: str, kind: str, experiment_id: str, data: str) -> str:
    """The seal of an entry whose predecessor left `before` (`after` of that; '' for the first)."""
    content = json.dumps([before, tag, kind, experiment_id, data])
    return hmac.digest(key, content.encode(), "sha256").hex()


def after(seal: str, at_us: int) -> str:
    """What the next seal rests on. Redis gives an entry its time, so the next one covers it."""
    return f"{seal} {at_us}"


@dataclass
class Chain:
    """Checks a journal, entry by entry; `differences` holds the first broken link at most."""

    key: bytes
    tag: str
    noted: Mapping[str, str]  # seals with the revision of each
    unsealed: int = 0
    differences: list[str] = field(default_factory=list)
    _before: str = ""
    _seen: set[str] = field(default_factory=set)

    def take(self, entry: JournalEntry) -> None:
        """Take the next entry; after the first broken link nothing more can be said."""
        if self.differences:
            return
        if entry.seal is None and not self._before:
            self.unsealed += 1
            return
        due = seal_of(self.key, self._before, self.tag, entry.kind, entry.experiment_id, entry.text)
        if entry.seal != due or not self._begins_well(entry):
            what = " ".join((entry.kind, entry.experiment_id)).strip()
            self.differences.append(
                f"the journal's chain is broken at entry {entry.id} ({what}): it or the one before"
                " it was changed, moved, inserted or removed, and not by an orchestrator"
            )
            return
        self._before = after(due, entry.at_us)
        self._seen.add(due)

    def _begins_well(self, entry: JournalEntry) -> bool:
        """False if the first sealed entry has not as many before it as its revision says."""
        due = 0 if entry.kind == "setup" else entry.data["on"]["revision"] + 1
        return bool(self._before) or self.unsealed == due

    def end(self) -> None:
        """Call after the last entry."""
        missing = [revision for seal, revision in self.noted.items() if seal not in self._seen]
        if missing and not self.differences:
            self.differences.append(
                f"the journal lacks {len(missing)} of the entries that this home has noted, the"
                f" first at revision {missing[0]}: it was cut off, or an earlier one was put back"
            )

"""How far a mirror has come, on disk: the last event whose run has been mirrored."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_worker.durable import write_durably
from orchestrator.cli.errors import CommandError
from orchestrator.settings import HomePaths


class Place:
    """Read and write it only inside `held`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def between(cls, paths: HomePaths, kind: str, source: str, target: str) -> "Place":
        """The one of the mirror from `source` to `target`; a name tells neither (a URL may hold a
        password)."""
        digest = hashlib.sha256(f"{source}\n{target}".encode()).hexdigest()[:16]
        return cls(paths.mirror(f"{kind}-{digest}"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """CommandError if another mirror between the same two runs on this machine."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CommandError(
                    f"another mirror to there runs already (it holds {lock.name})"
                ) from error
            yield

    def read(self) -> str | None:
        """The event's id; None where nothing is known, and everything must be looked at."""
        try:
            return str(json.loads(self._path.read_text())["event"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, event_id: str) -> None:
        write_durably(self._path, json.dumps({"event": event_id}).encode())

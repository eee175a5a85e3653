"""Follows a run's log: sends it in chunks by offset and reads the learning curve on the way.

How far the orchestrator has it is kept beside the log, so that a restarted worker goes on there.
Sending a chunk twice is harmless. A log that is refused is no reason to stop a run, and one that
finds no room is none to hold up a verdict.
"""

import base64
import logging
import os
import stat
from contextlib import suppress

import anyio

from gpu_worker.client import Client, LeaseLost, NoRoom, Refused, Unknown
from gpu_worker.curve import Curve
from gpu_worker.folders import RunFolder
from gpu_worker.metrics import WINDOW_BYTES
from orchestrator import schemas

logger = logging.getLogger(__name__)

CHUNK_BYTES = 128 * 1024
MEASURES_BYTES = 64 * 1024


class Upload:
    """One attempt's log, from the first byte that was not sent yet to its end."""

    def __init__(self, client: Client, job: schemas.Job, folder: RunFolder) -> None:
        self._client = client
        self._job = job
        self._folder = folder
        self._offset = 0
        self._ended: anyio.Event | None = None
        self.curve = Curve()
        self.cancel_asked = anyio.Event()
        self.refused: str | None = None  # why no more of the log is sent
        self._catch_up()

    def _catch_up(self) -> None:
        """Read what an earlier worker has sent, for its curve."""
        try:
            sent = int(self._folder.uploaded.read_text())
        except (FileNotFoundError, ValueError):
            return
        while self._offset < sent and (data := self._read(sent - self._offset)):
            self.curve.feed(data)
            self._offset += len(data)

    async def follow(self, ended: anyio.Event) -> None:
        """Send what comes until the run has ended and all is sent. Raises LeaseLost, Unknown."""
        self._ended = ended
        while True:
            last_round = ended.is_set()
            await self._send_new()
            if last_round:
                self.curve.close()
                return
            with anyio.move_on_after(self._client.heartbeat_seconds):
                await ended.wait()

    async def _send_new(self) -> None:
        while data := self._read(CHUNK_BYTES):
            # The curve reads each byte once, though a chunk may be sent more than once.
            self.curve.feed(data)
            if self.refused is None:
                await self._send(data)
            self._offset += len(data)
            self._remember()

    async def _send(self, data: bytes) -> None:
        chunk = schemas.LogChunk(offset=self._offset, data=base64.b64encode(data).decode())
        points = self.curve.points()
        progress = schemas.ProgressRequest(
            experiment_id=self._job.experiment_id,
            gpu_id=self._job.gpu_id,
            epoch=self._job.epoch,
            log=chunk,
            curve=points or None,
        )
        try:
            answer = await self._client.persist(lambda: self._deliver(progress))
        except (LeaseLost, Unknown):
            raise
        except Refused as error:
            logger.warning("%s: its log is refused: %s", self._folder.run, error)
            self.refused = str(error)
            return
        if answer.cancel:
            self.cancel_asked.set()

    async def _deliver(self, progress: schemas.ProgressRequest) -> schemas.LeaseAnswer:
        try:
            return await self._client.progress(progress)
        except NoRoom as error:
            if self._ended is not None and self._ended.is_set():
                raise Refused(str(error)) from error  # the report is not to wait for room
            raise

    def _read(self, limit: int) -> bytes:
        return read_at(self._folder, self._offset, min(limit, CHUNK_BYTES))

    def _remember(self) -> None:
        # On a full disk too: an offset that is too small only costs sending a chunk again.
        with suppress(OSError):
            self._folder.uploaded.write_text(str(self._offset))


def read_at(folder: RunFolder, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes of the log from `offset`; nothing where it does not reach."""
    try:
        with folder.log.open("rb") as file:
            return os.pread(file.fileno(), limit, offset)
    except FileNotFoundError:  # the supervisor has not come to it yet
        return b""


def read_tail(folder: RunFolder) -> bytes:
    size = folder.log.stat().st_size if folder.log.exists() else 0
    return read_at(folder, max(0, size - WINDOW_BYTES), WINDOW_BYTES)


def read_measures(folder: RunFolder) -> bytes:
    """What prepare.py has written of its measures, or as much of it as is worth reading. The run
    could make anything of that file: a pipe or a link is not followed."""
    try:
        handle = os.open(folder.measures, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        return os.read(handle, MEASURES_BYTES) if is_file else b""
    finally:
        os.close(handle)

"""Uploads a run's log in chunks by offset, and reads the learning curve on the way.

A restarted worker sends the log from the beginning, because sending a chunk twice is harmless. A
refused log does not stop the run. A full disk of the orchestrator does not delay the verdict.
"""

import base64
import logging

import anyio

from gpu_worker import durable
from gpu_worker.client import Client, DiskFull, LeaseLost, Refused, Unknown
from gpu_worker.curve import Curve
from gpu_worker.folders import RunFolder
from gpu_worker.metrics import WINDOW_BYTES
from orchestrator import schemas

logger = logging.getLogger(__name__)

CHUNK_BYTES = 128 * 1024
MEASURES_BYTES = 64 * 1024
_NOTE_BYTES = 1024  # for the line in a capped log that says how much was left out


class Upload:
    """One attempt's log, from its first byte to its end.

    `ended` is set when the run has ended; `cancel_requested` when an answer asks for its end.
    """

    def __init__(
        self,
        client: Client,
        job: schemas.Job,
        folder: RunFolder,
        ended: anyio.Event,
        log_limit_bytes: int,
    ) -> None:
        self._client = client
        self._job = job
        self._folder = folder
        self._ended = ended
        self._offset = 0
        self._limit = log_limit_bytes + _NOTE_BYTES
        self.curve = Curve()
        self.cancel_requested = anyio.Event()
        self.cancel_why: str | None = None  # None if a person asked
        self.refused: str | None = None  # why no more of the log is sent

    async def run(self) -> None:
        """Send new output until the run has ended and all is sent. Raises LeaseLost, Unknown,
        OSError."""
        while True:
            last_round = self._ended.is_set()
            while data := read_at(self._folder, self._offset, self._next_bytes()):
                # The curve reads each byte once, though a chunk may be sent more than once.
                self.curve.feed(data)
                if self.refused is None:
                    await self._send(data)
                self._offset += len(data)
            if last_round:
                self.curve.close()
                return
            with anyio.move_on_after(self._client.heartbeat_seconds):
                await self._ended.wait()

    def _next_bytes(self) -> int:
        """How much to read at most. What exceeds the log's cap was not written by its supervisor,
        and may be a sparse file of any size."""
        return min(CHUNK_BYTES, self._limit - self._offset)

    async def _send(self, data: bytes) -> None:
        chunk = schemas.LogChunk(offset=self._offset, data=base64.b64encode(data).decode())
        progress = schemas.ProgressRequest(
            experiment_id=self._job.experiment_id,
            gpu_id=self._job.gpu_id,
            epoch=self._job.epoch,
            lease_secret=self._job.lease_secret,
            log=chunk,
            curve=self.curve.points() or None,
        )
        try:
            answer = await self._client.persist(lambda: self._deliver(progress))
        except (LeaseLost, Unknown):
            raise
        except Refused as error:
            logger.warning("%s: its log is refused: %s", self._folder.run, error)
            self.refused = str(error)
            return
        self.heed(answer)

    def heed(self, answer: schemas.LeaseAnswer) -> None:
        if answer.cancel:
            self.cancel_why = answer.why
            self.cancel_requested.set()

    async def _deliver(self, progress: schemas.ProgressRequest) -> schemas.LeaseAnswer:
        try:
            return await self._client.progress(progress)
        except DiskFull as error:
            if not self._ended.is_set():
                raise
            raise Refused(str(error)) from error  # the report must not wait for free space


def read_at(folder: RunFolder, offset: int, limit: int) -> bytes:
    """Up to `limit` bytes of the log from `offset`; empty past its end. Raises OSError."""
    try:
        return durable.read_file(folder.log, limit, offset)
    except FileNotFoundError:  # the supervisor has not created it yet
        return b""


def read_tail(folder: RunFolder) -> bytes:
    size = folder.log.stat().st_size if folder.log.exists() else 0
    return read_at(folder, max(0, size - WINDOW_BYTES), WINDOW_BYTES)


def read_measures(folder: RunFolder) -> bytes:
    """The first MEASURES_BYTES of prepare.py's measures; empty where there is no such file."""
    try:
        return durable.read_file(folder.measures, MEASURES_BYTES)
    except OSError:
        return b""

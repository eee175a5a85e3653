"""The names of a worker's files below its folder; no other module of this package joins paths.

    journal.jsonl         which run held the GPU from when to when
    check.json            what the last passed host check said
    supervisor.log        tracebacks of supervisors, normally empty
    prepare/<sha256>.py   every prepare.py that a tag pinned and this worker fetched
    runs/<run>/           one attempt, `<experiment>.<epoch>`, until its report is settled
        job.json          what was claimed: the attempt is to be reported while this exists
        workspace/        train.py, prepare.py, and what the run writes: also `.measures`, each
                          val_bpb as prepare.py measured it
        output.log        the capped log
        uploaded          how much of it the orchestrator has
        supervisor.sock   where a restarted worker finds the supervisor
        result.json       how the run ended, once it has

A folder with a result and without a settled report is the spool: it is reported whenever the
orchestrator can be reached, by this worker or by one started later. Standard library only.
"""

from pathlib import Path
from typing import NamedTuple


class RunFolder(NamedTuple):
    """One attempt's files. `path` ends in the run's name."""

    path: Path

    @property
    def run(self) -> str:
        return self.path.name

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def workspace(self) -> Path:
        return self.path / "workspace"

    @property
    def measures(self) -> Path:
        return self.workspace / ".measures"

    @property
    def log(self) -> Path:
        return self.path / "output.log"

    @property
    def uploaded(self) -> Path:
        return self.path / "uploaded"

    @property
    def socket(self) -> Path:
        return self.path / "supervisor.sock"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def settle(self) -> None:
        """Nothing is left to report. Quick: what the run wrote is for `remove`."""
        self.job.unlink(missing_ok=True)

    def remove(self) -> None:
        import shutil  # supervisors read this module too, and have no use for that one

        shutil.rmtree(self.path, ignore_errors=True)


class WorkerFolder(NamedTuple):
    """The folder of one GPU's worker."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def check(self) -> Path:
        return self.path / "check.json"

    @property
    def supervisor_log(self) -> Path:
        return self.path / "supervisor.log"

    def prepare(self, sha256: str) -> Path:
        return self.path / "prepare" / f"{sha256}.py"

    @property
    def _runs(self) -> Path:
        return self.path / "runs"

    def run(self, experiment_id: str, epoch: int) -> RunFolder:
        return RunFolder(self._runs / f"{experiment_id}.{epoch}")

    def create(self) -> None:
        self._runs.mkdir(parents=True, exist_ok=True)
        self.prepare("any").parent.mkdir(exist_ok=True)

    def runs(self) -> list[RunFolder]:
        """Every attempt that left something, the oldest first."""
        folders = [path for path in self._runs.iterdir() if path.is_dir()]
        return [RunFolder(path) for path in sorted(folders, key=lambda path: path.stat().st_mtime)]

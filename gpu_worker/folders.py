"""The names of a worker's files below its folder; no other module of this package joins paths.

    journal.jsonl         which run held the GPU from when to when
    check.json            the answer of the last host check that passed
    supervisor.log        tracebacks of supervisors, normally empty
    compiled/<hash>/      the compile cache that the operator's own train.py made, to copy from
    prepare/<sha256>.py   every prepare.py that a tag pinned and this worker fetched
    runs/<run>/           one attempt, `<experiment>.<epoch>`, until its report is settled
        job.json          what was claimed: the attempt is to be reported while this exists
        workspace/        train.py, prepare.py, and what the run writes: with an older prepare.py
                          also `.measures`, each val_bpb as it measured it; the rest is deleted
                          when the run has ended
        compiled/         the compile cache of a run in sandbox level `strict`
        entry.py          what the run's Python executes first, a copy of ours
        verify/           in `strict`: train.py, prepare.py and verify.py, which measures once more
        verify.log        what it printed
        output.log        the capped log
        supervisor.sock   where a restarted worker finds the supervisor
        result.json       how the run ended, once it has

    runs/<run>.kept/      an attempt that could not be settled, for a person to look at and delete

A folder with job.json and result.json is a result that waits for delivery: this worker, or one
started later, reports it when the orchestrator can be reached. Standard library only.
"""

import stat
from contextlib import suppress
from pathlib import Path

_KEPT = ".kept"
_NEEDED = ("train.py", "prepare.py", ".measures")
CHECKPOINT_BYTES = 8 << 30


class RunFolder:
    """One attempt's files; `path` ends in the run's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path.name
        self.job = path / "job.json"
        self.workspace = path / "workspace"
        self.measures = self.workspace / ".measures"
        self.compiled = path / "compiled"
        self.entry = path / "entry.py"
        self.checkpoint = self.workspace / "checkpoint.safetensors"
        self.verify = path / "verify"
        self.verify_log = path / "verify.log"
        self.log = path / "output.log"
        self.socket = path / "supervisor.sock"
        self.result = path / "result.json"

    def has_checkpoint(self) -> bool:
        """True if the run saved its model. A link could lead out of the sandbox."""
        with suppress(OSError):
            status = self.checkpoint.lstat()
            return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= CHECKPOINT_BYTES
        return False

    @property
    def settled(self) -> bool:
        """True if there is nothing to report. A job that cannot even be looked at is unsettled."""
        try:
            self.job.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def settle(self) -> None:
        """Mark the attempt as reported. `remove`, which takes longer, deletes its files."""
        with suppress(FileNotFoundError):
            self.path.chmod(0o700)  # the run may have closed its own folder
            self.job.unlink()

    def free_space(self) -> None:
        """Delete what the ended run wrote, but for its measures: a report may need the space."""
        import subprocess

        kept = [word for name in _NEEDED for word in ("!", "-name", name)]
        find = ["find", str(self.workspace), "-mindepth", "1", "-maxdepth", "1", *kept]
        delete = [*find, "-exec", "rm", "-rf", "{}", "+"]
        with suppress(OSError):  # `remove` logs what cannot be deleted
            subprocess.run(delete, capture_output=True, check=False)

    def set_aside(self) -> Path:
        """Keep the files of an attempt that could not be settled. Raises OSError."""
        return self.path.rename(self.path.with_name(self.run + _KEPT))

    def remove(self) -> None:
        """Delete the folder, or log why it stays."""
        try:
            self.delete()
        except OSError as error:
            import logging

            logging.getLogger(__name__).warning("delete %s by hand: %s", self.path, error)

    def delete(self) -> None:
        """Delete the folder, also what the run made read-only. Raises OSError.

        `rm` removes folders at any depth; shutil.rmtree calls itself for each before Python 3.13.
        """
        import subprocess  # supervisors import this module too, and need none

        if not self.path.is_dir():
            return
        for command in ["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]:
            ended = subprocess.run([*command, "--", self.path], capture_output=True, check=False)
            if command[0] == "rm" and ended.returncode == 0:
                return
        raise OSError(ended.stderr.decode(errors="replace")[:500].strip())


class WorkerFolder:
    """The folder of one GPU's worker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.jsonl"
        self.check = path / "check.json"
        self.supervisor_log = path / "supervisor.log"
        self.compiled = path / "compiled"
        self._prepare = path / "prepare"
        self._runs = path / "runs"
        self.trial = self._runs / ".trial"  # a file that is written to see if it can be

    def prepare(self, sha256: str) -> Path:
        return self._prepare / f"{sha256}.py"

    def run(self, experiment_id: str, epoch: int) -> RunFolder:
        return RunFolder(self._runs / f"{experiment_id}.{epoch}")

    def create(self) -> None:
        self._runs.mkdir(parents=True, exist_ok=True)
        self._prepare.mkdir(exist_ok=True)

    def runs(self) -> list[RunFolder]:
        """Every attempt that left files, in order of the experiments' creation."""
        paths = self._runs.iterdir() if self._runs.is_dir() else ()
        found = sorted(path for path in paths if path.suffix != _KEPT and path.is_dir())
        return [RunFolder(path) for path in found]

"""The worker's settings: `AUTORESEARCH_*` variables, which flags of the same names override.

Lease and heartbeat are not here: the orchestrator sends them at registration, so that one setting
applies to both sides. Seconds and bytes, unless the name says otherwise.
"""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from gpu_worker.folders import WorkerFolder
from orchestrator.schemas.base import GpuId
from orchestrator.settings import DEFAULT_URL, HomeSettings, Seconds

MIB = 1024 * 1024


class WorkerSettings(HomeSettings):
    """The settings of one daemon, or of all daemons of a host."""

    orchestrator: str = DEFAULT_URL
    # "auto" (the first GPU, or the CPU), "cpu", an index, or "all" for one daemon per GPU.
    gpu: Annotated[str, Field(pattern=r"^(auto|cpu|all|[0-9]{1,4})$")] = "auto"
    gpu_id: GpuId | None = None
    # The command line before `train.py`; empty means `uv run` in the project.
    launcher: Annotated[tuple[str, ...], NoDecode] = ()
    project: Path = Field(default_factory=lambda: find_project(Path.cwd()))
    cache: Path | None = None
    isolation: Literal["auto", "bwrap", "direct"] = "auto"
    # False leaves out `prepare.py --check`, for stubs of train.py that need no data.
    check: bool = True
    recheck_seconds: Seconds = 10
    claim_wait_seconds: Annotated[float, Field(ge=0, le=300)] = 20
    drain_timeout: Annotated[float, Field(ge=0, le=86_400)] = 30
    kill_after_seconds: Annotated[float, Field(ge=0, le=600)] = 10
    log_limit_bytes: Annotated[int, Field(ge=1024, le=64 * MIB)] = 64 * MIB
    free_space_bytes: Annotated[int, Field(ge=0)] = 1024 * MIB
    # One folder for all users and homes of a host, so that no GPU has two workers.
    lock_dir: Path = Path("/tmp/autoresearch-locks")  # noqa: S108 - lock.py opens it with care

    @field_validator("launcher", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @field_validator("orchestrator")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("the orchestrator is an http:// or https:// address")
        return value.rstrip("/")

    @field_validator("project", "lock_dir", "cache")
    @classmethod
    def _absolute_path(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def command(self) -> list[str]:
        """The command line before a script's name.

        It names `python` because `uv run train.py` would install what comments in train.py ask for,
        and the environment is the project's, not the agent's.
        """
        if self.launcher:
            return list(self.launcher)
        return ["uv", "run", "--no-sync", "--project", str(self.project), "--", "python"]

    def folder(self, gpu_id: str) -> WorkerFolder:
        return WorkerFolder(self.paths.worker_dir(gpu_id))

    def environment(self) -> dict[str, str]:
        """The variables that give another process these same settings."""
        return {
            f"AUTORESEARCH_{name.upper()}": _as_text(getattr(self, name))
            for name in self.model_fields_set
            if getattr(self, name) is not None
        }


def _as_text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return shlex.join(value)
    return str(value)


def find_project(start: Path) -> Path:
    """The nearest folder from `start` upwards with the training stack, else this checkout."""
    for folder in (start, *start.parents):
        if (folder / "prepare.py").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    return Path(__file__).resolve().parent.parent

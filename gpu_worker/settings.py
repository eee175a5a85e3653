"""The worker's settings: `AUTORESEARCH_*` variables, which flags of the same names override.

Lease and heartbeat are not here: the orchestrator sends them at registration, so that one setting
applies to both sides. Seconds and bytes, unless the name says otherwise.
"""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from gpu_worker.folders import WorkerFolder
from gpu_worker.isolation import Level
from orchestrator.schemas.base import GpuId, Name
from orchestrator.settings import DEFAULT_URL, AbsolutePath, HomeSettings, OrchestratorUrl, Seconds

MIB = 1024 * 1024


def _file_or_http(url: str) -> str:
    parts = urlsplit(url)
    if (parts.scheme, parts.netloc) == ("file", "") and parts.path.startswith("/"):
        return url
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL such as file:///run/spot-notice or http://…")
    return url


class WorkerSettings(HomeSettings):
    """The settings of one daemon, or of all daemons of a host."""

    orchestrator: OrchestratorUrl = Field(DEFAULT_URL, description="Where the orchestrator is.")
    gpu: str = Field(
        "auto",
        pattern=r"^(auto|cpu|all|[0-9]{1,4}|(GPU|MIG)-[A-Za-z0-9/-]+)$",
        description="A GPU's index as in nvidia-smi, a UUID of a GPU or MIG device, all, cpu, or "
        "auto: the CPU if there is no GPU, else the first for `worker`, all for `up` and `demo`.",
    )
    gpu_id: GpuId | None = Field(
        None, description="Another name for the worker, if there is only one."
    )
    placement: Name | None = Field(
        None, description="What started the worker, for the pool list, such as `slurm 12_3`."
    )
    launcher: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Command that runs train.py instead of `uv run`, such as python3."
    )
    project: AbsolutePath = Field(
        default_factory=lambda: find_project(_working_directory()),
        description="Folder of prepare.py and the training environment.",
    )
    cache: AbsolutePath | None = Field(
        None, description="Folder of the training data, ~/.cache/autoresearch by default."
    )
    prepare: str | None = Field(
        None,
        description="Where prepare.py gets training data that this host lacks: climbmix, offline or"
        " a folder. Without it, a person runs prepare.py.",
    )
    sandbox: Level | None = Field(
        None, description="What holds a run: strict (the default), pid or none; docs/security.md."
    )
    isolation: Literal["auto", "bwrap", "direct"] = Field(
        "auto", description="The older name: bwrap is --sandbox pid, direct is none."
    )
    check: bool = Field(
        default=True, description="false leaves out the check of the training data."
    )
    recheck_seconds: Seconds = Field(
        10, description="How often that check is repeated while it fails."
    )
    claim_wait_seconds: float = Field(
        20, ge=0, le=300, description="How long one call for work waits."
    )
    drain_timeout: float = Field(
        30, ge=0, le=86_400, description="Seconds a run may go on once the worker must stop."
    )
    spot_notice: Annotated[str, AfterValidator(_file_or_http)] | None = Field(
        None, description="A file:// or http:// URL: drain once it is there; docs/cluster.md."
    )
    kill_after_seconds: float = Field(
        10, ge=0, le=600, description="How long after SIGTERM a run is killed."
    )
    log_limit_bytes: int = Field(
        64 * MIB, ge=1024, le=64 * MIB, description="How much of a run's output is kept."
    )
    free_space_bytes: int = Field(
        1024 * MIB, ge=0, description="With less free disk no run is taken."
    )
    lock_dir: AbsolutePath = Field(
        # One folder for all users and homes of a host, so that no GPU has two workers.
        Path("/tmp/autoresearch-locks"),  # noqa: S108 - lock.py opens it with care
        description="Folder of the locks on GPUs; one for the whole host.",
    )

    @field_validator("launcher", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @property
    def command(self) -> list[str]:
        """The command line before a script's name.

        It names `python` because `uv run train.py` would install what comments in train.py ask for,
        and the environment is the project's, not the agent's.
        """
        default = ["uv", "run", "--no-sync", "--project", str(self.project), "--", "python"]
        return list(self.launcher) or default

    @property
    def level(self) -> Level:
        older: dict[str, Level] = {"bwrap": "pid", "direct": "none"}
        return self.sandbox or older.get(self.isolation, "strict")

    @property
    def cache_folder(self) -> Path:
        return self.cache or Path("~/.cache/autoresearch").expanduser()

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
    if isinstance(value, tuple):
        return shlex.join(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")  # it was deleted


def find_project(start: Path) -> Path:
    """The nearest folder from `start` upwards with the training stack, else this checkout."""
    for folder in (start, *start.parents):
        if (folder / "prepare.py").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    return Path(__file__).resolve().parent.parent

"""Configuration: `AUTORESEARCH_*` variables, and the one owner of file paths below the home.

Flags of the same names override the variables (cli/). Units are in the names.
"""

import hashlib
import platform
from functools import cached_property
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_PORT = 3111
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

Seconds = Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)]


def default_home() -> Path:
    """The platform's user-data directory for this program."""
    return Path(platformdirs.user_data_dir("autoresearch", appauthor=False))


class HomeSettings(BaseSettings):
    """What every process of the system shares."""

    model_config = SettingsConfigDict(
        env_prefix="AUTORESEARCH_", extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    home: Path = Field(default_factory=default_home)
    token: SecretStr | None = None

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @cached_property
    def paths(self) -> "HomePaths":
        return HomePaths(self.home)


class Settings(HomeSettings):
    """The orchestrator's settings."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT
    no_token: bool = False
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    redis_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("REDIS_URL", "redis_url")
    )
    repo: Path | None = None
    prepare_py: Path | None = None

    lease_seconds: Seconds = 30
    heartbeat_seconds: Annotated[Seconds, Field(validate_default=True)] = 5
    offline_seconds: Seconds = 60
    grace_seconds: Seconds = 300
    redis_timeout_seconds: Seconds = 5

    @field_validator("heartbeat_seconds")
    @classmethod
    def _fits_the_lease(cls, value: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_seconds", float("inf"))
        if 2 * value > lease:
            raise ValueError(
                f"at most half of lease_seconds ({lease:g}), or live runs are taken for dead"
            )
        return value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value


class HomePaths:
    """Where each part of the system keeps its files. What lies inside `redis_dir` and a worker's
    folder is named by embedded.py and gpu_worker/folders.py."""

    def __init__(self, home: Path) -> None:
        self.home = home

    # The embedded Redis-protocol server.
    @property
    def redis_dir(self) -> Path:
        return self.home / "redis"

    # What a backup holds besides Redis: the rest is made anew, or is this machine's own affair.
    @property
    def kept_dirs(self) -> tuple[Path, ...]:
        return self.home / "sources", self.home / "runs"

    # Content-addressed sources: every train.py that ran, every prepare.py a tag pinned.
    def source(self, sha256: str) -> Path:
        return self.home / "sources" / sha256[:2] / f"{sha256}.py.gz"

    # What a run leaves: its log by attempt, its curve.
    def run_dir(self, tag: str, experiment_id: str) -> Path:
        return self.home / "runs" / tag / experiment_id

    def live_log(self, tag: str, experiment_id: str, epoch: int) -> Path:
        return self.run_dir(tag, experiment_id) / f"{epoch}.log"

    def closed_log(self, tag: str, experiment_id: str, epoch: int) -> Path:
        return self.run_dir(tag, experiment_id) / f"{epoch}.log.gz"

    def log_tail(self, tag: str, experiment_id: str, epoch: int) -> Path:
        return self.run_dir(tag, experiment_id) / f"{epoch}.log.tail"

    def curve(self, tag: str, experiment_id: str) -> Path:
        return self.run_dir(tag, experiment_id) / "curve.json"

    # A cache: the words of a tag's experiments. Apart for each host: SQLite's locks hold on one.
    def text_index(self, tag: str) -> Path:
        return self.home / "index" / _file_name(platform.node() or "host") / f"{tag}.sqlite3"

    # What the processes that `up` and `demo` start have to say.
    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    # How far a mirror has come.
    def mirror(self, name: str) -> Path:
        return self.home / "mirrors" / f"{name}.json"

    # The worker's side, one folder a GPU.
    def worker_dir(self, gpu_id: str) -> Path:
        return self.home / "workers" / _file_name(gpu_id)


def _file_name(name: str) -> str:
    """A name for a file, another one for each name."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    suffix = "" if safe == name else "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return safe + suffix

"""Configuration: `AUTORESEARCH_*` variables, and all file paths below the home.

Each field is a flag of the same name too, which overrides the variable; its description is the
flag's help (cli/options.py). Units are in the names.
"""

import contextlib
import errno
import hashlib
import os
import platform
import ssl
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from orchestrator.errors import SetupError, reason

DEFAULT_PORT = 3111
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

Seconds = Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)]


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{path}: this user has no home folder; name one from / on") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path}: the working directory was deleted; cd to another") from error


def _http(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket or a port that is none
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} is no URL such as {DEFAULT_URL}")
    return url.rstrip("/")


def _bucket(url: str) -> str:
    parts = urlsplit(url)
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}" == url
    if parts.scheme not in ("s3", "gs", "az") or not parts.netloc or "@" in url or not plain:
        raise ValueError(f"{url!r} is no bucket such as s3://NAME/PREFIX, gs://… or az://…")
    return url.rstrip("/")


def _sendable(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("only ASCII characters without line breaks can be sent")
    return token


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
OrchestratorUrl = Annotated[str, AfterValidator(_http)]


def _default_home() -> Path:
    try:
        return platformdirs.user_data_path("autoresearch", appauthor=False)
    except RuntimeError:
        return Path("~")  # which is refused with the field's name


class CallerSettings(BaseSettings):
    """What every process of the system needs, that of a caller without files included."""

    model_config = SettingsConfigDict(
        env_prefix="AUTORESEARCH_", extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    token: Annotated[SecretStr, AfterValidator(_sendable)] | None = Field(
        None, description="Bearer token that each call must carry; `ps` shows flags."
    )

    ca: Path | None = Field(
        None, description="Certificates (PEM) that callers trust, instead of the system's."
    )


class HomeSettings(CallerSettings):
    """What every process with files shares."""

    home: AbsolutePath = Field(
        default_factory=_default_home,
        validate_default=True,
        description="Folder of all files that the system keeps.",
    )

    @cached_property
    def paths(self) -> "HomePaths":
        return HomePaths(self.home)


class Settings(HomeSettings):
    """The orchestrator's settings."""

    host: str = Field("127.0.0.1", description="Address to listen on, 127.0.0.1 by default.")
    port: int = Field(
        DEFAULT_PORT,
        ge=0,
        le=65_535,
        description="Port to listen on, 3111 by default; 0 takes a free one.",
    )
    no_token: bool = Field(default=False, description="Let other machines in without a token.")
    insecure: bool = Field(default=False, description="Let other machines in without TLS.")
    tls_cert: AbsolutePath | None = Field(
        None, description="Serve HTTPS with this chain of certificates (PEM)."
    )
    tls_key: AbsolutePath | None = Field(
        None, validate_default=True, description="The certificate's private key (PEM)."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="More host names that the service answers to, with commas."
    )
    redis_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="An external Redis; `ps` shows flags.",
    )
    store: Annotated[str, AfterValidator(_bucket)] | None = Field(
        None, description="Bucket for sources, logs and curves: s3://, gs:// or az://NAME/PREFIX."
    )
    repo: Path | None = Field(
        None, description="Git repository in which a submitted commit_sha is looked up."
    )
    prepare_py: Path | None = Field(None, description="The prepare.py that new tags are tied to.")

    lease_seconds: Seconds = Field(30, description="After this silence a worker loses its run.")
    heartbeat_seconds: Seconds = Field(
        5, validate_default=True, description="How often workers renew their leases."
    )
    offline_seconds: Seconds = Field(
        60, description="After this silence a worker is shown as offline."
    )
    max_heartbeats_per_second: float = Field(
        # 1 000 GPUs, each of which sends a piece of its log as often: 400 requests a second are
        # what one process answers with ease on a slow core.
        200,
        gt=0,
        allow_inf_nan=False,
        description="With more GPUs than send so many, each sends its own less often.",
    )
    grace_seconds: Seconds = Field(
        300, description="What a run may take beyond its training budget."
    )
    redis_timeout_seconds: Seconds = Field(5, description="How long a call to Redis may take.")

    @property
    def scheme(self) -> str:
        return "http" if self.tls_cert is None else "https"

    @field_validator("tls_key")
    @classmethod
    def _fits_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_cert")
        if (value is None) != (certificate is None):
            raise ValueError("a certificate and its key are given together: tls_cert, tls_key")
        if certificate is not None:
            try:
                ssl.create_default_context().load_cert_chain(certificate, value)
            except OSError as error:  # which an SSLError is too
                raise ValueError(f"not usable with {certificate}: {reason(error)}") from error
        return value

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
    """Where each part of the system keeps its files. embedded.py names the files in `redis_dir`,
    gpu_worker/folders.py those in a worker's folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        # The embedded Redis-protocol server.
        self.redis_dir = home / "redis"
        # What seals the journals, and which seals were given.
        self.journal_key, self.noted_seals_dir = home / "journal.key", home / "seals"
        # Logs of the processes that `up` and `demo` start.
        self.logs_dir = home / "logs"
        # What a backup holds besides Redis; the rest can be rebuilt or belongs to this machine.
        self.kept_dirs = (home / "sources", home / "runs")

    def require(self) -> None:
        """Create the home; SetupError if this user cannot write there."""
        try:
            self.logs_dir.mkdir(parents=True, exist_ok=True)
            for folder in (self.home, self.logs_dir):
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        except OSError as error:
            raise SetupError(
                f"--home (AUTORESEARCH_HOME): {error.filename} cannot be written "
                f"({reason(error)}); name a folder of yours"
            ) from error

    def make_private(self) -> None:
        """Close the home to other users, and so all that this process writes from now on.

        A home of another user stays as it is: only its owner can close it.
        """
        os.umask(0o077)
        with contextlib.suppress(FileNotFoundError):
            if self.home.stat().st_uid == os.getuid():
                self.home.chmod(0o700)

    # Sources by their hash: every train.py that ran, every prepare.py that a tag pinned.
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

    # A cache of the words of a tag's experiments; one per host, because SQLite locks on one host.
    def text_index(self, tag: str) -> Path:
        return self.home / "index" / _file_name(platform.node() or "host") / f"{tag}.sqlite3"

    # How far a mirror has come.
    def mirror(self, name: str) -> Path:
        return self.home / "mirrors" / f"{name}.json"

    # The worker's side, one folder a GPU.
    def worker_dir(self, gpu_id: str) -> Path:
        return self.home / "workers" / _file_name(gpu_id)


def _file_name(name: str) -> str:
    """A safe file name; different names stay different."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    suffix = "" if safe == name else "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return safe + suffix

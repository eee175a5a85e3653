"""The processes under test: one Redis on disk, orchestrators, one worker a GPU, proxies between.

    agents ── proxy ──┐
                      orchestrator ── proxy ── Redis (appendonly yes, appendfsync always)
    worker ── proxy ──┘

With `network` there are no proxies: each process is on a host of its own (network.py).
The processes that a worker starts are the product's; the audit checks that they end.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from bench.chaos.network import REDIS, Network
from bench.chaos.process import LOOK_SECONDS, Host, Process
from bench.chaos.recorder import Recorder
from bench.chaos.stub import write_launcher
from bench.harness.ports import free_port
from bench.harness.proxy import Proxy, Tap
from gpu_worker import tree
from gpu_worker.folders import WorkerFolder
from orchestrator.settings import HomePaths
from orchestrator.store import keys
from orchestrator.valkey import server_binary

START_SECONDS = 60.0
_SABOTAGE = "bench.chaos.sabotage"


@dataclass(frozen=True)
class Timing:
    """The settings that decide how fast the system notices and gives up. Seconds."""

    lease: float = 3.0
    heartbeat: float = 0.4
    offline: float = 6.0
    budget: float = 1.0
    grace: float = 3.0
    kill_after: float = 0.5
    redis_timeout: float = 1.0
    claim_wait: float = 5.0
    drain: float = 0.3


PRODUCTION = Timing(
    lease=30, heartbeat=5, offline=60, budget=300, grace=300, kill_after=10, redis_timeout=5,
    claim_wait=20, drain=30,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What to start. `sabotage` names a seeded bug (sabotage.py) that all processes get."""

    folder: Path
    workers: int = 5
    orchestrators: int = 3
    timing: Timing = Timing()
    sabotage: str | None = None
    sandbox: str = "none"  # in a PID namespace the kernel would do the work of the guards
    network: int | None = None  # a seed: each process on a host of its own

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def hosts(self) -> list[str]:
        """The names of all processes."""
        orchestrators = [f"orchestrator-{index}" for index in range(self.orchestrators)]
        return [*orchestrators, REDIS, *(f"worker-{index}" for index in range(self.workers))]

    def command(self, module: str, *arguments: str) -> list[str]:
        """`python -m MODULE`, with the seeded bug if there is one."""
        entry = [module] if self.sabotage is None else [_SABOTAGE, self.sabotage, module]
        return [sys.executable, "-m", *entry, *arguments]


def apart(folder: Path, seed: int) -> Plan:
    """One orchestrator and two workers, each on a host of its own."""
    return Plan(folder, workers=2, orchestrators=1, network=seed)


class Orchestrator(Process):
    def __init__(self, index: int, plan: Plan, redis_url: str, host: Host) -> None:
        self.port = free_port()
        self.url = ""  # where agents find it
        timing = plan.timing
        env = {
            "AUTORESEARCH_HOME": str(plan.home),
            "REDIS_URL": redis_url,
            "AUTORESEARCH_PORT": str(self.port),
            "AUTORESEARCH_PREPARE_PY": str(plan.folder / "prepare.py"),
            "AUTORESEARCH_LEASE_SECONDS": str(timing.lease),
            "AUTORESEARCH_HEARTBEAT_SECONDS": str(timing.heartbeat),
            "AUTORESEARCH_OFFLINE_SECONDS": str(timing.offline),
            "AUTORESEARCH_GRACE_SECONDS": str(timing.grace),
            "AUTORESEARCH_REDIS_TIMEOUT_SECONDS": str(timing.redis_timeout),
            # A seeded bug may need to know which orchestrator it is in.
            "CHAOS_INDEX": str(index),
        }
        command = plan.command("orchestrator.cli", "serve")
        super().__init__(f"orchestrator-{index}", command, env, plan.folder / "logs", host)

    async def ready(self) -> None:
        """Return once it listens, also if Redis does not answer it."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self.host.address, self.port)
                writer.close()
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not listen on port {self.port}")
            await asyncio.sleep(LOOK_SECONDS)


class Worker(Process):
    def __init__(
        self, index: int, plan: Plan, orchestrator: Orchestrator, url: str, host: Host
    ) -> None:
        self.gpu_id = f"gpu-{index}"
        self.orchestrator = orchestrator
        self.folder = WorkerFolder(HomePaths(plan.home).worker_dir(self.gpu_id))
        timing = plan.timing
        env = {
            "AUTORESEARCH_HOME": str(plan.home),
            "AUTORESEARCH_ORCHESTRATOR": url,
            "AUTORESEARCH_LOCK_DIR": str(plan.folder / "locks"),
            "AUTORESEARCH_LAUNCHER": f"sh {plan.folder / 'stub.sh'}",
            "AUTORESEARCH_CHECK": "false",
            "AUTORESEARCH_FREE_SPACE_BYTES": "0",
            "AUTORESEARCH_SANDBOX": plan.sandbox,
            "AUTORESEARCH_KILL_AFTER_SECONDS": str(timing.kill_after),
            "AUTORESEARCH_DRAIN_TIMEOUT": str(timing.drain),
            "AUTORESEARCH_CLAIM_WAIT_SECONDS": str(timing.claim_wait),
            "AUTORESEARCH_LOG_LIMIT_BYTES": str(64 * 1024),
        }
        command = plan.command("gpu_worker", "--gpu", "cpu", "--gpu-id", self.gpu_id)
        super().__init__(f"worker-{index}", command, env, plan.folder / "logs", host)


def _patience() -> Retry:
    """For commands that come while Redis is away."""
    return Retry(ConstantBackoff(LOOK_SECONDS), round(START_SECONDS / LOOK_SECONDS))


class Redis(Process):
    """`direct` is its URL for the audit, around the network."""

    def __init__(self, plan: Plan, network: Network | None) -> None:
        self.port = free_port()
        data = plan.folder / "redis"
        data.mkdir()
        durable = "no" if plan.sabotage == "volatile-redis" else "yes"
        if network is None:
            self.direct = f"redis://127.0.0.1:{self.port}/0"
            server = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        else:
            self.direct = f"unix://{data / 's'}"
            server = network.redis(self.port, data / "s")
        argv = [
            *server,
            *("--dir", str(data), "--appendonly", durable, "--appendfsync", "always", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
        ]
        host = Host() if network is None else network.host(REDIS)
        super().__init__(REDIS, argv, {}, plan.folder / "logs", host)

    async def ready(self) -> None:
        """Return once it answers."""
        async with redis.asyncio.Redis.from_url(self.direct, retry=_patience()) as client:
            await client.ping()


class System:
    """All of it. `direct` speaks to Redis around the proxies and the network, for the audit."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        for name in ("logs", "home", "locks"):
            (plan.folder / name).mkdir()
        (plan.folder / "prepare.py").write_text("# pinned\n")
        write_launcher(plan.folder)
        self.said = Recorder()
        self.network = (
            None if plan.network is None else Network(plan.folder, plan.network, plan.hosts)
        )
        self.redis = Redis(plan, self.network)
        self.proxies: dict[tuple[str, str], Proxy] = {}  # by the names of client and server
        self.orchestrators: list[Orchestrator] = []
        self.workers: list[Worker] = []
        # Any: redis-py types every answer as a union over text and bytes.
        self.direct: Any = redis.asyncio.Redis.from_url(
            self.redis.direct, decode_responses=True, socket_timeout=30, retry=_patience()
        )

    @property
    def processes(self) -> list[Process]:
        return [self.redis, *self.orchestrators, *self.workers]

    async def start(self) -> None:
        self.redis.start()
        await self.redis.ready()
        for index in range(self.plan.orchestrators):
            name = f"orchestrator-{index}"
            url = await self._redis_url(name)
            orchestrator = Orchestrator(index, self.plan, url, self._host(name))
            orchestrator.url = await self._url("agents", orchestrator)
            orchestrator.start()
            self.orchestrators.append(orchestrator)
        for index in range(self.plan.workers):
            name = f"worker-{index}"
            above = self.orchestrators[index % len(self.orchestrators)]
            url = await self._url(name, above, self.said.tap)
            worker = Worker(index, self.plan, above, url, self._host(name))
            worker.start()
            self.workers.append(worker)
        for orchestrator in self.orchestrators:
            await orchestrator.ready()

    def _host(self, name: str) -> Host:
        return Host() if self.network is None else self.network.host(name)

    async def _redis_url(self, client: str) -> str:
        if self.network is not None:
            return self.network.redis_url(self.redis.port)
        return f"redis://127.0.0.1:{await self._proxy(client, self.redis.name, self.redis.port)}/0"

    async def _url(
        self, client: str, server: Orchestrator, tap: Callable[[], Tap] | None = None
    ) -> str:
        if self.network is not None:
            return f"https://{server.host.address}:{server.port}"
        return f"http://127.0.0.1:{await self._proxy(client, server.name, server.port, tap)}"

    async def _proxy(
        self, client: str, server: str, port: int, tap: Callable[[], Tap] | None = None
    ) -> int:
        """The port of a new proxy between the two."""
        proxy = self.proxies[client, server] = Proxy(port, tap)
        await proxy.start()
        return proxy.port

    async def at_rest(self) -> bool:
        """True if no GPU has a lease or a hold, and all of them are idle."""
        counts = [await self.direct.zcard(keys.of_all(n)) for n in ("leases", "busy", "idle")]
        return counts == [0, 0, len(self.workers)]

    async def stop(self) -> None:
        """End every process, also stopped ones."""
        for process in [*self.workers, *self.orchestrators, self.redis]:
            process.send(signal.SIGCONT)
            process.kill()
        await asyncio.to_thread(tree.sweep, "AUTORESEARCH_HOME", str(self.plan.home))
        for proxy in self.proxies.values():
            await proxy.stop()
        await self.direct.aclose()
        if self.network is not None:
            self.network.stop()

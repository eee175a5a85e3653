"""A primary and a replica that Sentinel watches: the primary dies in the middle of a search."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench.harness.ports import free_port
from orchestrator.cli import main
from orchestrator.store.connection import Store
from tests.conftest import server_binaries
from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import decisions, outcomes

pytestmark = pytest.mark.slow


class Pair:
    """A primary, its replica, and one sentinel, which promotes after a second of silence."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self.ports = {name: free_port() for name in ("primary", "replica", "sentinel")}
        self._options = options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start("primary")
        self.start("replica", "--replicaof", "127.0.0.1", str(self.ports["primary"]))
        eventually(self.replicates, what="the replica")
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.ports['sentinel']}\n"
            f"sentinel monitor night 127.0.0.1 {self.ports['primary']} 1\n"
            "sentinel down-after-milliseconds night 1000\nsentinel failover-timeout night 3000\n"
        )
        self._spawn("sentinel", str(configuration), "--sentinel")
        eventually(self._sentinel_knows_both, what="the sentinel")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.ports['sentinel']}/night"

    def server(self, name: str) -> redis.Redis:
        return redis.Redis(port=self.ports[name], decode_responses=True)

    def start(self, name: str, *options: str) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        self._spawn(
            name,
            *("--port", str(self.ports[name]), "--dir", str(folder), "--save", ""),
            *(
                "--repl-diskless-sync-delay",
                "0",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                *self._options,
                *options,
            ),
        )
        eventually(lambda: self._answers(name), what=name)

    def _spawn(self, name: str, *words: str) -> None:
        with (self._folder / f"redis-{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen([server_binaries()[0], *words], stdout=log)

    def _answers(self, name: str) -> bool:
        try:
            return bool(self.server(name).ping())
        except redis.ConnectionError:
            return False

    def replicates(self) -> bool:
        return self.server("replica").info("replication")["master_link_status"] == "up"

    def role(self, name: str) -> str:
        return str(self.server(name).info("replication")["role"])

    def _sentinel_knows_both(self) -> bool:
        return self._answers("sentinel") and bool(self.server("sentinel").sentinel_slaves("night"))

    def part(self) -> None:
        """The replica gets nothing more from the primary."""
        self.server("replica").config_set("masterauth", "not the password")
        self.server("primary").client_kill_filter(_type="replica")
        eventually(lambda: not self.replicates(), what="the parting")

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def close(self) -> None:
        for name in self._processes:
            self.kill(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "servers"
    path.mkdir()
    return path


@pytest.fixture
def pair(system: System, folder: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(folder, *getattr(request, "param", ()))
    yield pair
    system.stop()
    pair.close()


def start(system: System, pair: Pair) -> None:
    system.serve(REDIS_URL=pair.url)
    system.worker()
    system.post("/api/experiment/setup", tag="t")


def audit(system: System, pair: Pair) -> int:
    return main(
        ["audit", "--home", system.environment["AUTORESEARCH_HOME"], "--redis-url", pair.url]
    )


def test_a_search_goes_on_by_itself_after_a_failover_in_the_middle_of_a_run(
    system: System, pair: Pair
) -> None:
    start(system, pair)
    before = system.submit(stub(1.0, 0.2))
    system.wait(before)
    during = system.submit(stub(0.9, 4))
    system.training(during)
    pair.kill("primary")
    eventually(system.ready, what="the new primary")
    system.wait(during)
    after = system.submit(stub(0.8, 0.2))
    system.wait(after)
    assert [outcomes(system, i) for i in (before, during, after)] == [["completed"]] * 3
    replica = f"redis://127.0.0.1:{pair.ports['replica']}"
    assert decisions(replica) == dict.fromkeys((before, during, after), 1)
    assert audit(system, pair) == 0


def test_a_verdict_that_no_replica_had_is_lost_with_its_primary_and_the_audit_says_so(
    system: System, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is trained again, and decided again."""
    start(system, pair)
    lost = system.submit(stub(0.9, 3))
    system.training(lost)
    pair.part()
    system.wait(lost)
    pair.kill("primary")
    eventually(system.ready, what="the new primary")
    system.wait(lost)
    assert outcomes(system, lost) == ["expired", "completed"]
    assert audit(system, pair) == 1
    assert "the journal lacks 1 of the entries" in capsys.readouterr().out


@pytest.mark.parametrize("pair", [("--min-replicas-to-write", "1")], indirect=True, ids=["pair"])
def test_with_min_replicas_to_write_no_verdict_is_told_that_a_failover_loses(
    system: System, pair: Pair
) -> None:
    """Redis takes no write that its replica would not get, so the worker keeps the result until the
    new primary takes it. That one wants a replica too: the old one, when it is back."""
    start(system, pair)
    kept = system.submit(stub(0.9, 3))
    system.training(kept)
    pair.part()
    workers = system.folder / "home" / "workers"
    eventually(
        lambda: list(workers.rglob("result.json")), what="the result that cannot be reported"
    )
    assert not system.get(f"/api/experiment/{kept}/wait", timeout=0)["verdict"]
    pair.kill("primary")
    eventually(lambda: pair.role("replica") == "master", what="the promotion")
    pair.start("primary")
    eventually(system.ready, what="the new primary")
    system.wait(kept)
    assert outcomes(system, kept) == ["completed"]
    assert audit(system, pair) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("found_by", ["another connection", "a write that is refused"])
async def test_no_connection_goes_on_with_a_primary_of_the_past(pair: Pair, found_by: str) -> None:
    """One that comes back takes writes, and loses them, until Sentinel makes it a replica."""
    store = Store(pair.url, 2)
    shared, _ = store.connections

    async def port() -> int:
        return int((await shared.ask("CONFIG", "GET", "port"))[1])

    assert await port() == pair.ports["primary"]
    pair.server("replica").replicaof("no", "one")
    sentinel = pair.server("sentinel")
    sentinel.sentinel_remove("night")
    sentinel.sentinel_monitor("night", "127.0.0.1", pair.ports["replica"], 1)
    assert await port() == pair.ports["primary"], "nobody has asked since"
    if found_by == "another connection":
        await store.ping()
    else:
        pair.server("primary").replicaof("127.0.0.1", str(pair.ports["replica"]))
        await store.pool.tidy(60)
    assert await port() == pair.ports["replica"]
    await store.close()

"""Leases of a pool that grows and shrinks, on real servers, by a clock that the test moves."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import schemas
from orchestrator.domain import NewExperiment, State, Tag
from orchestrator.files import open_files
from orchestrator.rules.strategy import INITIAL
from orchestrator.services.core import reaper
from orchestrator.services.wiring import Services
from orchestrator.settings import Settings
from orchestrator.store import keys
from orchestrator.store.connection import Store

pytestmark = pytest.mark.anyio

STEP = 10.0  # between two passes: a longer gap would be a pause of the reaper's process


@dataclass
class Clock:
    """In place of the reaper's `time`."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


async def _connected() -> bool:
    return False


class Pool:
    """With one heartbeat a second for all GPUs, five have the interval that is set, 5 s."""

    def __init__(self, store: Store, home: Path, clock: Clock, per_second: float = 1) -> None:
        (home / "prepare.py").write_text("")
        settings = Settings(
            home=home, prepare_py=home / "prepare.py", max_heartbeats_per_second=per_second
        )
        self.store, self.clock = store, clock
        self.services = Services(store, settings, open_files(settings))
        self.gpus = 0

    async def resize(self, gpus: int) -> None:
        """Have so many GPUs, of which g0 is one, and the reaper count them."""
        for number in range(self.gpus, gpus):
            await self.services.pool.register(
                schemas.RegisterGpuRequest(
                    gpu_id=f"g{number}", gpu_index=0, gpu_name="x", vram_mb=1
                )
            )
        for number in range(gpus, self.gpus):
            await self.services.pool.deregister(f"g{number}")
        self.gpus = gpus
        await self.services.reaper.make_pass()

    async def interval(self) -> float | None:
        beat = schemas.HeartbeatRequest(gpu_id="g0")
        return (await self.services.pool.heartbeat(beat)).heartbeat_seconds

    async def submit(self) -> None:
        await self.store.experiments.setup(Tag("t", 0, 300.0, 0.002, 3), INITIAL)
        source = self.services.files.put_source("x = 1\n")
        new = NewExperiment("h", "d", "other", "abc", "", source_sha256=source)
        await self.store.experiments.submit("t", new)

    async def claim(self, claim_id: str = "claim-01") -> schemas.Job:
        request = schemas.ClaimRequest(gpu_id="g0", claim_id=claim_id)
        job = (await self.services.jobs.claim(request, 0, _connected)).job
        assert job is not None
        return job

    async def survives(self, job: schemas.Job, seconds: float, step: float = STEP) -> bool:
        """Let time pass in silence: True if the attempt still has its lease."""
        for _ in range(int(seconds // step)):
            self.clock.now += step
            await self.services.reaper.make_pass()
        return (await self.store.reads.entry(job.experiment_id)).run.state is State.LEASED


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reaper, "time", clock)
    return clock


@pytest.fixture
def pool(store: Store, tmp_path: Path, clock: Clock) -> Pool:
    return Pool(store, tmp_path, clock)


async def test_the_interval_grows_and_shrinks_with_the_pool(pool: Pool) -> None:
    """Up to the budget it is the one that was set."""
    seen = []
    for gpus in (1, 5, 20, 8, 2):
        await pool.resize(gpus)
        seen.append(await pool.interval())
    assert seen == [5, 5, 20, 8, 5]


async def test_a_claim_stretches_lease_and_interval_alike(pool: Pool) -> None:
    await pool.resize(20)
    await pool.submit()
    job = await pool.claim()
    assert (job.heartbeat_seconds, job.lease_seconds) == (20, 120)
    assert await pool.survives(job, 120)
    assert not await pool.survives(job, 2 * STEP)


async def test_a_lease_is_not_shortened_when_the_pool_shrinks(pool: Pool) -> None:
    await pool.resize(20)
    await pool.submit()
    job = await pool.claim()
    await pool.resize(1)
    assert await pool.interval() == 5
    assert await pool.survives(job, job.lease_seconds)
    assert not await pool.survives(job, 2 * STEP)


async def test_a_reaper_that_looks_less_often_at_a_large_pool_still_ends_a_dead_lease(
    store: Store, tmp_path: Path, clock: Clock
) -> None:
    """Its own pauses are none that it would have to wait after."""
    pool = Pool(store, tmp_path, clock, per_second=0.2)
    assert pool.services.reaper.pause_seconds() == 1
    await pool.resize(20)
    assert (step := pool.services.reaper.pause_seconds()) == 20
    await pool.submit()
    job = await pool.claim()
    assert await pool.survives(job, job.lease_seconds, step)
    assert not await pool.survives(job, 2 * step, step)


async def test_a_claim_that_is_sent_again_gets_the_lease_that_it_had(pool: Pool) -> None:
    """Its answer was lost, and the pool has another size by now."""
    await pool.resize(20)
    await pool.submit()
    job = await pool.claim()
    await pool.resize(40)
    assert await pool.claim() == job


async def test_a_worker_of_an_older_version_keeps_its_run_in_a_pool_of_any_size(
    pool: Pool,
) -> None:
    """It knows the interval of its registration only, and renews as late as that allows."""
    await pool.resize(20)
    registered = await pool.services.pool.register(
        schemas.RegisterGpuRequest(gpu_id="g0", gpu_index=0, gpu_name="x", vram_mb=1)
    )
    assert registered.timing == schemas.Timing(lease_seconds=30, heartbeat_seconds=5)
    await pool.submit()
    job = await pool.claim()
    renewal = schemas.RenewRequest(
        experiment_id=job.experiment_id, gpu_id="g0", epoch=1, lease_secret=job.lease_secret
    )
    for gpus in (1, 30, 2, 20):
        await pool.resize(gpus)
        await pool.survives(job, registered.timing.lease_seconds - STEP)
        await pool.services.jobs.renew(renewal)  # raises LeaseLost


async def test_a_gpu_of_a_large_pool_may_be_silent_for_longer_before_it_reads_offline(
    pool: Pool,
) -> None:
    await pool.resize(20)
    seconds, _ = await pool.store.redis.time()
    silent_since = (seconds - 200) * 1_000_000
    await pool.store.redis.hset(keys.of_all("gpu:", "g0"), "heartbeat", str(silent_since))
    assert (await pool.services.pool.list()).offline == 0
    await pool.resize(5)
    assert (await pool.services.pool.list()).offline == 1


async def test_a_lease_that_an_older_version_granted_has_the_length_that_was_set(
    pool: Pool,
) -> None:
    await pool.resize(1)
    await pool.submit()
    job = await pool.claim()
    await pool.store.redis.hdel(keys.of_tag("t", "run:", job.experiment_id), "lease_seconds")
    assert await pool.survives(job, 30)
    assert not await pool.survives(job, 2 * STEP)

"""Any sequence of requests on a tag that races leaves books that agree, and the race comes to rest.

A seeded walk drives the services on a real server: ideas on the champion and on older ones, runs
that complete with noise, crash, are lost, handed back, cancelled or asked for again, a tag that is
paused, and reports or fills that come at once. As in test_model.py a script may be executed twice.
After each step the stored sets must agree with the race; now and then, and in the end, the audit
recomputes every belief from the journal, and the oracle counts the records again. In the end GPUs
run what the rule queues until nothing is left.

`MODEL_EXAMPLES=500 uv run pytest -m slow tests/store/test_race_model.py` takes that many short
walks, and a quarter as many long ones.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator import schemas
from orchestrator.domain import KeepRule
from orchestrator.errors import Unavailable
from orchestrator.files import open_files
from orchestrator.ids import AttemptId
from orchestrator.rules.race.state import State as RaceState, from_json
from orchestrator.services.core.audit import Audit
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.race import Race
from orchestrator.services.core.sources import Sources
from orchestrator.services.wiring import Services
from orchestrator.settings import Settings
from orchestrator.store import keys
from orchestrator.store.connection import Store
from tests.oracle import keyspace
from tests.oracle.replay import replayed
from tests.store.test_model import Echo

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# Most that goes wrong goes wrong before the first results, so that short walks find more.
SHORT, LONG = 25, 150
WALKS = int(os.environ.get("MODEL_EXAMPLES", "16"))
MOST_STEPS_TO_REST = 400

WALKED = [(n, SHORT) for n in range(WALKS)] + [(n, LONG) for n in range(WALKS // 4)]

TAG = "a"
GPUS = ("g0", "g1", "g2", "g3")
LINES = 6
NOISES = (0.002, 0.0005, 0.006)  # of walks in turn
BASELINE = "".join(f"x{n} = 0\n# --\n" for n in range(LINES))
ENDS = {"completed": 24, "crash": 2, "timeout": 1, "lost": 2, "handed_back": 1}
OVER = ("keep", "discard", "crash", "timeout", "cancelled", "candidate", "repeat")


def changed(source: str, line: int, worth: int, number: int) -> str:
    """The source with one line changed: what it is worth in units of 0.0001, made unique."""
    lines = source.split("\n")
    lines[2 * line] = f"x{line} = {worth}  # {number}"
    return "\n".join(lines)


def truth(source: str) -> float:
    worth = [int(line.split()[2]) for line in source.split("\n") if line.startswith("x")]
    return 1.0 - sum(worth) / 10_000


# The steps of a walk, with the weight of each.
WEIGHTS = {
    "submit": 8, "claim_with_all": 8, "finish": 12, "finish_all_at_once": 2, "lose_for_good": 1,
    "cancel": 2, "requeue": 1, "pause_or_resume": 1, "fill_at_once": 2, "check_books": 1,
}  # fmt: skip


class Walk:
    def __init__(self, store: Store, home: Path, seed: int, rule: KeepRule) -> None:
        self.store, self.rule = store, rule
        self.chance = Random(seed)  # noqa: S311 - a fixed walk
        self.noise = NOISES[seed % len(NOISES)]
        self.echo = Echo(store.redis)
        store.experiments._scripts._redis = self.echo  # shared with all of them
        (home / "prepare.py").write_text("")
        settings = Settings(home=home, prepare_py=home / "prepare.py")
        self.services = Services(store, settings, open_files(settings))
        self.race_service = Race(store, self.services.files, Sources(self.services.files, None))
        self.judge = Judge(store, self.race_service)
        self.asked: set[str] = set()  # repeats that a person asked for
        self.jobs: list[schemas.Job] = []
        self.paused = False
        self.counter = 0

    async def begin(self) -> None:
        setup = schemas.SetupRequest(tag=TAG, keep_rule=self.rule)
        await self.services.experiments.setup(setup)
        for index, gpu in enumerate(GPUS):
            request = schemas.RegisterGpuRequest(
                gpu_id=gpu, gpu_index=index, gpu_name="x", vram_mb=1
            )
            await self.services.pool.register(request)

    async def step(self) -> None:
        [name] = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        with self.echo.while_on(self.chance.random() < 0.3):
            await getattr(self, name)()
        await self.check_sets()

    def number(self) -> int:
        self.counter += 1
        return self.counter

    # -- what is stored

    async def race(self) -> RaceState:
        return from_json(await self.store.redis.get(keys.of_tag(TAG, "race")))

    async def status(self, name: str) -> list[str]:
        return list(await self.store.redis.zrange(keys.of_tag(TAG, "status:", name), 0, -1))

    async def field(self, kind: str, experiment_id: str, name: str) -> Any:
        return await self.store.redis.hget(keys.of_tag(TAG, kind, experiment_id), name)

    # -- steps

    async def submit(self) -> None:
        """An idea on the champion or on an older one; it may leave its parent to the service."""
        champions, parent, source = (await self.race()).champions, None, BASELINE
        if champions:
            parent = champions[self.chance.choice((-1, -1, 0))].id
            source = self.services.files.source(await self.field("exp:", parent, "source"))
        worth = self.chance.choice((-40, -10, 0, 0, 10, 20, 40, 80))
        line = self.chance.randrange(LINES)
        request = schemas.SubmitRequest(
            tag=TAG, hypothesis="h", train_py=changed(source, line, worth, self.number()),
            parent_id=self.chance.choice((None, parent, parent)),
        )  # fmt: skip
        await self.services.experiments.submit(request)

    async def claim_with_all(self) -> None:
        for gpu in GPUS:
            claim = schemas.ClaimRequest(gpu_id=gpu, claim_id=f"claim-{self.number():08d}")
            answer = await self.services.jobs.claim(claim, 0, _connected)
            if answer.job is not None:
                self.jobs.append(answer.job)

    async def finish(self) -> None:
        if self.jobs:
            job = self.jobs.pop(self.chance.randrange(len(self.jobs)))
            [end] = self.chance.choices(list(ENDS), list(ENDS.values()))
            await self._report(job, end)

    async def _report(self, job: schemas.Job, end: Any = "completed") -> None:
        """What its worker says; it keeps a result that must wait for an earlier one."""
        value = truth(job.train_py) + self.chance.gauss(0, self.noise)
        request = schemas.FinishRequest(
            experiment_id=job.experiment_id, gpu_id=job.gpu_id, epoch=job.epoch, outcome=end,
            lease_secret=job.lease_secret,
            metrics=schemas.Metrics(val_bpb=value) if end == "completed" else None,
        )  # fmt: skip
        try:
            await self.services.jobs.finish(request)
        except Unavailable:
            self.jobs.append(job)

    async def finish_all_at_once(self) -> None:
        """Decisions on one snapshot, of which all but one are made again."""
        jobs, self.jobs = self.jobs, []
        await asyncio.gather(*map(self._report, jobs))

    async def lose_for_good(self) -> None:
        """A worker that was lost twice before is lost again."""
        if self.jobs:
            job = self.jobs.pop(self.chance.randrange(len(self.jobs)))
            run = keys.of_tag(TAG, "run:", job.experiment_id)
            await self.store.redis.hset(run, "losses", "2")
            attempt = AttemptId(job.experiment_id, job.epoch)
            await self.judge.attempt_lost(attempt, "silent", ending="expired")

    async def cancel(self) -> None:
        """Also a repeat or a merge, and a candidate, which stays as it is."""
        found = await self.status(self.chance.choice(("queued", "queued", "candidate")))
        if found:
            request = schemas.CancelRequest(reason="r")
            await self.services.steering.cancel(self.chance.choice(found), request)

    async def requeue(self) -> None:
        """A person wants a run again, with the same seed."""
        found = await self.status(self.chance.choice(OVER))
        if found:
            request = schemas.RequeueRequest(reason="r")
            chosen = self.chance.choice(found)
            self.asked.add((await self.services.steering.requeue(chosen, request)).experiment_id)

    async def pause_or_resume(self) -> None:
        self.paused = not self.paused
        steering = self.services.steering
        verb = steering.pause if self.paused else steering.resume
        await verb(schemas.TagSteerRequest(tag=TAG, reason="r"))

    async def switch(self) -> None:
        """Twice at once; one of them changes nothing."""
        request = schemas.TagSteerRequest(tag=TAG, reason="r")
        with self.echo.while_on(self.chance.random() < 0.5):
            await asyncio.gather(*(self.services.steering.race(request) for _ in range(2)))
        self.rule = "race"
        await self.check_sets()

    async def fill_at_once(self) -> None:
        """The reapers of several orchestrators look for what is due."""
        await asyncio.gather(*(self.race_service.fill(TAG) for _ in range(3)))

    # -- laws

    async def check_sets(self) -> None:
        race = await self.race()
        assert await self.status("candidate") == sorted(race.candidates)
        champion = race.champions[-1].id if race.champions else None
        if self.rule != "greedy":
            assert await self.store.redis.hget(keys.of_tag(TAG, "tag"), "best_id") == champion
        kept, discarded = set(await self.status("keep")), set(await self.status("discard"))
        assert {one.id for one in race.champions} <= kept
        lost = kept | discarded if self.rule == "greedy+merge" else discarded
        assert race.waiting.keys() <= lost
        follow = await self.store.redis.hgetall(keys.of_tag(TAG, "follow"))
        assert follow.keys() <= {*await self.status("queued"), *await self.status("running")}
        repeats = [what for what in follow.values() if not what.startswith("merge")]
        assert len(repeats) == len(set(repeats))
        assert len(follow) - len(repeats) <= 1  # one merge at a time

    async def check_seeds(self) -> None:
        """No source ran twice with one seed, unless a person asked for it."""
        had = Counter[str]()
        for name in ("keep", "discard", "candidate", "repeat", "running", "queued"):
            for experiment_id in set(await self.status(name)) - self.asked:
                source = await self.field("exp:", experiment_id, "source")
                had[f"{source}:{await self.field('run:', experiment_id, 'seed')}"] += 1
        assert {key: times for key, times in had.items() if times > 1} == {}

    async def check_books(self) -> None:
        """The product's audit, and the oracle's count of the records."""
        await self.check_seeds()
        assert (await Audit(self.store).check(TAG)).differences == []
        stored = keyspace.parsed(await self.store.redis.eval(keyspace.DUMP, 0))
        found, wanted = keyspace.actual(stored), keyspace.expected(replayed(stored))
        for state in (found, wanted):  # the oracle knows no repeats that a person asked for
            state.pop(f"{{{TAG}}}:follow", None)
        assert keyspace.differences(found, wanted) == {}

    async def rest(self) -> None:
        """GPUs run what is queued, and what the rule queues then, until nothing is left."""
        if self.paused:
            await self.pause_or_resume()
        for _ in range(MOST_STEPS_TO_REST):
            await self.race_service.fill(TAG)
            await self.claim_with_all()
            if not self.jobs:
                break
            await self._report(self.jobs.pop(0))
            await self.check_sets()
        assert await self.status("queued") == await self.status("candidate") == []
        assert not (await self.race()).waiting
        assert not await self.store.redis.exists(keys.of_tag(TAG, "follow"))
        await self.check_books()


async def _connected() -> bool:
    return False


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, 5)
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("rule", "switches"),
    [("race", False), ("greedy+merge", False), ("greedy", True), ("greedy+merge", True)],
)
@pytest.mark.parametrize(("seed", "steps"), WALKED)
async def test_the_books_of_a_race_agree_after_every_step(
    store: Store, tmp_path: Path, seed: int, steps: int, rule: KeepRule, *, switches: bool
) -> None:
    """Also of a tag that another rule has judged for half of the walk."""
    walk = Walk(store, tmp_path, seed, rule)
    await walk.begin()
    for number in range(steps):
        if switches and number == steps // 2:
            await walk.switch()
        await walk.step()
    await walk.rest()

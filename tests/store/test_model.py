"""Any sequence of verbs leaves in Redis what a plain model says, after each single step.

Hypothesis drives the services against a real server and compares the whole keyspace, the answers
and the event stream with `tests/oracle`. A request is sent in one of three ways: once; as an
*echo*, when each of its scripts is executed twice with the same nonce (what redis-py and a paused
Redis do); or *again*, as a whole under the nonces of the same Idempotency-Key, at once and perhaps
much later.
Between the read and the write of a decision another request may be executed (`crossed`). A GPU
falls silent and a hold lapses because the test writes an old time into Redis.

The plain suite runs a fixed set of examples. `MODEL_EXAMPLES=5000 uv run pytest
tests/store/test_model.py` runs that many random ones, without a time limit; a failure prints the
steps that lead to it, made as short as Hypothesis can.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator import schemas
from orchestrator.decisions import RunResult
from orchestrator.errors import AutoresearchError
from orchestrator.files import sha256_of
from orchestrator.folder import Folder
from orchestrator.ids import AttemptId
from orchestrator.services.agents.digests import Digests
from orchestrator.services.agents.search import Search
from orchestrator.services.agents.similar import SimilarIdeas
from orchestrator.services.core.audit import Audit
from orchestrator.services.core.experiments import Experiments
from orchestrator.services.core.jobs import Jobs
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.pool import Pool
from orchestrator.services.core.race import Race
from orchestrator.services.core.sources import Sources
from orchestrator.services.core.steering import Steering
from orchestrator.services.core.timing import PoolTiming
from orchestrator.services.core.wakeups import Wakeups
from orchestrator.services.dashboard.reports import Reports
from orchestrator.settings import Settings
from orchestrator.store.connection import Store
from orchestrator.store.experiments import by_lease
from orchestrator.store.scripts import nonces_from
from tests.oracle import keyspace
from tests.oracle.keyspace import State
from tests.oracle.model import Model
from tests.oracle.replay import replayed
from tests.oracle.search import LEASED, Refused, Report, Run, Tag
from tests.store.conftest import TIMING

ON_DEMAND = "MODEL_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "100"))
STEPS = 40

MIXING = ("b",)  # tags that run on several GPU models
TAGS = {"a": (0.002, 3), "b": (0.0, 1)}  # near-miss threshold, crashes in a row that abort
GPUS = ("g0", "g1", "g2")
PROFILES = ("p", "q", "p/data")  # the last one with a hash of its data
CATEGORIES = ("optimizer", "attention")
SOURCES = ("x = 1\n", "x = 2\n")
FLAGS = ("problem", "quarantined", "draining", "drained")
UNKNOWN_ID = "exp-00000000000001-a"

Call = Callable[[], Awaitable[Any]]
Action = Callable[[], Awaitable[None]]


class Echo:
    """A Redis client whose scripts are executed twice while `on`; the second answer counts."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.on = False

    async def evalsha(self, *args: Any) -> str:
        return await self._twice(self._client.evalsha, *args)

    async def eval(self, *args: Any) -> str:
        return await self._twice(self._client.eval, *args)

    async def _twice(self, command: Callable[..., Awaitable[str]], *args: Any) -> str:
        if self.on:
            await command(*args)
        return await command(*args)

    @contextlib.contextmanager
    def while_on(self, on: bool) -> Iterator[None]:
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before


class Crossing:
    """An experiment store: after its next snapshot another action is executed."""

    def __init__(self, experiments: Any) -> None:
        self._experiments = experiments
        self.meanwhile: Action | None = None

    async def snapshot(self, tag: str) -> Any:
        return await self._then(await self._experiments.snapshot(tag))

    async def run_snapshot(self, experiment_id: str) -> Any:
        return await self._then(await self._experiments.run_snapshot(experiment_id))

    async def _then(self, found: Any) -> Any:
        if self.meanwhile is not None:
            action, self.meanwhile = self.meanwhile, None
            await action()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._experiments, name)


@dataclass(frozen=True)
class Sent:
    """A request that was accepted under an Idempotency-Key, with its answer."""

    key: str
    call: Call
    answer: Any


# How a request is sent; and which of several candidates a step takes, counted from the newest.
HOW = st.sampled_from(("once", "echo", "again"))
PICK = st.integers(0, 7)
VALUES = st.one_of(
    st.sampled_from(("equal", "better", "near", "edge", "worse")),
    st.floats(0.5, 2.0).map(lambda value: round(value, 6)),
    st.sampled_from((5e-324, 1e-9, 1e6)),
)
SECONDS = st.sampled_from((None, 0.0, 12.25, 300.0))
ENDS = st.sampled_from(("completed", "completed", "crash", "timeout", "cancelled"))
LOSSES = st.sampled_from(("lost", "handed_back"))
ANY = st.sampled_from((False, False, True))  # any run, or one for which the request is meant
SHIFT = st.none() | st.integers(0, 3)


def pick(candidates: list[Any], number: int) -> Any:
    return candidates[-1 - number % len(candidates)]


class Machine(RuleBasedStateMachine):
    """The services on one side, the model on the other."""

    def __init__(self, url: str, home: Path) -> None:
        super().__init__()
        self.plain = redis.Redis.from_url(url, decode_responses=True)
        self.plain.flushall()
        self.loop = asyncio.new_event_loop()
        self.store = Store(url, 5)
        self.echo = Echo(self.store.redis)
        self.store.experiments._scripts._redis = self.echo  # shared with jobs and pool
        self.crossing = Crossing(self.store.experiments)
        self.store.experiments = self.crossing  # type: ignore[assignment]
        config = Settings(home=home)
        files = Folder(config.paths)
        self.sources = Sources(files, None)
        timing = PoolTiming(config)
        self.race = Race(self.store, files, self.sources)
        self.judge = Judge(self.store, self.race)
        wakeups = Wakeups(self.store.events, 1)
        digests = Digests(self.store, files)
        prepare_py = home / "prepare.py"
        prepare_py.write_text("")
        self.pool = Pool(self.store, files, self.sources, timing, config)
        self.experiments = Experiments(
            self.store, files, self.judge, wakeups, self.sources, self.pool, digests.attached,
            prepare_py,
        )  # fmt: skip
        self.jobs = Jobs(self.store, files, self.judge, wakeups, timing, config)
        self.reports = Reports(self.store, self.pool, config)
        similar = SimilarIdeas(self.store, files, config.paths)
        self.search = Search(self.store, similar)
        self.steering = Steering(self.store, self.judge, self.race)
        self.model = Model()
        self.claims: dict[tuple[str, str], schemas.Job | None] = {}
        self.secrets: dict[tuple[str, int], str | None] = {}
        self.requests: list[Sent] = []
        self.seen: list[tuple[Run, str, int]] = []  # a lease as a reaper saw it
        self.next_event = "-"
        self.past: dict[str, State] = {}
        self.counter = 0

    def teardown(self) -> None:
        for tag in self.model.tags:  # the journal alone must lead to all of this
            report = self.run(Audit(self.store).check(tag))
            assert report.differences == []
            assert report.decisions == len(self.model.tags[tag].decided)
        self.check_replay()
        self.run(self.store.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.plain.close()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(awaitable)  # type: ignore[arg-type]

    def fresh(self, word: str) -> str:
        self.counter += 1
        return f"{word}-{self.counter:08d}"

    async def ask(self, call: Call, how: str = "once", *, keep: bool = True) -> Any:
        """The answer, or the class of the refusal; `keep` lets it be sent again much later."""
        if how != "again":
            with self.echo.while_on(how == "echo"):
                return await _answer(call)
        key = self.fresh("key")
        with nonces_from(key):
            first = await _answer(call)
        with nonces_from(key):
            assert await _answer(call) == first, "the request sent again was answered otherwise"
        if keep and not isinstance(first, Refused):
            self.requests.append(Sent(key, call, first))
        return first

    # -- requests, each with what the model says of it

    async def do_setup(self, name: str, how: str = "once") -> None:
        threshold, crashes = TAGS[name]
        request = schemas.SetupRequest(
            tag=name, near_miss_threshold=threshold, max_consecutive_crashes=crashes,
            mix_models=name in MIXING,
        )  # fmt: skip
        answer = await self.ask(lambda: self.experiments.setup(request), how)
        refusal = self.model.setup(name, threshold, crashes, mixes=name in MIXING)
        assert (answer if refusal else answer.tag.name) == (refusal or name)

    async def do_register(
        self, tag: str, category: str, parent: str | None, gpu: str | None, how: str = "once"
    ) -> None:
        request = schemas.RegisterRequest(
            tag=tag, hypothesis="h", description="d", category=category, commit_sha="c0ffee",
            diff_summary="", parent_id=parent, gpu_id=gpu,
        )  # fmt: skip
        answer = await self.ask(lambda: self.experiments.register(request), how)
        if refusal := self.model.refusal_of_new(tag, parent):
            assert answer is refusal
        else:
            self.model.register(answer.experiment_id, tag, category, parent, gpu)

    async def do_submit(self, request: schemas.SubmitRequest, how: str = "once") -> None:
        assert request.train_py is not None
        source = sha256_of(request.train_py)
        answer = await self.ask(lambda: self.experiments.submit(request), how)
        refusal = self.model.refusal_of_new(request.tag, request.parent_id)
        if refusal:
            assert answer is refusal
        elif not request.repeat and self.model.duplicate_of(request.tag, source, request.seed):
            assert answer is Refused.CONFLICT
        else:
            position = self.model.submit(
                answer.experiment_id, request.tag, request.category, request.parent_id, source,
                request.seed, request.priority,
            )  # fmt: skip
            assert answer.position == position

    async def do_claim(self, gpu_id: str, claim_id: str, how: str = "once") -> None:
        request = schemas.ClaimRequest(gpu_id=gpu_id, claim_id=claim_id)
        answer = await self.ask(lambda: self.jobs.claim(request, 0, _connected), how, keep=False)
        if self.claims.get((gpu_id, claim_id)):
            assert answer.job == self.claims[gpu_id, claim_id]
            return
        run = self.model.claim(gpu_id)
        self.claims.setdefault((gpu_id, claim_id), None)
        if not isinstance(run, Run):
            assert (answer if run else answer.job) is run
            return
        self.claims[gpu_id, claim_id] = answer.job
        self.secrets[run.id, run.epoch] = answer.job.lease_secret
        got = (answer.job.experiment_id, answer.job.epoch, answer.job.seed, answer.job.tag)
        assert got == (run.id, run.epoch, run.seed, run.tag.name)
        assert sha256_of(answer.job.train_py) == run.source

    async def do_renew(
        self, run: Run, epoch: int, how: str = "once", *, started: bool, beat: bool = False
    ) -> None:
        request = schemas.RenewRequest(
            experiment_id=run.id, gpu_id=run.gpu or "g0", epoch=epoch, started=started,
            lease_secret=self.secrets.get((run.id, epoch)),
            health=schemas.Health() if beat else None,
        )  # fmt: skip
        answer = await self.ask(lambda: self.jobs.renew(request), how, keep=False)
        expected = self.model.renew(run, epoch, started=started, beat=beat)
        found = answer if isinstance(answer, Refused) else (answer.cancel, answer.gpu_known)
        assert found == expected

    async def do_finish(
        self, run: Run, epoch: int, end: Any, value: float, seconds: float | None, how: str = "once"
    ) -> None:
        """A worker's report."""
        completed = end == "completed"
        request = schemas.FinishRequest(
            experiment_id=run.id, gpu_id=run.gpu or "g0", epoch=epoch, outcome=end,
            lease_secret=self.secrets.get((run.id, epoch)),
            metrics=schemas.Metrics(val_bpb=value, training_seconds=seconds) if completed else None,
        )  # fmt: skip
        answer = await self.ask(lambda: self.jobs.finish(request), how)
        if end in ("lost", "handed_back", "cancelled"):
            expected = self.model.lose(run, epoch, end)
        else:
            report = Report(end, value, seconds) if completed else Report(end)
            expected = self.model.settle(run, report, LEASED, epoch)
        if isinstance(expected, Refused):
            assert answer is expected
        else:
            assert (answer.verdict and answer.verdict.model_dump()) == expected
            assert answer.status == run.status

    async def do_report(
        self, run: Run, value: float | None, seconds: float | None, how: str = "once"
    ) -> None:
        """A report by hand: a crash where there is no value."""
        call: Call
        if value is None:
            crash = schemas.CrashRequest(experiment_id=run.id, error="boom")
            call, report = partial(self.experiments.crash, crash), Report("crash")
        else:
            complete = schemas.CompleteRequest(
                experiment_id=run.id, val_bpb=value, training_seconds=seconds
            )
            call = partial(self.experiments.complete, complete)
            report = Report("completed", value, seconds)
        answer = await self.ask(call, how)
        expected = self.model.settle(run, report, ("hand",))
        assert (answer if isinstance(answer, Refused) else answer.model_dump()) == expected

    async def do_lose(
        self, run: Run, epoch: int, renewal: tuple[str, int] | None = None, how: str = "once"
    ) -> None:
        """The reaper ends a lease: the renewal that it saw, or the present one."""
        stamp, number = renewal or ("", None)
        answer = await self.ask(
            lambda: self.judge.attempt_lost(
                AttemptId(run.id, epoch), "silent", ending="expired", renewal=stamp
            ),
            how,
        )
        expected = self.model.lose(run, epoch, "expired", number)
        assert _dumped(answer) == expected

    async def do_cancel(self, run: Run, how: str = "once") -> None:
        call = partial(self.steering.cancel, run.id, schemas.CancelRequest())
        answer = await self.ask(call, how, keep=run.stop != "cancel")
        assert (answer.status, answer.cancelling) == self.model.cancel(run)

    async def do_requeue(self, run: Run, how: str = "once") -> None:
        call = partial(self.steering.requeue, run.id, schemas.RequeueRequest(reason="r"))
        answer = await self.ask(call, how, keep=run.stop != "requeue")
        expected = self.model.requeue(run, getattr(answer, "experiment_id", ""))
        if isinstance(expected, Refused):
            assert answer is expected
        else:
            assert (answer.requeueing, answer.position) == (expected is None, expected)
            assert answer.repeat_of == (None if expected is None else run.id)

    async def do_set_priority(self, run: Run, priority: int, how: str = "once") -> None:
        request = schemas.PriorityRequest(priority=priority, reason="r")
        call = partial(self.steering.set_priority, run.id, request)
        answer = await self.ask(call, how, keep=(run.priority or 0) != priority)
        expected = self.model.set_priority(run, priority)
        assert (answer if isinstance(answer, Refused) else answer.position) == expected

    async def do_pause(self, tag: Tag, paused: bool, how: str = "once") -> None:
        request = schemas.TagSteerRequest(tag=tag.name, reason="r")
        verb = self.steering.pause if paused else self.steering.resume
        answer = await self.ask(lambda: verb(request), how, keep=tag.paused != paused)
        self.model.pause(tag, paused=paused)
        assert answer.paused == (answer.pause is not None) == paused

    async def do_drain(self, gpu_id: str, drained: bool, how: str = "once") -> None:
        request = schemas.DrainRequest(gpu_id=gpu_id, reason="r")
        verb = self.steering.drain if drained else self.steering.undrain
        changes = (gpu_id in self.model.drained) != drained
        answer = await self.ask(lambda: verb(request), how, keep=changes)
        refusal = self.model.drain(gpu_id) if drained else self.model.undrain(gpu_id)
        assert (answer if refusal else answer.draining) == (refusal or drained)

    async def do_set_strategy(self, request: schemas.SetStrategyRequest, how: str = "once") -> None:
        answer = await self.ask(lambda: self.search.set_strategy(request), how)
        tag = self.model.tags.get(request.tag)
        if tag is None:
            assert answer is Refused.NOT_FOUND
            return
        self.model.set_strategy(
            tag, request.mode, request.explore_ratio, request.temperature, request.pinned
        )
        assert _strategy(answer) == tag.strategy

    async def do_adapt(self, tag: Tag, how: str = "once") -> None:
        stays, before = tag.fitting() is None, tag.strategy
        answer = await self.ask(lambda: self.search.adapt(tag.name), how, keep=False)
        if not stays:
            self.model.adapt(tag)
        assert _strategy(answer) == (before if stays else tag.strategy)

    async def do_direct(self, run: Run, gpu_id: str, source: str, how: str = "once") -> None:
        given = "" if run.source else (await self.sources.keep(source, None)).sha256

        async def call() -> str:
            await self.store.jobs.direct(run.id, gpu_id, given, 42)
            return "done"

        over = run.state == "decided"
        answer = await self.ask(call, how, keep=not over)
        assert answer == (self.model.direct(run, gpu_id, given) or "done")

    async def do_acquire(self, run: Run, how: str = "once") -> None:
        request = schemas.ExperimentRequest(experiment_id=run.id)
        answer = await self.ask(lambda: self.pool.acquire(request), how, keep=False)
        expected = self.model.acquire(run)
        if isinstance(expected, Refused):
            assert answer is expected
            return
        assert answer.acquired == (expected is not None)
        assert answer.gpu_id == (expected.id if expected else None)
        assert answer.gpu_index == (expected.index if expected else None)

    async def do_release(self, gpu_id: str, run_id: str | None, how: str = "once") -> None:
        request = schemas.ReleaseRequest(gpu_id=gpu_id, experiment_id=run_id)
        answer = await self.ask(lambda: self.pool.release(request), how)
        assert _refusal(answer) == self.model.release(gpu_id, run_id)

    # -- steps: tags and experiments

    @initialize(profile=st.sampled_from((None, *PROFILES)))
    def begin(self, profile: str | None) -> None:
        """Every example has a tag and a GPU."""
        self.run(self.do_setup("a"))
        self.register_gpu("g0", profile, None, boots=True, how="once")

    @rule(tag=st.sampled_from(("b", "a")), how=HOW)
    def setup(self, tag: str, how: str) -> None:
        self.run(self.do_setup(tag, how))

    @rule(
        tag=st.sampled_from(tuple(TAGS)),
        category=st.sampled_from(CATEGORIES),
        parent=st.none() | PICK,
        gpu=st.none() | st.sampled_from(GPUS),
        how=HOW,
    )
    def register(
        self, tag: str, category: str, parent: int | None, gpu: str | None, how: str
    ) -> None:
        self.run(self.do_register(tag, category, self.parent(parent), gpu, how))

    def parent(self, number: int | None) -> str | None:
        return None if number is None else pick([UNKNOWN_ID, *self.model.runs], number)

    @rule(
        tag=st.sampled_from(("a", "a", "b")),
        source=st.sampled_from(SOURCES),
        seed=st.sampled_from((42, 0)),
        priority=st.sampled_from((0, 0, 1, -1, 1000, -1000)),
        repeat=st.booleans(),
        category=st.sampled_from(CATEGORIES),
        parent=st.none() | PICK,
        how=HOW,
    )
    def submit(
        self, tag: str, source: str, seed: int, priority: int, repeat: bool, category: str,
        parent: int | None, how: str,
    ) -> None:  # fmt: skip
        request = schemas.SubmitRequest(
            tag=tag, hypothesis="h", train_py=source, seed=seed, priority=priority, repeat=repeat,
            category=category, parent_id=self.parent(parent),
        )  # fmt: skip
        self.run(self.do_submit(request, how))

    @rule(source=st.sampled_from(SOURCES), number=st.integers(2, 4), priority=st.integers(-1, 1))
    def submit_several(self, source: str, number: int, priority: int) -> None:
        for _ in range(number):
            request = schemas.SubmitRequest(
                tag="a", hypothesis="h", train_py=source, priority=priority, repeat=True
            )
            self.run(self.do_submit(request))

    @precondition(lambda self: not self.model.tags["a"].best)
    @rule(profile=st.sampled_from(PROFILES))
    def race(self, profile: str) -> None:
        """Two GPUs have the first submissions of a tag."""
        for source in SOURCES:
            request = schemas.SubmitRequest(tag="a", hypothesis="h", train_py=source, repeat=True)
            self.run(self.do_submit(request))
        for gpu in GPUS[:2]:
            profile = self.model.tags["a"].profile or profile
            self.register_gpu(gpu, profile, None, boots=True, how="once")
            self.run(self.do_claim(gpu, self.fresh("claim")))

    # -- steps: leases

    @rule(gpu=st.sampled_from(GPUS), how=HOW)
    def claim(self, gpu: str, how: str) -> None:
        self.run(self.do_claim(gpu, self.fresh("claim"), how))

    @precondition(lambda self: any(g.idle for g in self.model.gpus.values()) and self.model.queued)
    @rule(how=HOW)
    def claim_with_all(self, how: str) -> None:
        for gpu in list(self.model.gpus):
            self.run(self.do_claim(gpu, self.fresh("claim"), how))

    @precondition(lambda self: self.claims)
    @rule(number=PICK, how=HOW)
    def claim_again(self, number: int, how: str) -> None:
        self.run(self.do_claim(*pick(list(self.claims), number), how))

    @property
    def leased(self) -> list[Run]:
        return [run for run in self.model.runs.values() if run.leased]

    @property
    def by_hand(self) -> list[Run]:
        return [run for run in self.model.runs.values() if run.state == "hand"]

    @property
    def undecided(self) -> list[Run]:
        return [run for run in self.model.runs.values() if run.state != "decided"]

    def some(self, candidates: list[Run], number: int, any_run: bool) -> Run:
        """One of the candidates, or of all runs."""
        runs = list(self.model.runs.values()) if any_run or not candidates else candidates
        return pick(runs, number)

    def some_lease(self, number: int, shift: int | None) -> tuple[Run, int]:
        """A leased run and its epoch; with a shift any run, and an epoch that it has, had or will
        have."""
        run = self.some(self.leased, number, shift is not None)
        return run, max(1, run.epoch + (0 if shift is None else 1 - shift))

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, shift=SHIFT, started=st.booleans(), beat=st.booleans(), how=HOW)
    def renew(self, number: int, shift: int | None, started: bool, beat: bool, how: str) -> None:
        run, epoch = self.some_lease(number, shift)
        self.run(self.do_renew(run, epoch, how, started=started, beat=beat))

    def value(self, tag: Tag, word: float | str) -> float:
        """A val_bpb by what it is to the best."""
        best = tag.best.value if tag.best else None
        if not isinstance(word, str):
            return word
        if best is None:
            return 1.0
        steps = {
            "equal": 0.0, "better": -0.01, "near": tag.threshold / 2, "edge": tag.threshold,
            "worse": 0.1,
        }  # fmt: skip
        return max(best + steps[word], 5e-324)

    @precondition(lambda self: self.leased)
    @rule(number=PICK, end=ENDS, value=VALUES, seconds=SECONDS, how=HOW)
    def finish(
        self, number: int, end: str, value: float | str, seconds: float | None, how: str
    ) -> None:
        run = pick(self.leased, number)
        at = self.value(run.tag, value)
        self.run(self.do_finish(run, run.epoch, end, at, seconds, how))

    @property
    def early(self) -> list[Run]:
        """Leased runs of tags without a result, except the first submission of each."""
        tags = [tag for tag in self.model.tags.values() if not tag.best]
        firsts = [tag.first_undecided(self.model.runs.values(), leased=True) for tag in tags]
        return [run for run in self.leased if run.tag in tags and run not in firsts]

    @precondition(lambda self: self.early)
    @rule(number=PICK, value=VALUES, how=HOW)
    def finish_early(self, number: int, value: float | str, how: str) -> None:
        run = pick(self.early, number)
        at = self.value(run.tag, value)
        self.run(self.do_finish(run, run.epoch, "completed", at, None, how))

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, shift=SHIFT, end=ENDS | LOSSES, value=VALUES, how=HOW)
    def finish_any(
        self, number: int, shift: int | None, end: str, value: float | str, how: str
    ) -> None:
        run, epoch = self.some_lease(number, shift)
        self.run(self.do_finish(run, epoch, end, self.value(run.tag, value), None, how))

    @precondition(lambda self: self.leased)
    @rule()
    def look_at_leases(self) -> None:
        """A reaper notes the renewals."""
        for lease in self.run(self.store.jobs.leases()):
            run = self.model.runs[lease.experiment_id]
            self.seen.append((run, lease.renewal, run.renewal))

    @precondition(lambda self: self.seen)
    @rule(number=PICK, how=HOW)
    def expire(self, number: int, how: str) -> None:
        """A reaper ends a lease that it saw; the epoch it reads only now."""
        run, stamp, renewal = pick(self.seen, number)
        if run.epoch:
            self.run(self.do_lose(run, run.epoch, (stamp, renewal), how))

    @precondition(lambda self: self.leased)
    @rule(number=PICK, times=st.integers(1, 4), how=HOW)
    def lose(self, number: int, times: int, how: str) -> None:
        """A lease dies, and the next one of the same run too where its GPU takes it again."""
        run = pick(self.leased, number)
        for _ in range(times):
            if run.leased:
                gpu = run.gpu or ""
                self.run(self.do_lose(run, run.epoch, None, how))
                self.run(self.do_claim(gpu, self.fresh("claim")))

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, shift=SHIFT, how=HOW)
    def lose_any(self, number: int, shift: int | None, how: str) -> None:
        self.run(self.do_lose(*self.some_lease(number, shift), None, how))

    # -- steps: reports by hand, cancel, strategy

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, anyone=ANY, value=st.none() | VALUES, seconds=SECONDS, how=HOW)
    def report(
        self, number: int, anyone: bool, value: float | str | None, seconds: float | None, how: str
    ) -> None:
        run = self.some(self.by_hand, number, anyone)
        at = None if value is None else self.value(run.tag, value)
        self.run(self.do_report(run, at, seconds, how))

    @rule(
        tag=st.sampled_from(("a", "a", "b")),
        values=st.lists(
            st.sampled_from(("better", "near", "worse", "equal", None)), min_size=5, max_size=15
        ),
    )
    def report_many(self, tag: str, values: list[str | None]) -> None:
        """Hand-runs one after the other, enough of them to move windows and strategy."""
        if tag not in self.model.tags:
            return
        for value in values:
            self.run(self.do_register(tag, "optimizer", None, None))
            run = list(self.model.runs.values())[-1]
            at = None if value is None else self.value(run.tag, value)
            self.run(self.do_report(run, at, None))

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, anyone=ANY, how=HOW)
    def cancel(self, number: int, anyone: bool, how: str) -> None:
        self.run(self.do_cancel(self.some(self.undecided, number, anyone), how))

    # -- steps: steering

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, how=HOW)
    def requeue_any(self, number: int, how: str) -> None:
        self.run(self.do_requeue(pick(list(self.model.runs.values()), number), how))

    @precondition(lambda self: self.leased)
    @rule(number=PICK, end=st.sampled_from(("cancelled", "cancelled", "lost", None)), how=HOW)
    def requeue_leased(self, number: int, end: str | None, how: str) -> None:
        """Its worker stops the run, or dies, or has not got the request yet."""
        run = pick(self.leased, number)
        self.run(self.do_requeue(run, how))
        if end is not None:
            self.run(self.do_finish(run, run.epoch, end, 1.0, None, how))

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, anyone=ANY, priority=st.sampled_from((0, 1, -1, 1000, -1000)), how=HOW)
    def prioritise(self, number: int, anyone: bool, priority: int, how: str) -> None:
        run = self.some(self.model.queued, number, anyone)
        self.run(self.do_set_priority(run, priority, how))

    @rule(number=PICK, paused=st.booleans(), how=HOW)
    def pause(self, number: int, paused: bool, how: str) -> None:
        self.run(self.do_pause(pick(list(self.model.tags.values()), number), paused, how))

    @precondition(lambda self: any(tag.paused for tag in self.model.tags.values()))
    @rule(how=HOW)
    def resume_all(self, how: str) -> None:
        for tag in self.model.tags.values():
            self.run(self.do_pause(tag, False, how))  # noqa: FBT003

    @rule(gpu=st.sampled_from(GPUS), drained=st.booleans(), how=HOW)
    def drain(self, gpu: str, drained: bool, how: str) -> None:
        self.run(self.do_drain(gpu, drained, how))

    @precondition(lambda self: self.model.drained)
    @rule(how=HOW)
    def undrain_all(self, how: str) -> None:
        for gpu_id in sorted(self.model.drained):
            self.run(self.do_drain(gpu_id, False, how))  # noqa: FBT003

    @rule(number=PICK, how=HOW)
    def note(self, number: int, how: str) -> None:
        tag = pick(list(self.model.tags.values()), number)
        request = schemas.NoteRequest(tag=tag.name, text="t")
        full = len(tag.notes) == schemas.NOTES_LIMIT
        answer = self.run(self.ask(lambda: self.steering.add_note(request), how))
        if full:
            assert answer is Refused.CONFLICT
        else:
            self.model.note(tag)
            assert answer.note.id == tag.notes[-1]

    @rule(number=PICK, which=PICK, how=HOW)
    def drop_note(self, number: int, which: int, how: str) -> None:
        tag = pick(list(self.model.tags.values()), number)
        note_id = pick(["note-999", *tag.notes], which)
        request = schemas.DropNoteRequest(tag=tag.name, note_id=note_id)
        answer = self.run(self.ask(lambda: self.steering.drop_note(request), how))
        assert _refusal(answer) == self.model.drop_note(tag, note_id)

    @rule(
        tag=st.sampled_from(("a", "a", "b")),
        mode=st.sampled_from(("explore", "exploit", "combine", "ablation")),
        ratio=st.none() | st.sampled_from((0.0, 0.45, 1.0)),
        temperature=st.none() | st.sampled_from((0.0, 1.5)),
        pinned=st.booleans(),
        how=HOW,
    )
    def set_strategy(
        self, tag: str, mode: Any, ratio: float | None, temperature: float | None, pinned: bool,
        how: str,
    ) -> None:  # fmt: skip
        request = schemas.SetStrategyRequest(
            tag=tag, mode=mode, reason="r", explore_ratio=ratio, temperature=temperature,
            pinned=pinned,
        )  # fmt: skip
        self.run(self.do_set_strategy(request, how))

    @rule(number=PICK, how=HOW)
    def adapt(self, number: int, how: str) -> None:
        self.run(self.do_adapt(pick(list(self.model.tags.values()), number), how))

    # -- steps: pool

    @rule(
        gpu=st.sampled_from(GPUS),
        profile=st.sampled_from((None, *PROFILES)),
        problem=st.none() | st.just("hot"),
        boots=st.booleans(),
        how=HOW,
    )
    def register_gpu(
        self, gpu: str, profile: str | None, problem: str | None, boots: bool, how: str
    ) -> None:
        index = int(gpu[1:])
        request = schemas.RegisterGpuRequest(
            gpu_id=gpu, gpu_index=index, gpu_name=gpu_model(gpu), vram_mb=1, profile=profile,
            problem=problem, boot_id="boot" if boots else None,
        )  # fmt: skip
        answer = self.run(self.ask(lambda: self.pool.register(request), how))
        self.model.register_gpu(gpu, index, gpu_model(gpu), profile, problem, boots=boots)
        assert answer.worker.id == gpu

    @rule(
        gpu=st.sampled_from(GPUS),
        problem=st.sampled_from((None, None, "hot")),
        quarantined=st.sampled_from((False, False, True)),
        draining=st.sampled_from((False, False, True)),
        how=HOW,
    )
    def heartbeat(
        self, gpu: str, problem: str | None, quarantined: bool, draining: bool, how: str
    ) -> None:
        request = schemas.HeartbeatRequest(
            gpu_id=gpu, problem=problem, quarantined=quarantined, draining=draining
        )
        answer = self.run(self.ask(lambda: self.pool.heartbeat(request), how, keep=False))
        refusal = self.model.heartbeat(gpu, problem, quarantined, draining)
        assert (answer if refusal else None) is refusal

    @precondition(lambda self: self.model.runs)
    @rule(number=PICK, anyone=ANY, how=HOW)
    def acquire(self, number: int, anyone: bool, how: str) -> None:
        self.run(self.do_acquire(self.some(self.by_hand, number, anyone), how))

    @rule(gpu=st.sampled_from(GPUS), number=st.none() | PICK, how=HOW)
    def release(self, gpu: str, number: int | None, how: str) -> None:
        self.run(self.do_release(gpu, self.parent(number), how))

    @precondition(lambda self: any(gpu.hold for gpu in self.model.gpus.values()))
    @rule(number=PICK, named=st.booleans(), how=HOW)
    def release_held(self, number: int, named: bool, how: str) -> None:
        gpu = pick([gpu for gpu in self.model.gpus.values() if gpu.hold], number)
        self.run(self.do_release(gpu.id, gpu.hold.id if named else None, how))

    @rule(gpu=st.sampled_from(GPUS), how=HOW)
    def deregister(self, gpu: str, how: str) -> None:
        answer = self.run(self.ask(lambda: self.pool.deregister(gpu), how))
        assert _refusal(answer) == self.model.deregister(gpu)

    @precondition(lambda self: self.model.gpus)
    @rule(number=PICK)
    def fall_silent(self, number: int) -> None:
        gpu = pick(list(self.model.gpus.values()), number)
        self.plain.zadd("ar:seen", {gpu.id: 0})
        gpu.silent = True

    @precondition(lambda self: any(gpu.hold for gpu in self.model.gpus.values()))
    @rule(number=PICK)
    def let_a_hold_lapse(self, number: int) -> None:
        gpu = pick([gpu for gpu in self.model.gpus.values() if gpu.hold], number)
        self.plain.zadd("ar:holds", {gpu.id: 0})
        gpu.lapsed = True

    @precondition(lambda self: any(gpu.silent or gpu.hold for gpu in self.model.gpus.values()))
    @rule(how=HOW)
    def tidy(self, how: str) -> None:
        self.run(self.ask(lambda: self.store.pool.tidy(60), how, keep=False))
        self.model.tidy()

    @precondition(lambda self: self.model.runs)
    @rule(
        number=PICK, anyone=ANY, gpu=st.sampled_from(GPUS), source=st.sampled_from(SOURCES), how=HOW
    )
    def direct(self, number: int, anyone: bool, gpu: str, source: str, how: str) -> None:
        self.run(self.do_direct(self.some(self.undecided, number, anyone), gpu, source, how))

    # -- steps: faults and reads

    @precondition(lambda self: self.requests)
    @rule(number=PICK)
    def replay(self, number: int) -> None:
        """An old request comes again: it gets its old answer, and nothing changes."""
        sent = pick(self.requests, number)
        with nonces_from(sent.key):
            assert self.run(_answer(sent.call)) == sent.answer

    @rule(number=st.integers(0, 16), how=HOW)
    def ask_for_a_stranger(self, number: int, how: str) -> None:
        """An id that was never given out is not found, and nothing changes."""
        complete = schemas.CompleteRequest(experiment_id=UNKNOWN_ID, val_bpb=1)
        calls: list[Call] = [
            lambda: self.experiments.complete(complete),
            lambda: self.steering.cancel(UNKNOWN_ID, schemas.CancelRequest()),
            lambda: self.steering.requeue(UNKNOWN_ID, schemas.RequeueRequest(reason="r")),
            lambda: self.steering.set_priority(
                UNKNOWN_ID, schemas.PriorityRequest(priority=1, reason="r")
            ),
            lambda: self.steering.pause(schemas.TagSteerRequest(tag="nothing", reason="r")),
            lambda: self.steering.drain(schemas.DrainRequest(gpu_id="nobody", reason="r")),
            lambda: self.steering.undrain(schemas.DrainRequest(gpu_id="nobody", reason="r")),
            lambda: self.judge.attempt_lost(AttemptId(UNKNOWN_ID, 1), "silent"),
            lambda: self.judge.settle(UNKNOWN_ID, RunResult("cancelled"), by_lease(1)),
            lambda: self.store.jobs.renew(AttemptId(UNKNOWN_ID, 1), started=True),
            lambda: self.store.pool.acquire(UNKNOWN_ID, 60, 60),
            lambda: self.store.pool.release("nobody", None),
            lambda: self.store.pool.deregister("nobody"),
            lambda: self.store.jobs.claim("nobody", "claim-0000", TIMING),
            lambda: self.store.jobs.direct(UNKNOWN_ID, "nobody", None, 42),
            lambda: self.search.adapt("nothing"),
            lambda: self.reports.summary("nothing"),
        ]
        assert self.run(self.ask(calls[number], how)) is Refused.NOT_FOUND

    @precondition(lambda self: self.undecided)
    @rule(
        number=PICK, first=PICK, second=st.integers(0, 40), value=VALUES,
        how=st.sampled_from(("once", "echo")),
    )  # fmt: skip
    def crossed(self, number: int, first: int, second: int, value: float | str, how: str) -> None:
        """A request is executed between the read and the write of another one."""
        run = pick(self.undecided, number)
        at = self.value(run.tag, value)
        late = pick([*self.ends_of(run, at, how), partial(self.do_adapt, run.tag, how)], first)
        others = [end for other in self.undecided for end in self.ends_of(other, at, "once")]
        early = [*self.moves_of(run), *others]
        self.crossing.meanwhile = pick(early, second)
        try:
            self.run(late())
        finally:
            self.crossing.meanwhile = None

    def ends_of(self, run: Run, value: float, how: str) -> list[Action]:
        """What may end this run, or its lease."""
        found: list[Action] = [partial(self.do_cancel, run, how)]
        if run.state == "hand":
            found.append(partial(self.do_report, run, value, 12.25, how))
            found.append(partial(self.do_report, run, None, None, how))
        if run.leased:
            found.extend(
                partial(self.do_finish, run, run.epoch, end, value, 300.0, how)
                for end in ("lost", "handed_back", "cancelled", "timeout", "completed")
            )
            found.extend(
                partial(self.do_lose, run, run.epoch, (stamp, renewal), how)
                for seen, stamp, renewal in self.seen[-3:]
                if seen is run
            )
        return found

    def moves_of(self, run: Run) -> list[Action]:
        """What else may happen to this run, its tag and the GPUs."""
        request = schemas.SetStrategyRequest(
            tag=run.tag.name, mode="combine", reason="r", pinned=False
        )
        found: list[Action] = [
            partial(self.do_set_strategy, request),
            partial(self.do_register, run.tag.name, "optimizer", None, None),
        ]
        for gpu in self.model.gpus:
            found.append(partial(self.do_claim, gpu, self.fresh("claim")))
            found.append(partial(self.do_direct, run, gpu, SOURCES[0]))
        found += [
            partial(self.do_requeue, run),
            partial(self.do_set_priority, run, 1),
            partial(self.do_pause, run.tag, not run.tag.paused),
        ]
        if run.leased:
            found.append(partial(self.do_renew, run, run.epoch, started=True))
        if run.state == "hand":
            found.append(partial(self.do_acquire, run))
        return found

    @rule(number=PICK, run=PICK)
    def read(self, number: int, run: int) -> None:
        """The reading endpoints agree with the model."""
        tag = pick(list(self.model.tags.values()), number)
        runs = self.model.runs_of(tag)
        self.run(self.check_summary(tag))
        page = self.run(self.experiments.history(schemas.HistoryRequest(tag=tag.name)))
        assert [(r.id, r.status) for r in page.experiments] == [(r.id, r.status) for r in runs]
        finished = {record.id: record.finished_at for record in page.experiments}
        moments = [finished[run.id] or "" for run in tag.decided]
        assert all(earlier < later for earlier, later in pairwise(moments))
        near = self.run(self.experiments.near_misses(schemas.NearMissRequest(tag=tag.name)))
        assert [n.experiment_id for n in near.near_misses] == [r.id for r in tag.near][:20]
        assert near.total == len(tag.near)
        tsv = self.run(self.reports.tsv(tag.name))
        assert tsv.count == tag.finished
        if self.model.runs:
            self.run(self.check_detail(pick(list(self.model.runs.values()), run)))

    async def check_summary(self, tag: Tag) -> None:
        summary = await self.reports.summary(tag.name)
        expected = tag.stats(self.model.runs_of(tag))
        assert {name: getattr(summary.stats, name) for name in expected} == expected
        assert (summary.best.experiment_id if summary.best else None) == (
            tag.best.id if tag.best else None
        )
        assert [point.id for point in summary.bpb_progression] == [run.id for run in tag.keeps]
        gpus = self.model.gpus.values()
        assert summary.gpu_pool == schemas.PoolCounts(
            total=len(gpus),
            idle=sum(gpu.idle for gpu in gpus),
            training=sum(bool(gpu.lease or gpu.hold) for gpu in gpus),
        )

    async def check_detail(self, run: Run) -> None:
        detail = await self.experiments.detail(run.id)
        assert detail.status == run.status
        assert _dumped(detail.verdict) == run.verdict
        assert [a.epoch for a in detail.attempts] == list(range(1, run.epoch + 1))
        assert (detail.lease.epoch if detail.lease else None) == (run.epoch if run.leased else None)
        line = self.model.line_of(run) if run.state == "queued" else []
        assert detail.position == (line.index(run) + 1 if run in line else None)

    # -- after each step

    @invariant()
    def redis_holds_what_the_model_says(self) -> None:
        found = keyspace.actual(keyspace.parsed(self.plain.eval(keyspace.DUMP, 0)))
        differing = keyspace.differences(found, keyspace.expected(self.model))
        lines = [f"{key}:\n  {is_}\n  not {wanted}" for key, (is_, wanted) in differing.items()]
        assert not differing, "Redis and model differ:\n" + "\n".join(lines)
        _check_laws(found)
        for name, value in found.items():
            if ":run:" in name:
                before = self.past.get(name, value)
                assert value["epoch"] >= before["epoch"], name
                assert before["verdict"] is None or value == before, f"{name} changed its verdict"
                self.past[name] = value
        self.check_events()

    def check_replay(self) -> None:
        """The records alone lead to the same keyspace, but for what they do not hold: a strategy
        that an operator chose, and the silence of a GPU."""
        stored = keyspace.parsed(self.plain.eval(keyspace.DUMP, 0))
        wanted = keyspace.expected(replayed(stored))
        differing = keyspace.differences(keyspace.actual(stored), wanted)
        assert {name for name in differing if name != "idle" and "strategy" not in name} == set()

    def check_events(self) -> None:
        """Every event is in the stream once, and in order."""
        told = []
        for event_id, fields in self.plain.xrange("ar:events", min=self.next_event):
            self.next_event = f"({event_id}"
            told.append(_event(fields))
        expected, self.model.events = self.model.events, []
        assert told == expected


async def _answer(call: Call) -> Any:
    try:
        return await call()
    except AutoresearchError as error:
        return Refused(type(error).__name__)


def _refusal(answer: Any) -> Refused | None:
    return answer if isinstance(answer, Refused) else None


async def _connected() -> bool:
    return False


def gpu_model(gpu: str) -> str:
    return "x" if gpu in GPUS[:2] else "y"


def _dumped(answer: Any) -> Any:
    return answer.model_dump() if isinstance(answer, schemas.Answer) else answer


def _strategy(answer: schemas.Strategy) -> tuple[str, float, float, bool]:
    return answer.mode, answer.explore_ratio, answer.temperature, answer.pinned


EVENT_DATA = {
    "queued": ("gpu_id", "profile", "gpu_model"), "claimed": ("gpu_id", "epoch"),
    "decided": ("status",), "strategy": ("mode",), "gpu": ("state",), "steered": ("action",),
}  # fmt: skip


def _event(fields: dict[str, str]) -> tuple[str, ...]:
    data = json.loads(fields["data"])
    told = (str(data.get(name, "")) for name in EVENT_DATA.get(fields["type"], ()))
    return fields["type"], fields["tag"], fields["id"], *told


def _check_laws(found: State) -> None:
    """What must hold even if the model is wrong."""
    runs = {name: value for name, value in found.items() if ":run:" in name}
    gpus = {name[4:]: value for name, value in found.items() if name.startswith("gpu:")}
    taken = [gpu[how] for gpu in gpus.values() for how in ("lease", "hold") if gpu[how]]
    assert len(taken) == len(set(taken)), "one run has two GPUs"
    assert all(not (gpu["lease"] and gpu["hold"]) for gpu in gpus.values())
    busy = {gpu_id for gpu_id, gpu in gpus.items() if gpu["lease"] or gpu["hold"]}
    fit = {g for g, gpu in gpus.items() if not any(gpu[flag] for flag in FLAGS)} - busy
    assert {gpu_id for gpu_id, _ in found.get("busy", [])} == busy
    assert {gpu_id for gpu_id, _ in found.get("idle", [])} <= fit
    leased = {_id(name) for name, run in runs.items() if run["state"] in LEASED}
    assert set(found.get("leases", [])) == leased
    assert {gpu["lease"].split()[0] for gpu in gpus.values() if gpu["lease"]} == leased
    queued = {_id(name) for name, run in runs.items() if run["state"] == "queued"}
    lines = [v for k, v in found.items() if k.startswith("direct:") or k.endswith("}:queue")]
    in_line = [member for line in lines for member, _ in line]
    assert len(in_line) == len(set(in_line))
    assert set(in_line) == queued
    for tag in TAGS:
        keeps = [value for _, value, _ in found.get(f"{{{tag}}}:keeps", [])]
        assert all(later < earlier for earlier, later in pairwise(keeps))
        if f"{{{tag}}}:tag" in found:
            assert found[f"{{{tag}}}:tag"]["best_val_bpb"] == min(keeps, default=None)
        assert len(found.get(f"{{{tag}}}:recent", [])) <= 10
        ready = [line for k, line in found.items() if k.startswith("ready:")]
        heads = [score for line in ready for name, score in line if name == tag]
        paused = found.get(f"{{{tag}}}:tag", {}).get("paused")
        queue = [] if paused else found.get(f"{{{tag}}}:queue", [])
        assert heads == [score for _, score in queue][:1]


def _id(name: str) -> str:
    return name.rpartition(":")[2]


@pytest.mark.timeout(0 if ON_DEMAND else 1200)  # a minute on an idle machine
def test_redis_and_a_plain_model_agree_after_every_step(redis_url: str, tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: Machine(redis_url, tmp_path),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not ON_DEMAND,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=list(Phase) if ON_DEMAND else [Phase.generate],
        ),
    )

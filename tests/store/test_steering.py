"""The steering verbs on each kind of server: atomic, once under a nonce, fenced where it counts."""

from pathlib import Path

import pytest

from orchestrator.decisions import RunResult
from orchestrator.domain import NewExperiment, OperatorAction, Tag
from orchestrator.errors import Conflict
from orchestrator.folder import Folder
from orchestrator.rules.retry import Requeue
from orchestrator.rules.strategy import INITIAL
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.race import Race
from orchestrator.services.core.sources import Sources
from orchestrator.settings import HomePaths
from orchestrator.store import records
from orchestrator.store.connection import Store
from orchestrator.store.experiments import UNLEASED, Ended, Queued
from orchestrator.store.jobs import Claimed
from orchestrator.store.scripts import nonces_from
from tests.store.conftest import TIMING

pytestmark = pytest.mark.anyio

HOME = Path("nothing-is-kept-here")

GPU = {"gpu_index": 0, "gpu_name": "x", "vram_mb": 1.0}


def act(action: str, target: str = "") -> OperatorAction:
    return OperatorAction(action, "Ada", 'why "not" \\ / ü', target)


async def setup(store: Store, *sources: str) -> list[str]:
    """A tag, a GPU, and a queued run for each source."""
    await store.experiments.setup(Tag("t", 0, 300.0, 0.002, 3), INITIAL)
    await store.pool.register("g", GPU)
    ids = []
    for source in sources:
        submitted = NewExperiment("h", "d", "other", "abc", "", source_sha256=source)
        ids.append((await store.experiments.submit("t", submitted)).experiment_id)
    return ids


def judge(store: Store) -> Judge:
    files = Folder(HomePaths(HOME))
    return Judge(store, Race(store, files, Sources(files, None)))


async def claim(store: Store, claim_id: str) -> Claimed:
    claimed = await store.jobs.claim("g", claim_id, TIMING)
    assert isinstance(claimed, Claimed)
    return claimed


async def requeue(store: Store, run: Claimed, *, loss: bool) -> Ended | None:
    return await store.jobs.requeue(run.attempt, Requeue("lost", counts_as_loss=loss))


async def test_an_act_is_one_step_of_revision_journal_and_ledger(store: Store) -> None:
    """With the same words in each, whatever characters they hold."""
    await setup(store)
    tag = await store.steering.pause("t", act("pause"))
    assert tag.revision == 1
    assert tag.pause is not None
    [_, entry] = [entry async for entry in store.journal.entries("t")]
    assert (entry.kind, entry.data["on"]) == ("steered", {"revision": 0})
    assert records.action_from(entry.data["steered"]) == act("pause")
    [told] = (await store.steering.ledger("t", 10, None)).entries
    assert (told.action, told.revision, told.at_us) == (act("pause"), 0, tag.pause.at_us)
    assert (await store.steering.ledger(None, 10, None)).entries == [told]


async def test_an_act_that_redis_runs_twice_acts_once(store: Store) -> None:
    await setup(store)
    for _ in range(2):
        with nonces_from("request"):
            note = await store.steering.add_note("t", act("note"), 20)
    assert [note] == await store.steering.notes("t")
    assert len((await store.steering.ledger("t", 10, None)).entries) == 1


async def test_a_paused_tag_is_in_no_index_of_ready_tags(store: Store) -> None:
    """Whatever joins or leaves its queue meanwhile; so a claim looks for nothing more."""
    [first] = await setup(store, "1")
    run = await claim(store, "claim-01")
    await store.steering.pause("t", act("pause"))
    assert await requeue(store, run, loss=False) == Ended()
    assert await store.redis.zrange("ar:ready:-#x", 0, -1) == []
    assert not isinstance(await store.jobs.claim("g", "claim-02", TIMING), Claimed)
    await store.steering.resume("t", act("resume"))
    assert await store.redis.zrange("ar:ready:-#x", 0, -1) == ["t"]
    assert (await claim(store, "claim-03")).attempt.experiment_id == first


async def test_a_requeue_clears_what_was_asked_for_and_counts_no_loss(store: Store) -> None:
    [run_id] = await setup(store, "1")
    run = await claim(store, "claim-01")
    assert await store.steering.stop(run_id, "requeue", act("requeue")) == "asked"
    assert (await store.jobs.renew(run.attempt, started=True)).cancel
    assert await requeue(store, run, loss=True) == Ended()
    stored = (await store.reads.entry(run_id)).run
    assert (stored.losses, stored.stop, stored.state.value) == (0, None, "queued")
    again = await claim(store, "claim-02")
    assert not (await store.jobs.renew(again.attempt, started=True)).cancel


async def test_a_run_that_is_to_be_cancelled_never_returns_to_the_queue(store: Store) -> None:
    """A requeue that was judged before the cancel is refused, and is to look again."""
    [run_id] = await setup(store, "1")
    run = await claim(store, "claim-01")
    await store.steering.stop(run_id, "cancel", act("cancel"))
    assert await requeue(store, run, loss=True) is None
    verdict = await judge(store).attempt_lost(run.attempt, "lost")
    assert verdict is not None
    assert verdict.status == "cancelled"


async def test_a_last_loss_that_was_judged_before_the_requeue_is_judged_again(store: Store) -> None:
    """The person wanted the run back a moment before it would have been given up."""
    [run_id] = await setup(store, "1")
    for number in range(2):
        await judge(store).attempt_lost((await claim(store, f"claim-0{number}")).attempt, "lost")
    run = await claim(store, "claim-03")
    look = store.experiments.run_snapshot
    looked = 0

    async def snapshot(*arguments: str) -> object:
        nonlocal looked
        found = await look(*arguments)
        if not looked:
            await store.steering.stop(run_id, "requeue", act("requeue"))
        looked += 1
        return found

    store.experiments.run_snapshot = snapshot  # type: ignore[method-assign, assignment]
    assert await judge(store).attempt_lost(run.attempt, "lost") is None
    assert looked == 2
    assert (await store.reads.entry(run_id)).run.losses == 2


async def test_stopping_what_is_not_leased_changes_nothing(store: Store) -> None:
    """Queued and decided runs have other verbs; the answer says which."""
    [run_id] = await setup(store, "1")
    assert await store.steering.stop(run_id, "cancel", act("cancel")) == "not leased"
    await judge(store).settle(run_id, RunResult("cancelled"), UNLEASED, act("cancel", run_id))
    assert await store.steering.stop(run_id, "requeue", act("requeue")) == "decided"
    with pytest.raises(Conflict, match="is decided"):
        await store.steering.set_priority(run_id, 1, act("priority"))
    assert isinstance(await store.steering.repeat(run_id, act("requeue")), Queued)


async def test_a_drain_lies_apart_from_the_gpu_and_comes_back_with_it(store: Store) -> None:
    await setup(store, "1")
    drain = await store.steering.drain("g", act("drain"))
    await store.pool.deregister("g")
    back = (await store.pool.register("g", GPU | {"boot_id": "b"})).gpus[0]
    assert back.drain == drain
    assert not isinstance(await store.jobs.claim("g", "claim-01", TIMING), Claimed)
    await store.steering.undrain("g", act("undrain"))
    assert isinstance(await store.jobs.claim("g", "claim-01", TIMING), Claimed)

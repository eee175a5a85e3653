"""The Lua verbs on real servers: nonces, fences, reloads, and the keyspace they leave."""

import asyncio
import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Literal

import pytest

from orchestrator.decisions import RunResult, Snapshot
from orchestrator.domain import Metrics, NewExperiment, Tag
from orchestrator.errors import (
    Conflict,
    LeaseLost,
    LeaseRenewed,
    NotFound,
    StoreBroken,
    Unavailable,
)
from orchestrator.ids import AttemptId, created_us_of, id_of, tag_of
from orchestrator.rules.decide import decide
from orchestrator.rules.retry import Requeue
from orchestrator.rules.strategy import INITIAL
from orchestrator.services import views
from orchestrator.store import keys, verbs
from orchestrator.store.connection import Store
from orchestrator.store.experiments import BY_HAND, Ended, Reporter, by_lease
from orchestrator.store.jobs import Claimed
from orchestrator.store.scripts import REFUSALS, Script, Scripts, nonces_from
from tests.store.conftest import TIMING

pytestmark = pytest.mark.anyio

EXPERIMENT = NewExperiment("h", "d", "other", "abc", "")
EXPIRED = Requeue("expired", counts_as_loss=True)
GPU = {"gpu_index": 0, "gpu_name": "x", "vram_mb": 1.0}


async def setup(store: Store) -> None:
    await store.experiments.setup(Tag("t", 0, 300.0, 0.002, 3), INITIAL)


async def submit(store: Store, source: str = "s") -> str:
    submitted = replace(EXPERIMENT, source_sha256=source)
    return (await store.experiments.submit("t", submitted)).experiment_id


async def apply(
    store: Store, snapshot: Snapshot, val_bpb: float, reporter: Reporter = BY_HAND
) -> Ended | None:
    result = RunResult("completed", Metrics(val_bpb))
    decision = decide(snapshot, result)
    verdict = views.verdict("e", result, decision).model_dump_json()
    return await store.experiments.apply(snapshot, result, decision, verdict, reporter)


async def test_a_verb_that_redis_runs_twice_acts_once(store: Store) -> None:
    """The same nonce answers with the first execution's reply."""
    await setup(store)
    ids = []
    for _ in range(2):
        with nonces_from("request-1"):
            ids.append(await store.experiments.register("t", EXPERIMENT))
    assert ids[0] == ids[1]
    assert (await store.reads.history("t", None, 10, None)).total == 1


async def test_a_key_whose_taking_redis_ran_twice_is_taken_by_us(store: Store) -> None:
    """The second SET says that somebody has it: the mark in it tells that this was ourselves."""
    for _ in range(2):
        assert await store.idempotency.begin("key", "body", "we") == "new"
    assert await store.idempotency.begin("key", "body", "others") == "busy"
    assert await store.idempotency.begin("key", "another body", "we") == "mismatch"


async def test_a_refusal_is_not_kept_under_the_nonce(store: Store) -> None:
    """A claim that found nothing may be sent again with its id, and then gets the job."""
    await setup(store)
    await store.pool.register("g", GPU)
    assert not hasattr(await store.jobs.claim("g", "claim-id", TIMING), "attempt")
    experiment_id = await submit(store)
    claimed = await store.jobs.claim("g", "claim-id", TIMING)
    assert getattr(claimed, "attempt", None) == AttemptId(experiment_id, 1)


async def test_a_decision_on_an_old_snapshot_is_stale(store: Store) -> None:
    """Of two decisions on the same state one is applied; the other changes nothing."""
    await setup(store)
    a = await store.experiments.register("t", EXPERIMENT)
    b = await store.experiments.register("t", EXPERIMENT)
    on_a = await store.experiments.run_snapshot(a)
    on_b = await store.experiments.run_snapshot(b)
    assert await apply(store, on_a, 0.9) is not None
    assert await apply(store, on_b, 0.95) is None
    assert (await store.experiments.run_snapshot(b)).run == on_b.run
    assert await apply(store, await store.experiments.run_snapshot(b), 0.95) is not None
    tag = await store.reads.tag("t")
    assert (tag.best_val_bpb, tag.best_experiment_id) == (0.9, a)


async def test_a_decision_needs_the_epoch_of_the_lease(store: Store) -> None:
    """A wrong epoch and a lease that is over are refused; the right one is decided once."""
    await setup(store)
    await store.pool.register("g", GPU)
    experiment_id = await submit(store)
    await store.jobs.claim("g", "claim-id-1", TIMING)
    snapshot = await store.experiments.run_snapshot(experiment_id)
    with pytest.raises(LeaseLost):
        await apply(store, snapshot, 0.9, by_lease(2))
    with pytest.raises(Conflict, match="its worker reports it"):
        await apply(store, snapshot, 0.9)
    assert await store.jobs.requeue(AttemptId(experiment_id, 1), EXPIRED) == Ended()
    with pytest.raises(LeaseLost):
        await apply(store, snapshot, 0.9, by_lease(1))
    await store.jobs.claim("g", "claim-id-2", TIMING)
    decided = await apply(store, snapshot, 0.9, by_lease(2))
    assert decided is not None
    assert await apply(store, snapshot, 0.8, by_lease(2)) == decided
    with pytest.raises(LeaseLost):
        await apply(store, snapshot, 0.9, by_lease(1))


async def test_the_reaper_never_ends_a_lease_renewed_after_it_looked(store: Store) -> None:
    await setup(store)
    await store.pool.register("g", GPU)
    await submit(store)
    claimed = await store.jobs.claim("g", "claim-id-1", TIMING)
    assert isinstance(claimed, Claimed)
    attempt, seen = claimed.attempt, (await store.jobs.leases())[0]
    await asyncio.sleep(0.002)
    await store.jobs.renew(attempt, started=True)
    with pytest.raises(LeaseRenewed):
        await store.jobs.requeue(attempt, EXPIRED, seen.renewal)
    seen = (await store.jobs.leases())[0]
    assert await store.jobs.requeue(attempt, EXPIRED, seen.renewal) == Ended()


async def test_a_requeued_run_keeps_its_place_in_the_queue(store: Store) -> None:
    await setup(store)
    await store.pool.register("g", GPU)
    first = await submit(store, "1")
    await submit(store, "2")
    await store.jobs.claim("g", "claim-id-1", TIMING)
    await store.jobs.requeue(AttemptId(first, 1), EXPIRED)
    claimed = await store.jobs.claim("g", "claim-id-2", TIMING)
    assert getattr(claimed, "attempt", None) == AttemptId(first, 2)


async def test_scripts_are_loaded_again_when_redis_forgot_them(store: Store) -> None:
    """NOSCRIPT after a restart is no error."""
    await setup(store)
    await store.redis.eval("return redis.call('PING')", 0)
    flush = store.redis.script_flush
    await flush()
    await store.experiments.register("t", EXPERIMENT)


async def test_a_full_redis_refuses_and_keeps_what_it_has(store: Store) -> None:
    """OOM is Unavailable, and nothing is half-written."""
    await setup(store)
    config = store.redis.config_set
    await config("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            await store.experiments.register("t", EXPERIMENT)
    finally:
        await config("maxmemory", "0")
    assert (await store.reads.history("t", None, 10, None)).total == 0


async def test_every_key_is_named_in_the_glossary(store: Store) -> None:
    """What the verbs leave in Redis is what keys.py names, nothing more."""
    await setup(store)
    await store.pool.register("g", GPU)
    await submit(store)
    await store.jobs.claim("g", "claim-id-1", TIMING)
    by_hand = await store.experiments.register("t", EXPERIMENT)
    await store.pool.acquire(by_hand, 60, 60)
    await apply(store, await store.experiments.run_snapshot(by_hand), 0.9)
    found = await store.redis.keys("*")
    known = tuple(keys.of_tag("t", name) for name in keys.TAG_NAMES)
    known += tuple(keys.of_all(name) for name in keys.GLOBAL_NAMES)
    for key in found:
        assert key in known or any(key.startswith(k) for k in known if k.endswith(":")), key


def test_lua_spells_no_key_by_itself() -> None:
    """Keys come from the tables G and T; a literal prefix in a script would escape keys.py."""
    for script in (files("orchestrator.store") / "lua").iterdir():
        assert not re.search(r"['\"]ar:", script.read_text()), script.name


async def test_python_and_lua_read_the_same_out_of_an_id(store: Store) -> None:
    """Lua makes the ids that ids.py takes apart; the tag may hold anything that a tag may hold."""
    prelude = verbs.SNAPSHOT.text.partition("-- Reads in one step")[0]
    for created, tag in ((1, "a"), (0x0660F78349A45A, "mar11"), (2**52, "exp-0.b_c-d")):
        found = await store.redis.eval(
            prelude + "local id = id_of(ARGV[1], ARGV[2])\n"
            "return cjson.encode({ id, us(created_of(id)), tag_of(id) })",
            0, str(created), tag,
        )  # fmt: skip
        assert json.loads(found) == [id_of(created, tag), str(created), tag]
        assert (created_us_of(id_of(created, tag)), tag_of(id_of(created, tag))) == (created, tag)


@pytest.mark.parametrize(
    "text", ["exp-1-a", "exp-0660f78349a45a", "exp-0660f78349a45a-", "exp-0660F78349A45A-a", "x"]
)
def test_an_id_that_was_never_given_out_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        tag_of(text)


async def test_a_reply_that_nobody_expects_is_a_broken_store(store: Store) -> None:
    """A script of another version must not pass for a success."""
    await setup(store)
    with pytest.raises(StoreBroken, match="'OK'"):
        await Scripts(store.redis).run(Script[Literal["STALE"]]("pool_list"))


def test_every_script_states_its_arguments_and_replies() -> None:
    """In its header for readers, in verbs.py for mypy and for the check of each reply."""
    declared = {s.verb: s.replies for s in vars(verbs).values() if isinstance(s, Script)}
    for script in (files("orchestrator.store") / "lua").iterdir():
        if script.name.startswith("_"):
            continue
        text = script.read_text()
        assert text.startswith("-- "), script.name
        assert "-- ARGV:" in text, script.name
        header = "".join(re.findall(r"^--.*\n", text.split("\n\n")[0], re.MULTILINE))
        header = header.partition("-- Replies:")[2]
        given = set(re.findall(r"(?:reply|placed)\('([A-Z_]+)'", text))
        for name in given:
            assert name in header, f"{script.name}: {name}"
        assert declared.pop(script.name.removesuffix(".lua")) == given - REFUSALS.keys()
    assert not declared

"""The Lua verbs on real servers: nonces, fences, reloads, and the keyspace they leave."""

import asyncio
import re
from importlib.resources import files

import pytest

from orchestrator.domain import Metrics, Outcome, Snapshot, Tag
from orchestrator.errors import Unavailable
from orchestrator.rules.decide import decide
from orchestrator.rules.strategy import INITIAL
from orchestrator.services import views
from orchestrator.store import keys
from orchestrator.store.connection import Store
from orchestrator.store.experiments import BY_HAND, Claimant, by_lease
from orchestrator.store.scripts import Reply, nonces_from

pytestmark = pytest.mark.anyio

EXPERIMENT = {
    "hypothesis": "h", "description": "d", "category": "other", "commit_sha": "abc",
    "diff_summary": "",
}  # fmt: skip
GPU = {"gpu_index": 0, "gpu_name": "x", "vram_mb": 1.0}


async def setup(store: Store) -> None:
    await store.experiments.setup(Tag("t", 0, 300.0, 0.002, 3), INITIAL)


async def submit(store: Store, source: str = "s") -> str:
    run = {"seed": "42", "priority": "0"}
    found = await store.experiments.submit("t", EXPERIMENT | {"source": source}, run, repeat=False)
    return found[0]


async def apply(
    store: Store, snapshot: Snapshot, val_bpb: float, claimant: Claimant = BY_HAND
) -> Reply:
    outcome = Outcome("completed", Metrics(val_bpb))
    decision = decide(snapshot, outcome)
    verdict = views.verdict("e", outcome, decision).model_dump_json()
    return await store.experiments.apply(snapshot, outcome, decision, verdict, claimant)


async def test_a_verb_that_redis_runs_twice_acts_once(store: Store) -> None:
    """The same nonce answers with the first execution's reply."""
    await setup(store)
    ids = []
    for _ in range(2):
        with nonces_from("request-1"):
            ids.append(await store.experiments.register("t", EXPERIMENT, {}))
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
    assert not hasattr(await store.jobs.claim("g", "claim-id"), "epoch")
    experiment_id = await submit(store)
    claimed = await store.jobs.claim("g", "claim-id")
    assert getattr(claimed, "experiment_id", None) == experiment_id


async def test_a_decision_on_an_old_snapshot_is_stale(store: Store) -> None:
    """Of two decisions on the same state one is applied; the other changes nothing."""
    await setup(store)
    a = await store.experiments.register("t", EXPERIMENT, {})
    b = await store.experiments.register("t", EXPERIMENT, {})
    on_a = await store.experiments.snapshot("t", a)
    on_b = await store.experiments.snapshot("t", b)
    assert (await apply(store, on_a, 0.9)).outcome == "OK"
    assert (await apply(store, on_b, 0.95)).outcome == "STALE"
    assert (await store.experiments.snapshot("t", b)).run == on_b.run
    assert (await apply(store, await store.experiments.snapshot("t", b), 0.95)).outcome == "OK"
    tag = await store.reads.tag("t")
    assert (tag.best_val_bpb, tag.best_experiment_id) == (0.9, a)


async def test_a_decision_needs_the_epoch_of_the_lease(store: Store) -> None:
    """A wrong epoch, and a lease that is over, are LOST; the right one is decided once."""
    await setup(store)
    await store.pool.register("g", GPU)
    experiment_id = await submit(store)
    await store.jobs.claim("g", "claim-id-1")
    snapshot = await store.experiments.snapshot("t", experiment_id)
    assert (await apply(store, snapshot, 0.9, by_lease(2))).outcome == "LOST"
    assert (await apply(store, snapshot, 0.9)).outcome == "CONFLICT"
    reply = await store.jobs.requeue("t", experiment_id, 1, "expired", renewal="", loss=True)
    assert reply.outcome == "OK"
    assert (await apply(store, snapshot, 0.9, by_lease(1))).outcome == "LOST"
    await store.jobs.claim("g", "claim-id-2")
    assert (await apply(store, snapshot, 0.9, by_lease(2))).outcome == "OK"
    assert (await apply(store, snapshot, 0.9, by_lease(2))).outcome == "DONE"
    assert (await apply(store, snapshot, 0.9, by_lease(1))).outcome == "LOST"


async def test_the_reaper_never_ends_a_lease_renewed_after_it_looked(store: Store) -> None:
    await setup(store)
    await store.pool.register("g", GPU)
    experiment_id = await submit(store)
    await store.jobs.claim("g", "claim-id-1")
    seen = (await store.jobs.leases())[0]
    await asyncio.sleep(0.002)
    await store.jobs.renew("t", experiment_id, 1, started=True)
    reply = await store.jobs.requeue(
        "t", experiment_id, 1, "expired", renewal=seen.renewal, loss=True
    )
    assert reply.outcome == "RENEWED"
    seen = (await store.jobs.leases())[0]
    reply = await store.jobs.requeue(
        "t", experiment_id, 1, "expired", renewal=seen.renewal, loss=True
    )
    assert reply.outcome == "OK"


async def test_a_requeued_run_keeps_its_place_in_the_queue(store: Store) -> None:
    await setup(store)
    await store.pool.register("g", GPU)
    first = await submit(store, "1")
    await submit(store, "2")
    await store.jobs.claim("g", "claim-id-1")
    await store.jobs.requeue("t", first, 1, "lost", renewal="", loss=True)
    claimed = await store.jobs.claim("g", "claim-id-2")
    assert (getattr(claimed, "experiment_id", None), getattr(claimed, "epoch", None)) == (first, 2)


async def test_scripts_are_loaded_again_when_redis_forgot_them(store: Store) -> None:
    """NOSCRIPT after a restart is no error."""
    await setup(store)
    await store.redis.eval("return redis.call('PING')", 0)
    flush = store.redis.script_flush
    await flush()
    await store.experiments.register("t", EXPERIMENT, {})


async def test_a_full_redis_refuses_and_keeps_what_it_has(store: Store) -> None:
    """OOM is Unavailable, and nothing is half-written."""
    await setup(store)
    config = store.redis.config_set
    await config("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            await store.experiments.register("t", EXPERIMENT, {})
    finally:
        await config("maxmemory", "0")
    assert (await store.reads.history("t", None, 10, None)).total == 0


async def test_every_key_is_named_in_the_glossary(store: Store) -> None:
    """What the verbs leave in Redis is what keys.py names, nothing more."""
    await setup(store)
    await store.pool.register("g", GPU)
    await submit(store)
    await store.jobs.claim("g", "claim-id-1")
    by_hand = await store.experiments.register("t", EXPERIMENT, {})
    await store.pool.acquire("t", by_hand, 60, 60)
    await apply(store, await store.experiments.snapshot("t", by_hand), 0.9)
    found = await store.redis.keys("*")
    known = tuple(keys.of_tag("t", name) for name in keys.TAG_NAMES)
    known += tuple(keys.of_all(name) for name in keys.GLOBAL_NAMES)
    for key in found:
        assert key in known or any(key.startswith(k) for k in known if k.endswith(":")), key


def test_lua_spells_no_key_by_itself() -> None:
    """Keys come from the tables G and T; a literal prefix in a script would escape keys.py."""
    for script in (files("orchestrator.store") / "lua").iterdir():
        assert not re.search(r"['\"]ar:", script.read_text()), script.name


def test_every_script_states_its_arguments_and_outcomes() -> None:
    for script in (files("orchestrator.store") / "lua").iterdir():
        if script.name.startswith("_"):
            continue
        text = script.read_text()
        assert text.startswith("-- "), script.name
        assert "-- ARGV:" in text, script.name
        header = "".join(re.findall(r"^--.*\n", text.split("\n\n")[0], re.MULTILINE))
        header = header.partition("-- Outcomes:")[2]
        for outcome in set(re.findall(r"reply\('([A-Z_]+)'", text)):
            assert outcome in header, f"{script.name}: {outcome}"

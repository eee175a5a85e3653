"""The journal explains a tag whole, and the audit finds what it does not explain."""

import json
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from orchestrator.errors import NotFound
from orchestrator.services.core.audit import Audit
from orchestrator.store import keys
from orchestrator.store.connection import Store
from tests.conftest import Api

pytestmark = pytest.mark.anyio

Tamper = Callable[[redis.Redis, list[str]], object]


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, 5)
    yield store
    await store.close()


@pytest.fixture
def plain(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def a_night(api: Api) -> list[str]:
    """A keep, a near miss, a better keep, a plain discard, a crash, a time-out, a cancelled run,
    a strategy set by hand, one run still going; the ids in this order. A person has left two
    notes, dropped one, and paused the tag, resumed it and paused it again."""
    api.tag()
    ids = [api.register(category="attention") for _ in range(5)]
    api.complete(ids[0], 1.0, training_seconds=300.1)
    api.complete(ids[1], 1.001)
    api.post("/api/search/set-strategy", tag="mar11", mode="combine", reason="try", pinned=True)
    api.complete(ids[2], 0.9)
    api.complete(ids[3], 1.5)
    api.crash(ids[4])
    api.gpu()
    ids.append(api.submit("1"))
    api.finish(api.claim(), outcome="timeout", exit_code=-9)
    ids.append(api.submit("2"))
    api.post(f"/api/experiment/{ids[-1]}/cancel")
    for text in ("dropped", "wider", "deeper"):
        api.post("/api/steer/note", tag="mar11", text=text)
    api.post("/api/steer/drop-note", tag="mar11", note_id=notes_of(api)[-1])
    for verb in ("pause", "resume", "pause"):
        api.post(f"/api/steer/{verb}", tag="mar11", reason=f"to {verb}")
    return [*ids, api.register()]


def notes_of(api: Api) -> list[str]:
    return [note["id"] for note in api.get("/api/steer/notes", tag="mar11")["notes"]]


async def test_an_untouched_tag_is_as_its_journal_says(api: Api, store: Store) -> None:
    """Every kind of end, and runs that have none yet."""
    ids = a_night(api)
    report = await Audit(store).check("mar11")
    assert report.differences == []
    assert (report.decisions, report.experiments) == (7, len(ids))


async def test_a_keep_whose_model_was_measured_once_more_is_as_its_journal_says(
    api: Api, store: Store, plain: redis.Redis
) -> None:
    """The journal has the second measure, so a `verified` that somebody wrote is found."""
    api.tag()
    api.gpu()
    verified, other = api.submit("1"), api.submit("2")
    api.finish(api.claim(), 1.0, verified_bpb=1.0001)
    api.finish(api.claim(), 0.9)
    assert (await Audit(store).check("mar11")).differences == []
    key = keys.of_tag("mar11", "run:", other)
    verdict = str(plain.hget(key, "verdict")).replace('"verified":false', '"verified":true')
    plain.hset(key, "verdict", verdict)
    (difference,) = (await Audit(store).check("mar11")).differences
    assert other in difference
    assert verified not in difference


async def test_a_tag_that_is_not_there_is_said_so(store: Store) -> None:
    with pytest.raises(NotFound, match="nothing"):
        await Audit(store).check("nothing")


def key(name: str) -> str:
    return f"ar:{{mar11}}:{name}"


def last_entry(server: redis.Redis) -> tuple[str, dict[str, str]]:
    [(entry_id, fields)] = server.xrevrange(key("journal"), count=1)
    return entry_id, fields


def forged(server: redis.Redis, kind: str, part: str, **changes: object) -> None:
    """The last entry of a kind with something else in one part of it, at its place."""
    entries = server.xrange(key("journal"))
    last = max(i for i, (_, fields) in enumerate(entries) if fields["kind"] == kind)
    data = json.loads(entries[last][1]["data"])
    data[part] |= changes
    entries[last][1]["data"] = json.dumps(data)
    server.delete(key("journal"))
    for entry_id, fields in entries:
        server.xadd(key("journal"), fields, id=entry_id)


TAMPERED: dict[str, tuple[str, Tamper]] = {
    "a better best": ("best val_bpb", lambda r, _: r.hset(key("tag"), "best_val_bpb", "0.8")),
    "another champion": ("best experiment", lambda r, i: r.hset(key("tag"), "best_id", i[0])),
    "a forgotten streak": ("crash streak", lambda r, _: r.hset(key("tag"), "streak", "0")),
    "a changed strategy": ("strategy", lambda r, _: r.hset(key("strategy"), "mode", "exploit")),
    "training time": ("training seconds", lambda r, _: r.hset(key("tag"), "training_seconds", 1)),
    "a changed window": ("recent runs", lambda r, _: r.lpop(key("recent"))),
    "a lost keep": ("keeps", lambda r, _: r.zpopmin(key("keeps"))),
    "a lost near miss": ("near misses", lambda r, _: r.zpopmin(key("near"))),
    "a moved near miss": ("near misses", lambda r, i: r.zadd(key("near"), {i[1]: 0.0005})),
    "a run in no list": ("runs with status keep", lambda r, i: r.zrem(key("status:keep"), i[0])),
    "a wrong counter": ("per category", lambda r, _: r.hincrby(key("cats"), "n:attention", 1)),
    "a wrong near counter": ("per category", lambda r, _: r.hincrby(key("cats"), "near:attention")),
    "a changed result": ("val_bpb", lambda r, i: r.hset(key(f"run:{i[3]}"), "val_bpb", "0.5")),
    "a changed verdict": (
        "verdict",
        lambda r, i: r.hset(key(f"run:{i[0]}"), "verdict", r.hget(key(f"run:{i[2]}"), "verdict")),
    ),
    "a decision undone": ("state", lambda r, i: r.hset(key(f"run:{i[3]}"), "state", "hand")),
    "a decision nobody made": (
        "not in the journal",
        lambda r, i: r.hset(
            key(f"run:{i[7]}"),
            mapping={"state": "decided", "status": "crash", "finished": "1"},
        ),
    ),
    "a lost record": (
        "has no record",
        lambda r, i: (r.zrem(key("all"), i[4]), r.delete(key(f"exp:{i[4]}"))),
    ),
    "a lost entry": ("missing or doubled", lambda r, _: r.xdel(key("journal"), _third(r))),
    "a doubled entry": (
        "decided twice",
        lambda r, _: r.xadd(key("journal"), _decision(r)) and r.hincrby(key("tag"), "revision"),
    ),
    "a lost setup": (
        "does not begin",
        lambda r, _: r.xdel(key("journal"), r.xrange(key("journal"), count=1)[0][0]),
    ),
    "a cut journal": ("revision", lambda r, _: r.xdel(key("journal"), last_entry(r)[0])),
    "a pause undone": ("pause:", lambda r, _: r.hdel(key("tag"), "paused")),
    "another reason for the pause": (
        "pause",
        lambda r, _: r.hset(key("tag"), "paused_reason", "none"),
    ),
    "a lost note": ("notes", lambda r, _: r.hdel(key("notes"), r.hkeys(key("notes"))[0])),
    "a changed note": ("notes", lambda r, _: _changed_note(r)),
    "a note nobody left": ("notes", lambda r, _: r.hset(key("notes"), "note-99", _a_note(r))),
    "a pause that was a resume": (
        "changed nothing",
        lambda r, _: forged(r, "steered", "steered", action="resume"),
    ),
    "another pauser": ("pause", lambda r, _: forged(r, "steered", "steered", by="Mallory")),
    "an entry that the audit log lost": (
        "the audit log lacks",
        lambda r, _: r.xdel(key("ledger"), r.xrange(key("ledger"), count=1)[0][0]),
    ),
    "an action that the audit log puts on another": (
        "the journal does not",
        lambda r, _: r.xadd(key("ledger"), r.xrange(key("ledger"))[0][1] | {"by": "Mallory"}),
    ),
    "a forged verdict": (
        "by the rules",
        lambda r, _: forged(r, "decided", "decision", status="keep"),
    ),
    "a forged near miss": (
        "by the rules",
        lambda r, _: forged(r, "decided", "decision", near=0.001),
    ),
}


def _a_note(server: redis.Redis) -> str:
    return str(server.hvals(key("notes"))[0])


def _changed_note(server: redis.Redis) -> None:
    name = server.hkeys(key("notes"))[0]
    note = json.loads(server.hget(key("notes"), name) or "")
    server.hset(key("notes"), name, json.dumps(note | {"text": "do evil"}))


def _decision(server: redis.Redis) -> dict[str, str]:
    entries = server.xrange(key("journal"))
    return next(fields for _, fields in entries if fields["kind"] == "decided")


def _third(server: redis.Redis) -> str:
    return str(server.xrange(key("journal"), count=3)[2][0])


@pytest.mark.parametrize("name", TAMPERED)
async def test_the_audit_names_what_was_tampered_with(
    name: str, api: Api, store: Store, plain: redis.Redis
) -> None:
    """One thing changed behind the system's back is one thing found."""
    word, tamper = TAMPERED[name]
    tamper(plain, a_night(api))
    report = await Audit(store).check("mar11")
    assert any(word in difference for difference in report.differences), report.differences


async def test_what_is_decided_during_an_audit_is_no_difference(api: Api, store: Store) -> None:
    """The totals are of one moment; decisions after it are the next audit's."""
    ids = a_night(api)
    books = await store.journal.books("mar11")
    api.complete(ids[-1], 0.5)
    api.complete(api.register(), 0.5005)

    class Earlier:
        """The journal, with the totals of a moment ago."""

        def __getattr__(self, name: str) -> object:
            return getattr(store.journal, name)

        async def books(self, _: str) -> object:
            return books

    audit = Audit(store)
    audit._store = type("Then", (), vars(store) | {"journal": Earlier()})()  # type: ignore[assignment]
    assert (await audit.check("mar11")).differences == []


async def test_the_journal_is_told_as_json_lines(api: Api) -> None:
    """One line a step, each with what it rested on."""
    ids = a_night(api)
    response = api.http.get("/api/report/journal", params={"tag": "mar11"})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["kind"] for line in lines] == [
        "setup", "decided", "decided", "strategy", *["decided"] * 5, *["steered"] * 7,
    ]  # fmt: skip
    near = lines[2]
    assert (near["experiment_id"], near["outcome"]["val_bpb"]) == (ids[1], 1.001)
    assert near["on"] == {"revision": 1, "best": 1.0, "best_id": ids[0], "streak": 0}
    assert near["decision"]["status"] == "discard"
    assert near["decision"]["near"] == pytest.approx(0.001)
    assert lines[-9]["epoch"] == 1
    assert api.http.get("/api/report/journal", params={"tag": "x"}).status_code == 404

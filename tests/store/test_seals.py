"""Who can write anything into Redis, and has our code, but not the home's key, is found out."""

import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from hypothesis import given, strategies as st

from orchestrator.errors import SetupError
from orchestrator.folder import Folder
from orchestrator.rules.seals import Chain, JournalEntry, after, seal_of
from orchestrator.seals import Seals
from orchestrator.services.core.audit import Audit, Report
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from tests.conftest import Api, MakeApi
from tests.store.test_audit import a_night, key

pytestmark = pytest.mark.anyio

KEY = b"k" * 32
MakeAudit = Callable[[], "Audit"]


# -- the chain itself


def journal(length: int, first: int = 0) -> list[JournalEntry]:
    """A journal, sealed from its entry `first` on, with which the answer begins."""
    entries, before = [], ""
    for number in range(first, first + length):
        kind, data = "decided" if number else "setup", {"on": {"revision": number - 1}}
        text = json.dumps(data)
        seal = seal_of(KEY, before, "t", kind, f"exp-{number}", text)
        at = 1000 + number
        entry = JournalEntry(f"{number}-0", kind, f"exp-{number}", at, data, text, seal)
        entries.append(entry)
        before = after(seal, at)
    return entries


def differences(entries: list[JournalEntry], noted: list[JournalEntry]) -> list[str]:
    chain = Chain(KEY, "t", {entry.seal or "": entry.id for entry in noted})
    for entry in entries:
        chain.take(entry)
    chain.end()
    return chain.differences


@given(data=st.data(), length=st.integers(1, 8))
def test_any_change_of_a_sealed_journal_breaks_its_chain(data: st.DataObject, length: int) -> None:
    """One entry, or several, altered in any field, moved, doubled, inserted, removed or stripped.

    Only the time of the newest entry is not sealed yet.
    """
    whole = journal(length)
    place = st.integers(0, length - 1)
    entries = list(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        if not entries:
            break
        index = data.draw(place) % len(entries)
        entry = entries[index]
        match data.draw(st.sampled_from(["alter", "remove", "move", "double", "insert", "strip"])):
            case "alter":
                name = data.draw(st.sampled_from(["kind", "experiment_id", "text", "seal"]))
                entries[index] = replace(entry, **{name: f"{getattr(entry, name)}0"})
            case "remove":
                del entries[index]
            case "move":
                entries.insert(data.draw(place), entries.pop(index))
            case "double":
                entries.insert(data.draw(place), entry)
            case "insert":
                entries.insert(index, replace(entry, text="{}"))
            case "strip":
                entries[index] = replace(entry, seal=None)
    found = differences(entries, noted=whole[-1:])
    assert len(found) == (entries != whole)


def test_the_first_broken_link_is_named() -> None:
    whole = journal(6)
    altered = [*whole[:3], replace(whole[3], text="{}"), *whole[4:]]
    assert "entry 3-0 (decided exp-3)" in differences(altered, [])[0]
    assert "entry 4-0" in differences([*whole[:3], *whole[4:]], [])[0]
    another_time = [*whole[:3], replace(whole[3], at_us=1), *whole[4:]]
    assert "entry 4-0" in differences(another_time, [])[0]


def test_a_version_without_seals_can_only_have_written_the_oldest_entries() -> None:
    old = [replace(entry, seal=None, text="{}") for entry in journal(3)]
    new = journal(3, first=3)
    assert differences([*old, *new], new) == []
    assert "entry 0-0" in differences([*old, *new, *old], new)[0]
    assert "entry 3-0" in differences([*old, old[-1], *new], new)[0], "one too many"
    assert "entry 3-0" in differences([*old[1:], *new], new)[0], "one too few"


# -- the whole system


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, 5)
    yield store
    await store.close()


@pytest.fixture
def plain(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def home(tmp_path: Path) -> HomePaths:
    """The home of the `api` fixture."""
    return HomePaths(tmp_path / "home")


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api()


async def audit(store: Store, home: HomePaths | None = None) -> Report:
    return await Audit(store, Seals(Folder(home)) if home else None).check("mar11")


def noted(api: Api) -> None:
    """What an orchestrator does every second."""
    api.app.state.services.store.seals.write()


async def test_every_entry_of_every_kind_is_sealed(api: Api, store: Store, home: HomePaths) -> None:
    """Without a key the same journal is fine as far as that goes, and with another one it is not
    believed."""
    a_night(api)
    noted(api)
    report = await audit(store, home)
    assert (report.differences, report.unsealed) == ([], 0)
    without = await audit(store)
    assert (without.differences, without.unsealed) == ([], None)
    stranger = await audit(store, HomePaths(home.home / "other"))
    assert ["chain is broken" in text for text in stranger.differences] == [True]


async def test_a_champion_forged_with_our_own_code_is_found(
    api: Api, make_api: MakeApi, store: Store, plain: redis.Redis, home: HomePaths, tmp_path: Path
) -> None:
    """An orchestrator with another home writes a state that is right in every number. Only the
    seal tells it from ours, and it does so after honest decisions have followed too."""
    ids = a_night(api)
    noted(api)
    plain.delete("ar:files")  # what tells our own orchestrators that the home is not theirs
    forger = make_api(home=tmp_path / "forger")
    assert forger.complete(ids[-1], 0.001)["status"] == "keep"
    assert (await audit(store)).differences == []
    for _ in range(2):
        found = (await audit(store, home)).differences
        assert len(found) == 1
        assert f"decided {ids[-1]}" in found[0]
        api.complete(api.register(), 0.0005)
        noted(api)


async def test_a_state_put_back_as_it_was_is_found(
    api: Api, store: Store, plain: redis.Redis, home: HomePaths
) -> None:
    """A whole earlier keyspace is right in itself: what came after it is missing, also when the
    search has gone on from there."""
    api.tag()
    api.complete(api.register(), 1.0)
    earlier = {name: plain.dump(name) for name in plain.keys("*")}
    api.complete(api.register(), 0.9)
    noted(api)
    for name in plain.keys("*"):
        plain.delete(name)
    for name, value in earlier.items():
        plain.restore(name, 0, value)
    assert (await audit(store)).differences == []
    for _ in range(3):
        assert "at revision 1: it was cut off" in (await audit(store, home)).differences[0]
        api.complete(api.register(), 0.95)
        noted(api)


async def test_a_tag_that_is_gone_is_found(
    api: Api, store: Store, plain: redis.Redis, home: HomePaths
) -> None:
    api.tag()
    noted(api)
    plain.flushall()
    auditor = Audit(store, Seals(Folder(home)))
    assert await auditor.tags() == ["mar11"]
    assert "it is gone" in (await auditor.check("mar11")).differences[0]


async def test_a_journal_without_its_seals_is_not_taken_for_an_old_one(
    api: Api, store: Store, plain: redis.Redis, home: HomePaths
) -> None:
    a_night(api)
    noted(api)
    entries = plain.xrange(key("journal"))
    plain.delete(key("journal"))
    for entry_id, fields in entries:
        plain.xadd(key("journal"), {n: v for n, v in fields.items() if n != b"seal"}, id=entry_id)
    plain.hdel(key("tag"), "sealed")
    assert (await audit(store)).differences == []
    assert "the journal lacks" in (await audit(store, home)).differences[0]


async def test_a_search_begun_by_a_version_without_seals_goes_on_with_them(
    api: Api, store: Store, redis_url: str, home: HomePaths
) -> None:
    old = api.app.state.services.store.seals
    scripts = api.app.state.services.store.scripts
    scripts._seals = None
    ids = a_night(api)
    scripts._seals = old
    before = await audit(store, home)
    api.complete(ids[-1], 0.5)
    noted(api)
    report = await audit(store, home)
    assert (before.differences, report.differences) == ([], [])
    assert before.unsealed == report.unsealed == 16


async def test_seals_that_could_not_be_noted_before_a_crash_are_no_difference(
    api: Api, store: Store, home: HomePaths
) -> None:
    """Nor is a line that a crash cut short."""
    api.tag()
    noted(api)
    with (home.noted_seals_dir / "mar11").open("a") as file:
        file.write("0 ab")
    api.complete(api.register(), 1.0)
    assert (await audit(store, home)).differences == []


async def test_orchestrators_that_decide_and_are_steered_at_once_write_one_chain(
    api: Api, make_api: MakeApi, store: Store, home: HomePaths
) -> None:
    """They share a home. Each entry rests on the one before, of either."""
    both = [api, make_api()]
    api.tag()
    ids = [api.register() for _ in range(16)]
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(both[n % 2].complete, i, 1 - n / 100) for n, i in enumerate(ids)]
        calls += [
            callers.submit(both[n % 2].post, "/api/steer/note", tag="mar11", text=f"note {n}")
            for n in range(16)
        ]
        for call in calls:
            call.result()
    for each in both:
        noted(each)
    report = await audit(store, home)
    assert (report.differences, report.decisions, report.unsealed) == ([], 16, 0)
    assert len(api.get("/api/steer/notes", tag="mar11")["notes"]) == 16


GARBAGE = {
    "no JSON": {"data": "{"},
    "a list": {"data": "[]"},
    "another kind": {"kind": "x", "data": "{}"},
    "no revision": {"kind": "steered", "data": "{}"},
    "no text": {"data": "\ud7ff", "seal": "näher"},
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_an_entry_that_cannot_be_read_is_a_difference_and_no_traceback(
    name: str, api: Api, store: Store, plain: redis.Redis, home: HomePaths
) -> None:
    a_night(api)
    fields = {"kind": "decided", "id": "exp-1", "at": "1", "data": "{}"} | GARBAGE[name]
    plain.xadd(key("journal"), dict(fields))
    plain.hincrby(key("tag"), "revision")
    assert (await audit(store, home)).differences


def test_a_home_that_cannot_hold_the_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"journal\.key cannot be read or written .*--home"):
        Seals(Folder(HomePaths(tmp_path / "file" / "home")))


def test_the_key_is_in_no_place_that_redis_sees(
    api: Api, plain: redis.Redis, home: HomePaths
) -> None:
    a_night(api)
    secret = home.journal_key.read_text()
    assert home.journal_key.stat().st_mode & 0o777 == 0o600
    held = b"".join(plain.dump(name) or b"" for name in plain.keys("*"))
    assert secret.encode() not in held
    assert bytes.fromhex(secret) not in held


def test_a_damaged_key_is_named_and_not_replaced(home: HomePaths) -> None:
    Seals(Folder(home))
    home.journal_key.write_text("")
    with pytest.raises(SetupError, match=r"journal\.key does not hold"):
        Seals(Folder(home))

"""A backup holds one moment of the whole state, and a restore brings all of it back, or nothing."""

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.errors import Conflict, Invalid
from orchestrator.folder import Folder
from orchestrator.seals import Seals
from orchestrator.services.core import backup as service
from orchestrator.services.core.audit import Audit
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from orchestrator.store.dump import Part
from tests.conftest import Api, MakeApi, lease_of

pytestmark = pytest.mark.anyio


def silent(_: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, 5)
    yield store
    await store.close()


@pytest.fixture
async def other(each_redis_url: str) -> AsyncIterator[Store]:
    """An empty server beside the first one, of each kind that there is."""
    store = Store(each_redis_url, 5)
    yield store
    await store.close()


@pytest.fixture
def home(tmp_path: Path) -> HomePaths:
    """The home of the `api` fixture."""
    return HomePaths(tmp_path / "home")


def contents(url: str) -> dict[str, Any]:
    """Every key with its value, by commands that dump.py does not use."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        read: dict[str, Callable[[str], Any]] = {
            "hash": client.hgetall,
            "zset": lambda key: list(client.zscan_iter(key)),
            "list": lambda key: client.sort(key, by="nosort"),
            "string": client.get,
            "stream": client.xrevrange,
        }
        found = {key: read[client.type(key)](key) for key in client.keys("*")}
        lasting = {key for key in found if client.ttl(key) < 0}
    return {"values": found, "without time to live": lasting}


def files(paths: HomePaths) -> dict[str, bytes]:
    """What a backup holds of a home."""
    found = [paths.journal_key, *(path for dir_ in paths.kept_dirs for path in dir_.rglob("*"))]
    return {
        str(path.relative_to(paths.home)): path.read_bytes() for path in found if path.is_file()
    }


def some_state(api: Api) -> Any:
    """Decided, queued and leased runs, logs, curves, an Idempotency-Key, and what a person did: a
    note, a pause, a drain, a requeue of the leased job, which is the answer."""
    api.tag()
    api.complete(api.register(), 1.0)
    api.complete(api.register(description="näher\t✓"), 1.000000000000001)
    api.gpu()
    for number in range(3):
        api.submit(f"x = {number}")
    job = api.claim()
    api.post(
        "/api/job/progress", **lease_of(job),
        log={"offset": 0, "data": "aGVsbG8="}, curve=[{"step": 1, "percent": 1.0, "loss": 9.0}],
    )  # fmt: skip
    api.post("/api/experiment/setup", _headers={"Idempotency-Key": "k"}, tag="second")
    api.post("/api/steer/note", tag="mar11", text="wider ✓")
    api.post("/api/steer/pause", tag="mar11", reason="r", by="Ada")
    api.gpu("gpu-1", 1)
    api.post("/api/pool/drain", gpu_id="gpu-1", reason="r")
    api.post(f"/api/experiment/{job['experiment_id']}/requeue", reason="r")
    return job


async def test_a_state_comes_back_whole(
    api: Api, make_api: MakeApi, store: Store, other: Store, home: HomePaths,
    redis_url: str, each_redis_url: str, tmp_path: Path,
) -> None:  # fmt: skip
    """Every key and file is there again, also on another kind of server, and work goes on: the
    lease of the running job is still its worker's."""
    job = some_state(api)
    before, target = contents(redis_url), HomePaths(tmp_path / "new")
    manifest = await service.backup(store, Folder(home), tmp_path / "b.tar.gz", silent)
    assert manifest.files == len(files(home)) > 3
    assert await service.restore(other, Folder(target), tmp_path / "b.tar.gz", silent) == manifest
    assert contents(each_redis_url) == before
    assert files(target) == files(home)
    audit = await Audit(other, Seals(Folder(target))).check("mar11")
    assert (audit.differences, audit.unsealed) == ([], 0)
    ledger = api.get("/api/steer/ledger", limit=3)
    again = make_api(redis_url=each_redis_url, home=target.home)
    assert again.get("/api/steer/ledger", limit=3) == ledger
    assert again.get("/api/search/suggest", tag="mar11")["notes"][0]["text"] == "wider ✓"
    assert again.claim("gpu-1") is None, "drained, and the tag is paused"
    assert again.finish(job, outcome="cancelled")["status"] == "queued"
    again.post("/api/steer/resume", tag="mar11", reason="r")
    assert again.finish(again.claim(), 0.9)["status"] == "keep"
    assert (await Audit(other, Seals(Folder(target))).check("mar11")).differences == []
    assert again.http.get(f"/api/experiment/{job['experiment_id']}/log?attempt=1").text == "hello"


async def test_an_older_state_that_restore_puts_back_is_no_cut_journal(
    api: Api, store: Store, other: Store, home: HomePaths, tmp_path: Path
) -> None:
    """Into the same home, which has noted the seals of what came after the backup."""
    some_state(api)
    await service.backup(store, Folder(home), tmp_path / "b.tar.gz", silent)
    api.complete(api.register(), 0.5)
    api.app.state.services.store.seals.write()
    await service.restore(other, Folder(home), tmp_path / "b.tar.gz", silent)
    assert (await Audit(other, Seals(Folder(home))).check("mar11")).differences == []


async def test_a_finished_log_comes_back_with_its_tail(
    api: Api, store: Store, other: Store, home: HomePaths, tmp_path: Path
) -> None:
    """The compressed log and the small file beside it that holds its end."""
    job, target = some_state(api), HomePaths(tmp_path / "new")
    log = "mar11", job["experiment_id"], 1
    Folder(home).close_log(*log)
    await service.backup(store, Folder(home), tmp_path / "b.tar.gz", silent)
    await service.restore(other, Folder(target), tmp_path / "b.tar.gz", silent)
    assert target.log_tail(*log).read_bytes() == b"hello"
    assert Folder(target).read_log(*log, 1, None).data == b"ello"


async def test_keys_of_any_size_come_in_parts(store: Store, redis_url: str) -> None:
    """What has grown large is told in several lines, each of bounded length."""
    with redis.Redis.from_url(redis_url) as plain:
        plain.zadd("ar:{t}:all", {f"member-{n}": n for n in range(2500)})
        plain.xadd("ar:{t}:journal", {"a": "b"}, id="5-0")
        plain.set("foreign", "not ours")
    parts = [part async for part in store.dump.parts()]
    assert [len(p.members) for p in parts if p.kind == "zset"] == [1000, 1000, 500]
    assert Part("ar:{t}:journal", "stream", [["5-0", {"a": "b"}]]) in parts
    assert not [part for part in parts if part.key == "foreign"]


async def test_writers_wait_while_a_backup_reads(api: Api, store: Store) -> None:
    """What is written meanwhile is in none of the parts, and is written in the end."""
    api.tag()
    ids = [api.register() for _ in range(3)]
    parts, late = [], None
    async for part in store.dump.parts():
        parts.append(part)
        if late is None:
            late = asyncio.create_task(asyncio.to_thread(api.register))
            await asyncio.sleep(0.3)
            assert not late.done()
    assert late is not None
    new = await late
    assert new not in json.dumps([part.members for part in parts])
    [everything] = [part.members for part in parts if part.key.endswith(":all")]
    assert [member for member, _ in everything] == ids


async def test_a_backup_replaces_no_other(store: Store, home: HomePaths, tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    target.write_text("precious")
    with pytest.raises(Conflict, match="exists"):
        await service.backup(store, Folder(home), target, silent)
    assert target.read_text() == "precious"


async def test_a_state_is_not_written_over(
    api: Api, store: Store, home: HomePaths, redis_url: str, tmp_path: Path
) -> None:
    """A restore into a Redis that holds experiments changes nothing."""
    some_state(api)
    await service.backup(store, Folder(home), tmp_path / "b.tar.gz", silent)
    before = contents(redis_url)["values"]["ar:{mar11}:tag"]
    with pytest.raises(Conflict, match="empty"):
        await service.restore(store, Folder(home), tmp_path / "b.tar.gz", silent)
    assert contents(redis_url)["values"]["ar:{mar11}:tag"] == before


async def test_a_restore_that_was_cut_short_can_be_begun_again(
    api: Api, store: Store, other: Store, home: HomePaths, tmp_path: Path,
    redis_url: str, each_redis_url: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the first try left is told from a state, and does not stay."""
    some_state(api)
    await service.backup(store, Folder(home), tmp_path / "b.tar.gz", silent)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await service.restore(
                other, Folder(HomePaths(tmp_path / "new")), tmp_path / "b.tar.gz", silent
            )
    with redis.Redis.from_url(each_redis_url) as plain:
        plain.sadd("ar:half-written", "x")
    await service.restore(other, Folder(HomePaths(tmp_path / "new")), tmp_path / "b.tar.gz", silent)
    assert contents(each_redis_url) == contents(redis_url)


@pytest.mark.parametrize("damage", ["cut", "cut at the end", "flipped", "empty", "text"])
async def test_a_damaged_backup_is_refused_and_nothing_changed(
    damage: str, api: Api, store: Store, other: Store, home: HomePaths, tmp_path: Path,
    each_redis_url: str,
) -> None:  # fmt: skip
    """Each kind of damage is found before the first key is written."""
    some_state(api)
    file, new = tmp_path / "b.tar.gz", HomePaths(tmp_path / "new")
    await service.backup(store, Folder(home), file, silent)
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(
        {
            "cut": whole[:half],
            "cut at the end": whole[:-200],
            "flipped": whole[:half] + bytes([whole[half] ^ 0x10]) + whole[half + 1 :],
            "empty": b"",
            "text": b"not a backup at all",
        }[damage]
    )
    with pytest.raises(Invalid, match=r"backup|cut short|damaged"):
        await service.restore(other, Folder(new), file, silent)
    assert contents(each_redis_url)["values"] == {}
    assert not new.home.exists()


async def test_a_changed_log_in_a_backup_is_noticed(
    api: Api, store: Store, other: Store, home: HomePaths, tmp_path: Path
) -> None:
    """The digest is of all content, not of Redis' alone."""
    some_state(api)
    good, bad = tmp_path / "good.tar.gz", tmp_path / "bad.tar.gz"
    await service.backup(store, Folder(home), good, silent)
    with tarfile.open(good) as source, tarfile.open(bad, "x:gz") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name.endswith(".log"):
                data = data[::-1]
            target.addfile(member, io.BytesIO(data))
    with pytest.raises(Invalid, match="damaged"):
        await service.restore(other, Folder(HomePaths(tmp_path / "new")), bad, silent)


@pytest.mark.parametrize("name", ["home/../../evil", "/etc/evil", "home/redis/evil", "home/runs"])
async def test_a_backup_puts_files_nowhere_but_in_their_folders(
    name: str, other: Store, tmp_path: Path
) -> None:
    """A forged archive cannot reach out of the home."""
    file = tmp_path / "b.tar.gz"
    with tarfile.open(file, "x:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(Invalid, match="no backup that can be restored"):
        await service.restore(other, Folder(HomePaths(tmp_path / "new")), file, silent)

"""A backup that is malformed in any way is refused in one line, before anything is loaded."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings, strategies as st

from orchestrator.errors import Invalid
from orchestrator.folder import Folder
from orchestrator.services.core import backup as service
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from orchestrator.store.dump import MAX_LINE_BYTES, PartReader

pytestmark = pytest.mark.anyio

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, 5)
    yield store
    await store.close()


def member(name: str, content: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def line(key: str, kind: str, members: Any, **more: Any) -> bytes:
    fields = {"key": key, "kind": kind, "members": members, "ttl_ms": None} | more
    return json.dumps(fields).encode() + b"\n"


GOOD = [
    line("ar:tags", "zset", [["t", 1.0]]),
    line("ar:{t}:tag", "hash", [["name", "t"]]),
    line("ar:{t}:journal", "stream", [["1-0", {"kind": "setup"}]]),
    line("ar:{t}:journal", "stream", [["1-1", {"kind": "setup"}]]),
    line("ar:idem:k", "string", ["{}"], ttl_ms=1000),
    line("ar:{t}:recent", "list", ["keep"]),
]
SOURCE = member(f"home/sources/ab/{'ab' * 32}.py.gz", b"source")
LOG = member("home/runs/t/exp-0660f78349a45a-t/1.log", b"log")


def state(*lines: bytes) -> Member:
    return member("state.jsonl", b"".join(lines))


def manifest(members: list[Member], **changes: Any) -> Member:
    """The true one."""
    digest, parts = hashlib.sha256(), 0
    for info, content in members:
        digest.update(info.name.encode() + content)
        parts += content.count(b"\n") if info.name == "state.jsonl" else 0
    others = sum(info.name != "state.jsonl" for info, _ in members)
    true = {"format": 1, "parts": parts, "files": others, "sha256": digest.hexdigest()}
    return member("manifest.json", json.dumps(true | changes).encode())


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            out.write(info.tobuf(archive.format, archive.encoding or "utf-8", archive.errors))
            out.write(content + bytes(-len(content) % 512))
        archive.offset = out.tell()
    return out.getvalue()


def whole(*members: Member) -> bytes:
    """A backup of these members, with a manifest that is true."""
    return tar(*members, manifest(list(members)))


def with_line(text: bytes) -> bytes:
    return whole(state(*GOOD, text), SOURCE, LOG)


def with_member(*members: Member) -> bytes:
    return whole(state(*GOOD), SOURCE, *members, LOG)


def typed(kind: bytes, **fields: Any) -> Member:
    return member("home/runs/t/e/1.log", type=kind, linkname="/etc/passwd", **fields)


def key(name: str, kind: str = "string", members: Any = None, **more: Any) -> bytes:
    return with_line(line(name, kind, members or ["x"], **more))


MALFORMED: dict[str, bytes] = {
    # lines
    "no JSON": with_line(b"{\n"),
    "an empty line": with_line(b"\n"),
    "a list": with_line(b"[]\n"),
    "null": with_line(b"null\n"),
    "no key": with_line(b'{"kind": "string", "members": ["x"]}\n'),
    "a name too many": key("ar:seq", more=1),
    "a number for a key": with_line(line(1, "string", ["x"])),  # type: ignore[arg-type]
    "nested deeply": with_line(b"[" * 100_000 + b"\n"),
    "nested deeply in a member": with_line(
        b'{"key": "ar:seq", "kind": "string", "members": ' + b"[" * 100_000 + b"\n"
    ),
    "no UTF-8": with_line(b'{"key": "ar:seq", "kind": "string", "members": ["\xff"]}\n'),
    "half a character": key("ar:seq", members=["\ud800"]),
    "a foreign key": key("other:seq"),
    "an unknown key": key("ar:unknown"),
    "an unknown key of a tag": key("ar:{t}:unknown"),
    "a key of a tag without it": key("ar:tag", "hash", [["a", "b"]]),
    "a key without its end": key("ar:idem:"),
    "a key with an end too many": key("ar:seq:x"),
    "a key of another type": key("ar:{t}:tag", "list"),
    "an unknown type": key("ar:seq", "set"),
    "no members": with_line(line("ar:seq", "string", [])),
    "too many members": key("ar:{u}:recent", "list", ["x"] * 1001),
    "two texts of a string": key("ar:seq", members=["x", "y"]),
    "a number for a text": key("ar:seq", members=[1]),
    "a field without value": key("ar:{u}:tag", "hash", [["x"]]),
    "a field with two values": key("ar:{u}:tag", "hash", [["x", "y", "z"]]),
    "a field twice": key("ar:{u}:tag", "hash", [["x", "y"], ["x", "z"]]),
    "a score that is text": key("ar:gpus", "zset", [["x", "1"]]),
    "a score that is a truth": key("ar:gpus", "zset", [["x", True]]),
    "a score that is no number": key("ar:gpus", "zset", [["x", float("nan")]]),
    "a score without end": key("ar:gpus", "zset", [["x", float("inf")]]),
    "an entry without id": key("ar:events", "stream", [["x", {"a": "b"}]]),
    "an entry with a large id": key("ar:events", "stream", [["9" * 30 + "-0", {"a": "b"}]]),
    "an entry with the id 0-0": key("ar:events", "stream", [["0-0", {"a": "b"}]]),
    "an entry without fields": key("ar:events", "stream", [["1-0", {}]]),
    "an entry with a number": key("ar:events", "stream", [["1-0", {"a": 1}]]),
    "entries out of order": key("ar:events", "stream", [["2-0", {"a": "b"}], ["1-0", {"a": "b"}]]),
    "a stream that comes again": key("ar:{t}:journal", "stream", [["9-0", {"a": "b"}]]),
    "a key that comes again": key("ar:{t}:recent2", "list"),
    "a hash that comes again": key("ar:{t}:tag", "hash", [["x", "y"]]),
    "a string that comes twice": with_line(2 * line("ar:seq", "string", ["1"])),
    "a life of less than nothing": key("ar:seq", ttl_ms=-1),
    "a life of text": key("ar:seq", ttl_ms="1"),
    "a life without end": key("ar:seq", ttl_ms=10**400),
    "a long line": key("ar:seq", members=["x" * MAX_LINE_BYTES]),
    # members
    "a path upwards": with_member(member("home/runs/../../e", b"x")),
    "a path upwards in a folder": with_member(member("home/runs/t/../1.log", b"x")),
    "a path from the root": with_member(member("/home/runs/t/e/1.log", b"x")),
    "a file of Redis": with_member(member("home/redis/password", b"x")),
    "a folder's name": with_member(member("home/runs", b"x")),
    "a file in a run's place": with_member(member("home/runs/t/e", b"x")),
    "a file too deep": with_member(member("home/runs/t/e/1.log/x", b"x")),
    "a dotted name": with_member(member("home/runs/t/e/.x", b"x")),
    "an empty name": with_member(member("home/runs//e/1.log", b"x")),
    "a key that is none": with_member(member("home/journal.key", b"x")),
    "notes of seals": with_member(member("home/seals/t", b"x")),
    "a symbolic link": with_member(typed(tarfile.SYMTYPE)),
    "a hard link": with_member(typed(tarfile.LNKTYPE)),
    "a folder": with_member(typed(tarfile.DIRTYPE)),
    "a device": with_member(typed(tarfile.CHRTYPE)),
    "a pipe": with_member(typed(tarfile.FIFOTYPE)),
    "an unknown kind": with_member(typed(b"Z")),
    "a sparse file": with_member(typed(tarfile.GNUTYPE_SPARSE, size=0)),
    "a huge size": with_member(typed(tarfile.REGTYPE, size=7 << 30)),
    "a huge name": with_member(typed(tarfile.GNUTYPE_LONGNAME, size=7 << 30)),
    "a huge header": with_member(typed(tarfile.XHDTYPE, size=7 << 30)),
    "a global header": with_member(member("x", b"12 size=-512\n", type=tarfile.XGLTYPE)),
    "a size below zero": with_member(
        member("x", b"13 size=-512\n", type=tarfile.XHDTYPE), member("home/runs/t/e/1.log", b"x")
    ),
    "a size in many digits": with_member(
        member("x", b"9" * 5000 + b" size=1\n", type=tarfile.XHDTYPE), LOG
    ),
    "sparse by a header": with_member(
        member("x", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", type=tarfile.XHDTYPE),
        member("home/runs/t/e/2.log", b"1000000000\n" + b"1\n" * 200_000),
    ),
    "two states": whole(state(*GOOD), state(), LOG),
    "a state at the end": whole(SOURCE, state(*GOOD)),
    "no state": whole(SOURCE, LOG),
    "nothing": tar(),
    # the manifest
    "no manifest": tar(state(*GOOD), SOURCE),
    "a manifest alone": whole(),
    "a manifest that is no JSON": tar(state(*GOOD), member("manifest.json", b"{")),
    "a manifest that is a list": tar(state(*GOOD), member("manifest.json", b"[]")),
    "a manifest nested deeply": tar(state(*GOOD), member("manifest.json", b"[" * 60_000)),
    "a large manifest": tar(state(*GOOD), member("manifest.json", b" " * (1 << 20) + b"{}")),
    "another format": tar(state(*GOOD), manifest([state(*GOOD)], format=2)),
    "text for a number": tar(state(*GOOD), manifest([state(*GOOD)], parts=str(len(GOOD)))),
    "a part too few": tar(state(*GOOD), manifest([state(*GOOD)], parts=len(GOOD) - 1)),
    "a file too many": tar(state(*GOOD), manifest([state(*GOOD)], files=1)),
    "another content": tar(state(*GOOD), manifest([state(*GOOD[1:])], parts=len(GOOD))),
    "members after the end": tar(*(both := [state(*GOOD), SOURCE]), manifest(both), LOG),
    "two manifests": tar(state(*GOOD), *[manifest([state(*GOOD)])] * 2),
}


async def restored(store: Store, content: bytes, folder: Path) -> HomePaths:
    file, home = folder / "b.tar.gz", HomePaths(folder / "new")
    file.write_bytes(gzip.compress(content, 1))
    await service.restore(store, Folder(home), file, lambda _: None)
    return home


async def test_a_backup_that_is_made_by_hand_and_right_is_restored(
    store: Store, redis_url: str, tmp_path: Path
) -> None:
    """So what the malformed ones below are refused for is what is malformed in them."""
    secret = member("home/journal.key", b"ab" * 32)
    home = await restored(store, with_member(secret), tmp_path)
    with redis.Redis.from_url(redis_url) as client:
        assert len(client.keys("*")) == len(GOOD) - 1
        assert client.xlen("ar:{t}:journal") == 2
    written = [path for path in home.home.rglob("*") if path.is_file()]
    assert len(written) == 3
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_backup_is_refused_in_one_line_and_nothing_is_loaded(
    name: str, store: Store, redis_url: str, tmp_path: Path
) -> None:
    with pytest.raises(Invalid) as caught:
        await restored(store, MALFORMED[name], tmp_path)
    message = caught.value.message
    assert str(tmp_path / "b.tar.gz") in message
    assert "\n" not in message
    assert len(message) < 700
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    assert not (tmp_path / "new").exists()


# -- at random

SMALL = with_member()
HELD = [state(*GOOD), SOURCE, LOG]
UNPACKED = {info.name: content for info, content in [*HELD, manifest(HELD)]}


def checked(content: bytes, folder: Path) -> bool:
    """True if a restore would begin; what is no backup may raise `Invalid` alone."""
    file = folder / "b.tar.gz"
    file.write_bytes(content)
    try:
        with file.open("rb") as opened, service._explained(file):
            service._check(opened, Folder(HomePaths(folder / "new")))
    except Invalid:
        return False
    return True


fuzzed = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(data=st.data(), packed=st.booleans())
def test_a_backup_with_any_bytes_changed_is_taken_only_if_that_changes_nothing(
    tmp_path: Path, data: st.DataObject, packed: bool
) -> None:
    """In the packed file, or in the headers and contents below; cut off anywhere too."""
    content = bytearray(gzip.compress(SMALL, 1) if packed else SMALL)
    place = st.integers(0, len(content) - 1)
    for position in data.draw(st.lists(place, min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    del content[data.draw(place | st.just(len(content))) :]
    if checked(bytes(content) if packed else gzip.compress(content, 1), tmp_path):
        file = gzip.decompress(content) if packed else content
        with tarfile.open(fileobj=io.BytesIO(file)) as archive:
            found = {info.name: archive.extractfile(info) for info in archive}
        assert {name: file and file.read() for name, file in found.items()} == UNPACKED


texts = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
ids = st.from_regex(r"[0-9]{1,3}-[0-9]{1,3}", fullmatch=True)
OF_KIND = {
    "string": ("ar:seq", texts),
    "list": ("ar:{t}:recent", texts),
    "hash": ("ar:{t}:tag", st.tuples(texts, texts)),
    "zset": ("ar:gpus", st.tuples(texts, st.floats() | st.integers())),
    "stream": ("ar:events", st.tuples(ids, st.dictionaries(texts, texts, max_size=2))),
}


@pytest.mark.parametrize("kind", OF_KIND)
async def test_what_the_check_lets_through_redis_takes(
    kind: str, store: Store, redis_url: str
) -> None:
    """Otherwise a restore would fail half-way."""
    lines: list[bytes] = []
    name, right = OF_KIND[kind]
    members = st.lists(right, max_size=3) | st.lists(right | values, max_size=3)

    @settings(max_examples=150)
    @given(members, st.none() | st.integers(-1, 5))
    def collect(members: Any, ttl: int | None) -> None:
        lines.append(line(name, kind, members, ttl_ms=ttl))

    collect()
    taken = 0
    with redis.Redis.from_url(redis_url) as client:
        for text in lines:
            try:
                part = PartReader().read(text)
            except Invalid:
                continue
            client.flushall()
            await store.dump.restore(part)
            taken += 1
    assert taken


# -- memory


def bomb(kind: str, folder: Path) -> Path:
    """A small file that says to be large: 600 MB, or the worst that a line may be."""
    path, size = folder / "bomb.tar.gz", 600 << 20
    with gzip.open(path, "wb", compresslevel=1) as out:

        def zeros(count: int) -> None:
            for _ in range(count >> 20):
                out.write(bytes(1 << 20))

        def header(info: Member) -> None:
            out.write(info[0].tobuf(tarfile.GNU_FORMAT))

        if kind == "a line":
            header(member("state.jsonl", size=size))
            zeros(size)
        elif kind == "a dense line":
            text = b'{"key":"ar:seq","kind":"string","members":['
            text += b"[]," * ((MAX_LINE_BYTES - len(text) - 10) // 3) + b"[]]}\n"
            out.write(tar(state(text)))
        else:
            header(member("x", type=tarfile.XHDTYPE, size=size))
            zeros(size)
    return path


# Prints the command's own peak, in KB; ru_maxrss would begin with that of the process that forked.
MEASURED = """
import re, runpy, sys
from pathlib import Path
try:
    runpy.run_module("orchestrator.cli", run_name="__main__")
finally:
    print("peak", *re.findall(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()))
"""


@pytest.mark.slow  # gigabytes are written and read
@pytest.mark.parametrize("kind", ["a line", "a dense line", "a header"])
def test_a_small_file_that_unpacks_to_much_takes_little_memory(kind: str, tmp_path: Path) -> None:
    file = bomb(kind, tmp_path)
    assert file.stat().st_size < 8 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "restore", str(file)],
        env=os.environ | {"AUTORESEARCH_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "no backup that can be restored" in done.stderr
    assert "Traceback" not in done.stderr
    assert int(done.stdout.split()[-1]) < 400_000

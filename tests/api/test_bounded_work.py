"""What one caller asks for costs a bounded amount: of the service's time, and of its memory."""

import os
import random
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.services.core import limited
from tests.conftest import Api, eventually

LEVELS = 22


def nested(levels: int) -> str:
    """Each `finally` within another doubles what the compiler writes."""
    return (
        "".join(f"{' ' * n}try: 0\n{' ' * n}finally:\n" for n in range(levels)) + " " * levels + "0"
    )


def children_of_this_process() -> list[str]:
    """Command lines of the children that work on sources."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text()
        except (OSError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and "limited_child.py" in command:
            found.append(command)
    return found


def unlike(seed: int) -> str:
    """Of such a pair every line has hundreds of equal ones in the other, and no neighbour fits."""
    lines = [f"x{number % 150}\n" for number in range(60_000)]
    random.Random(seed).shuffle(lines)  # noqa: S311 - the same each time
    return "".join(lines)


def test_a_source_that_takes_gigabytes_to_compile_is_refused_and_holds_up_nobody(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered while a child process reads it."""
    monkeypatch.setattr(limited, "CPU_SECONDS", 1)
    api.tag()
    with ThreadPoolExecutor(1) as caller:
        body = {"tag": "mar11", "hypothesis": "h", "train_py": nested(LEVELS)}
        submit = caller.submit(api.http.post, "/api/experiment/submit", json=body)
        answered = 0
        while not submit.done():
            assert api.http.get("/healthz").is_success
            answered += not submit.done()
    assert submit.result().status_code == 422
    assert "to compile: nest less" in submit.result().json()["error"]
    assert answered > 3
    assert children_of_this_process() == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(:\n", "train.py line 1: "),
        ("\ufeffa = 1\nreturn a\n", "train.py line 2: 'return' outside function"),
        ("a = '\u00e9'\n\0", "null"),
        ("-" * 300_000 + "1", "train.py "),
        ("a" + ".b" * 300_000, "train.py "),
        ("(" * 300_000, "train.py "),
    ],
)
def test_a_source_that_does_not_compile_is_refused_with_what_is_wrong(
    api: Api, source: str, says: str
) -> None:
    """Whether the parser, the compiler, the recursion limit or the end of the child says so."""
    api.tag()
    answer = api.post("/api/experiment/submit", 422, tag="mar11", hypothesis="h", train_py=source)
    assert says in answer["error"]


def test_a_source_that_is_kept_is_not_compiled_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.tag()
    api.submit("'\\d'  # an odd escape is no error")
    monkeypatch.setattr(limited, "_child", None)
    api.submit("'\\d'  # an odd escape is no error", seed=2)


def test_a_diff_that_takes_too_long_is_refused_once_and_for_all(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second caller costs nothing."""
    monkeypatch.setattr(limited, "CPU_SECONDS", 1)
    api.tag()
    first, second = api.submit(unlike(1)), api.submit(unlike(2))
    path = f"/api/experiment/{second}/diff"
    assert "compare them yourself" in api.get(path, 413, against=first)["error"]
    monkeypatch.setattr(limited, "_child", None)
    assert "compare them yourself" in api.get(path, 413, against=first)["error"]


def test_a_diff_is_made_once_for_all_who_ask_for_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.tag()
    first, second = api.submit("a = 1\n"), api.submit("a = 2\n")
    started: list[str] = []
    child = limited._child

    async def counted(verb: str, *arguments: str) -> str | None:
        started.append(verb)
        return await child(verb, *arguments)

    monkeypatch.setattr(limited, "_child", counted)
    path = f"/api/experiment/{second}/diff?against={first}"
    with ThreadPoolExecutor(8) as callers:
        texts = {answer.text for answer in callers.map(api.http.get, [path] * 8)}
    assert len(texts) == 1
    assert "-a = 1\n+a = 2\n" in texts.pop()
    assert started == ["diff"]


def test_a_diff_ends_with_the_connection_of_its_caller(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "CPU_SECONDS", 3600)
    api.tag()
    first, second = api.submit(unlike(1)), api.submit(unlike(2))
    address = api.http.base_url
    with socket.create_connection((address.host, address.port)) as caller:
        caller.sendall(
            f"GET /api/experiment/{second}/diff?against={first} HTTP/1.1\r\n"
            f"Host: {address.host}\r\n\r\n".encode()
        )
        eventually(children_of_this_process)
    eventually(lambda: not children_of_this_process())

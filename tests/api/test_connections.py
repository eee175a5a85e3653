"""What a caller of whom nothing is known may hold: connections, their time, bytes of headers."""

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from orchestrator import connections
from tests.conftest import Api

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
# What is sent, what then follows every tenth of a second, how the answer begins.
SLOW = {
    "nothing": (b"", b"", b""),
    "half a line": (b"GET /hea", b"", b"HTTP/1.1 408 "),
    "headers without an end": (HEALTH, b"", b"HTTP/1.1 408 "),
    "a header byte by byte": (HEALTH + b"X: ", b"x", b"HTTP/1.1 408 "),
    "a body without an end": (POST + b"{", b"", b"HTTP/1.1 408 "),
    "a body byte by byte": (POST + b"{", b" ", b"HTTP/1.1 408 "),
    "a body of another path": (POST.replace(b"/api/login", b"/none"), b" ", b"HTTP/1.1 4"),
    "empty lines between requests": (HEALTH + b"\r\n", b"\r\n", b"HTTP/1.1 200 "),
    "half of a second request": (HEALTH + b"\r\n" + HEALTH, b"", b"HTTP/1.1 200 "),
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.5)


@contextlib.contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    where = httpx.URL(api.url)
    with socket.create_connection((where.host, where.port or 0), timeout=0.1) as caller:
        yield caller


def until_closed(caller: socket.socket, drip: bytes = b"", seconds: float = 20) -> bytes:
    """What comes before the service closes the connection, while `drip` is sent again and again."""
    answer, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            caller.sendall(drip)
            part = caller.recv(4096)
            if not part:
                return answer
            answer += part
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return answer
    pytest.fail(f"the connection stood for {seconds} s, and got {answer!r}")


@pytest.mark.parametrize("kind", SLOW)
def test_a_request_that_does_not_come_to_its_end_is_ended(api: Api, kind: str) -> None:
    begin, drip, answer = SLOW[kind]
    with connected(api) as caller:
        caller.sendall(begin)
        assert until_closed(caller, drip).startswith(answer)


def test_a_request_that_came_whole_has_all_the_time_its_answer_takes(api: Api) -> None:
    """A long poll is no slow request, and a connection may rest between two requests."""
    api.gpu()
    assert api.claim(wait=1.5) is None
    time.sleep(1)
    assert api.claim() is None


def test_headers_without_end_are_cut_off(api: Api) -> None:
    """They would be kept in memory until the deadline."""
    with connected(api) as caller:
        caller.settimeout(None)
        caller.sendall(HEALTH)
        sent = 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while sent < 100_000_000:
                sent += caller.send(b"X-More: " + b"x" * 1000 + b"\r\n")
        assert sent < 50_000_000


def test_one_address_holds_so_many_connections_and_no_more(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is told so; with one closed there is a place again."""
    monkeypatch.setattr(connections, "per_address", lambda: 20)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60)
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(connected(api)) for _ in range(20)]
        for caller in callers:
            caller.sendall(HEALTH + b"\r\n")
            caller.settimeout(20)
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
        with connected(api) as one_more:
            assert until_closed(one_more).startswith(b"HTTP/1.1 503 ")
        callers[0].close()
        with ThreadPoolExecutor(1) as waiting:
            assert waiting.submit(_served, api).result()


def _served(api: Api) -> bool:
    """True once a new connection is served; the service may see the end of the old one later."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{api.url}/healthz").is_success:
                return True
    return False

"""Proxies: what is asked directly, and one line that names the variable that is wrong."""

import socket
from pathlib import Path

import httpx
import pytest

from gpu_worker import connection
from orchestrator.cli import main
from orchestrator.errors import SetupError

FAR = "http://198.51.100.7:3111"  # nobody's address


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP", "HTTPS", "ALL", "NO"):
        monkeypatch.delenv(f"{name}_PROXY", raising=False)
        monkeypatch.delenv(f"{name.lower()}_proxy", raising=False)


def own_address() -> str:
    """An address of this machine, of which no proxy is to be asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.7", 9))
        except OSError:  # no network but loopback
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("url", "excepted"),
    [
        ("http://127.0.0.1:3111", ""),
        ("http://127.8.9.10:3111", ""),
        ("http://[::1]:3111", ""),
        ("http://localhost:3111", ""),
        ("http://0.0.0.0:3111", ""),
        (f"http://{own_address()}:3111", ""),
        (FAR, "[::1],198.51.100.0/24"),
        (FAR, "198.51.100.7"),
        ("http://[fd00::7]:3111", "localhost, [fd00::7]"),
        ("http://[fd00::7]:3111", "fd00::/8"),
        ("http://gpu.example:3111", ".example"),
        ("http://gpu.example:3111", "*"),
    ],
)
def test_these_are_reached_directly(
    url: str, excepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert connection.proxy_variable(url) is None
    assert connection.options(url, None)["proxy"] is None


@pytest.mark.parametrize("excepted", ["", "[::1]", "198.51.0.0/24", "fd00::/8,nonsense/,["])
def test_others_are_reached_through_the_proxy(
    excepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:word@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert connection.proxy_variable(FAR) == "HTTP_PROXY"
    with httpx.Client(**connection.options(FAR, "token")) as client:
        assert client.headers["authorization"] == "Bearer token"


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("HTTP_PROXY", "http://[::1", FAR),
        ("HTTP_PROXY", "gopher://proxy", FAR),
        ("HTTP_PROXY", "http://proxy:port", FAR),
        ("ALL_PROXY", "socks5://127.0.0.1:9", FAR),
        ("SSL_CERT_FILE", "/nonexistent", FAR.replace("http", "https")),
        ("SSL_CERT_FILE", __file__, FAR.replace("http", "https")),
        ("AUTORESEARCH_TOKEN", "schlüssel", FAR),
        ("AUTORESEARCH_TOKEN", "two\nlines", FAR),
        ("AUTORESEARCH_ORCHESTRATOR", "http://[::1", ""),
        ("AUTORESEARCH_ORCHESTRATOR", "http://host:port", ""),
        ("AUTORESEARCH_ORCHESTRATOR", "http://", ""),
        ("AUTORESEARCH_ORCHESTRATOR", "http://a b", ""),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_in_one_line(
    variable: str,
    value: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connection, "find_spec", lambda _: None)  # as without the SOCKS package
    monkeypatch.setenv("AUTORESEARCH_ORCHESTRATOR", url)
    monkeypatch.setenv(variable, value)
    assert main(["status"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert variable in line
    if url and variable != "AUTORESEARCH_TOKEN":
        with pytest.raises(SetupError, match=variable):
            connection.options(url, None)


def test_a_proxy_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert main(["status", "--orchestrator", FAR]) == 3
    assert "through HTTP_PROXY" in capsys.readouterr().err

"""A taken port: who has it, as far as that can be told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.run.process import listen, url_of


@contextmanager
def web_server(body: bytes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (json.dumps({"status": "ok", "service": "autoresearch"}).encode(), "another autoresearch"),
        (b"<html>hello</html>", "another web server"),
        (b'{"status": "ok"}', "another web server"),
    ],
)
def test_whoever_answers_is_named(body: bytes, words: str) -> None:
    with web_server(body) as port, pytest.raises(ConfigError, match=words) as caught:
        listen("127.0.0.1", port)
    assert "--port 0" in caught.value.message


def test_port_0_takes_a_free_port_and_the_url_says_which() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockname()[1] > 0


def test_a_server_on_all_addresses_is_reached_on_loopback() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(ConfigError, match="--host"):
        listen("no-such-host.invalid", 0)
    with pytest.raises(ConfigError, match="cannot listen"):
        listen("192.0.2.1", 0)

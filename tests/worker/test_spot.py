"""The notice that a spot machine goes: from a file, from AWS and from GCP, over real HTTP."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest
from pydantic import ValidationError

from gpu_worker import spot
from gpu_worker.settings import WorkerSettings
from tests.worker.conftest import BLOCK, GPU_ID, SLEEP, WAIT, Host, eventually
from tests.worker.stub import Stub

AWS, GCP = "/latest/meta-data/spot/instance-action", "/computeMetadata/v1/instance/preempted"


class Metadata:
    """A cloud's metadata server: 404 until `pages` has the path."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.token: str | None = None  # that AWS's second version asks for
        self.broken, self.slow_seconds = False, 0.0
        self.asked = 0
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_PUT(self) -> None:
                lasting = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
                known = self.path == "/latest/api/token" and lasting
                self._answer(200 if known else 404, metadata.token or "")

            def do_GET(self) -> None:
                metadata.asked += 1
                text, google = metadata.pages.get(self.path), self.path.startswith("/computeMeta")
                time.sleep(metadata.slow_seconds)
                if metadata.broken:
                    self._answer(500, "")
                elif google and self.headers["Metadata-Flavor"] != "Google":
                    self._answer(403, "Missing Metadata-Flavor:Google header.")
                elif metadata.token not in (None, self.headers["X-aws-ec2-metadata-token"]):
                    self._answer(401, "Unauthorized")
                else:
                    self._answer(404 if text is None else 200, text or "Not Found")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    server = Metadata()
    yield server
    server.server.shutdown()
    server.server.server_close()


def action(seconds: float) -> str:
    """AWS's notice that the machine is taken in so many seconds."""
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return f'{{"action": "terminate", "time": "{at:%Y-%m-%dT%H:%M:%SZ}"}}'


def left(url: str) -> float | None:
    async def ask() -> float | None:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await spot.seconds_left(url, http)

    return anyio.run(ask)


@pytest.mark.parametrize("token", [None, "AQAE"], ids=["version 1", "version 2"])
def test_aws_answers_404_until_it_names_the_time(metadata: Metadata, token: str | None) -> None:
    metadata.token = token
    assert left(metadata.url + AWS) is None
    metadata.pages[AWS] = action(60)
    assert 50 < (left(metadata.url + AWS) or 0) <= 60


def test_gcp_answers_false_until_half_a_minute_before_the_end(metadata: Metadata) -> None:
    metadata.pages[GCP] = "FALSE"
    assert left(metadata.url + GCP) is None
    metadata.pages[GCP] = "TRUE"
    assert left(metadata.url + GCP) == 30


def test_a_file_is_a_notice_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """Also an empty one; one with a time counts by that."""
    file = tmp_path / "a notice"
    url = file.as_uri()
    assert left(url) is None
    file.touch()
    assert left(url) == 30
    file.write_text(action(90))
    assert 80 < (left(url) or 0) <= 90


def test_a_notice_with_an_impossible_time_counts_as_one_without(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    file.write_text('{"action": "terminate", "time": "2026-11-31T24:61:00Z"}')
    assert left(file.as_uri()) == 30


def test_a_clock_that_is_an_hour_off_gives_no_run_an_hour(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    for hours, expected in ((1, 120), (-1, 0)):
        file.write_text(action(3600 * hours))
        assert left(file.as_uri()) == expected


def test_an_answer_that_is_none_is_told_apart_from_no_notice(metadata: Metadata) -> None:
    metadata.broken = True
    with pytest.raises(spot.Unreadable, match="500"):
        left(metadata.url + AWS)
    with pytest.raises(spot.Unreadable, match="ConnectError"):
        left("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    "url", ["file://host/notice", "file:notice", "/notice", "http://", "ftp://a"]
)
def test_a_notice_that_is_no_file_and_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"file:///run/spot-notice or http://"):
        WorkerSettings(spot_notice=url)


@pytest.mark.slow
def test_a_spot_notice_hands_back_a_run_that_cannot_end_in_the_time_left(
    host: Host, stub: Stub, metadata: Metadata
) -> None:
    """Long before the drain's own time is over. The machine is left with nothing, exit code 0."""
    run = stub.submit(SLEEP)
    worker = host.start(spot_notice=metadata.url + AWS, drain_timeout=600)
    stub.wait_for(lambda: run in stub.logs)
    asked = metadata.asked
    stub.wait_for(lambda: metadata.asked > asked)
    assert run not in stub.finished, "404 is no notice"
    metadata.pages[AWS] = action(8)  # two for the run: the rest is for its end and the report
    assert worker.wait(30) == 0
    assert stub.finished[run]["outcome"] == "handed_back"
    assert stub.deregistered == [GPU_ID]
    assert host.processes() == {}


@pytest.mark.slow
def test_a_run_that_ends_in_the_time_left_counts_and_no_other_begins(
    host: Host, stub: Stub
) -> None:
    notice = host.home / "notice"
    run = stub.submit(WAIT + BLOCK)
    stub.submit(BLOCK)
    worker = host.start(spot_notice=notice.as_uri())
    stub.wait_for(lambda: run in stub.logs)
    notice.touch()
    stub.wait_for(lambda: stub.is_draining(GPU_ID))
    host.release(run)
    assert worker.wait() == 0
    assert stub.finished[run]["outcome"] == "completed"
    assert list(stub.leases) == [run]


@pytest.mark.slow
def test_a_worker_that_is_started_again_on_a_machine_that_goes_takes_no_run(
    host: Host, stub: Stub, metadata: Metadata
) -> None:
    """It waits for the first answer, which may take a while."""
    stub.submit(BLOCK)
    metadata.pages[GCP], metadata.slow_seconds = "TRUE", 1.0
    assert host.start(spot_notice=metadata.url + GCP).wait() == 0
    assert stub.leases == {}


@pytest.mark.slow
def test_a_notice_that_cannot_be_read_is_logged_once_and_stops_nothing(
    host: Host, stub: Stub, metadata: Metadata
) -> None:
    metadata.broken = True
    host.start(spot_notice=metadata.url + AWS)
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    eventually(lambda: metadata.asked >= 4)
    assert host.log.count("no spot notice can be read") == 1

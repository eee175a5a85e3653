"""Downloading climbmix, against a real server on the loopback that misbehaves on demand."""

import _thread
import collections
import re
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpus
import download
import prepare
from bench.harness.ports import free_port
from download import shard_name
from prepare import VALIDATION_SHARD, PrepareError


def parquet_bytes(seed: int, **columns: list[str]) -> bytes:
    """A shard of some 100 kB: incompressible text, so that it takes several reads."""
    texts = [f"{seed} {i} " + "x" * (i % 50) for i in range(4000)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns or {"text": texts}), sink, compression=None)
    return sink.getvalue().to_pybytes()


class Hub(ThreadingHTTPServer):
    """Serves `files` with ranges. `faults[name]` lists what goes wrong, one entry per download.

    "503", "drop" (half of it, then the connection closes), "stall" (half of it, then silence),
    "whole" (ignores the range). Requests for one byte only ask for the size: they never fail.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {shard_name(i): parquet_bytes(i) for i in range(3)}
        self.files[VALIDATION_SHARD] = parquet_bytes(99)
        self.faults: dict[str, list[str]] = collections.defaultdict(list)
        self.ranges: list[tuple[str, int]] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is expected here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # one request per connection: its end is visible to the client
    server: Hub

    def log_message(self, *_args) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/resolve/"):
            self.send_response(302)
            self.send_header("Location", f"/{name}")
            self.end_headers()
            return
        body = self.server.files.get(name)
        if body is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"])
        start, last = int(asked[1]), int(asked[2] or len(body) - 1)
        probe = asked[2] != ""
        if not probe:
            self.server.ranges.append((name, start))
        faults = self.server.faults[name]
        self.answer(body, start, last, "" if probe or not faults else faults.pop(0))

    def answer(self, body: bytes, start: int, last: int, fault: str) -> None:
        if fault == "503":
            self.send_error(503)
            return
        if fault == "whole":
            self.send_response(200)
            start, last = 0, len(body) - 1
        else:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(body)}")
        part = body[start : last + 1]
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if fault in ("drop", "stall") else part)
        self.wfile.flush()
        if fault == "stall":
            self.server.stalled.set()
            self.server.go_on.wait(20)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    # The tokenizer has its own tests, and these shards are too small for one.
    monkeypatch.setattr(corpus, "prepare_tokenizer", lambda: None)
    monkeypatch.setattr(corpus, "prepare_tokens", lambda: None)
    server = Hub()
    monkeypatch.setenv("AUTORESEARCH_HUB", server.url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def data(tmp_path):
    return tmp_path / "cache" / "data"


def climbmix(*more: str) -> int:
    return prepare.main(["--source", "climbmix", "--num-shards", "2", *more])


def wait_for_threads(earlier: list[threading.Thread]) -> None:
    """Downloads beside the one that ended a call may go on; a process takes them along."""
    for thread in threading.enumerate():
        if thread not in earlier:
            thread.join(20)
            assert not thread.is_alive()


def assert_complete(hub: Hub, data, shards: int = 2) -> None:
    names = [*map(shard_name, range(shards)), VALIDATION_SHARD]
    for name in names:
        assert (data / name).read_bytes() == hub.files[name]
    assert sorted(p.name for p in data.iterdir()) == ["manifest.json", *names]
    assert prepare.Manifest.require().source == "climbmix"


def test_shards_and_the_pinned_validation_shard_arrive(hub, data):
    """`--num-shards 2` gives two to train on and the last one of the dataset to validate."""
    assert climbmix() == 0
    assert_complete(hub, data)


def test_a_corpus_that_lacks_nothing_is_left_untouched(hub, data):
    """Not even its manifest is written again: the cache may be a share that can only be read."""
    assert climbmix() == 0
    before = {path: path.stat().st_ino for path in data.iterdir()}
    assert climbmix() == 0
    assert {path: path.stat().st_ino for path in data.iterdir()} == before


@pytest.mark.parametrize(
    ("profile", "budget", "shards"), [("cpu", 20.0, 1), ("24gb", 300.0, 3), ("80gb", 600.0, 22)]
)
def test_by_default_as_many_shards_come_as_a_run_reads_once(monkeypatch, profile, budget, shards):
    monkeypatch.setattr(prepare, "PROFILE", prepare.select_profile(profile, None))
    monkeypatch.setattr(prepare, "TIME_BUDGET", budget)
    assert download.default_shards() == shards


@pytest.mark.parametrize("fault", ["503", "drop", "whole"])
def test_a_fault_is_retried(hub, data, fault):
    """A busy server, a lost connection, a server without ranges: the next attempt heals it."""
    for name in hub.files:
        hub.faults[name] += [fault, "drop", fault]
    assert climbmix() == 0
    assert_complete(hub, data)


def test_a_lost_connection_is_resumed_where_it_broke(hub, data):
    """What has arrived is not fetched again."""
    name = shard_name(0)
    hub.faults[name] = ["drop"]
    assert climbmix() == 0
    assert [start for n, start in hub.ranges if n == name] == [0, len(hub.files[name]) // 2]
    assert_complete(hub, data)


def test_a_server_that_ignores_ranges_does_not_corrupt_a_resumed_file(hub, data):
    """Half a file and then a whole one are not a file and a half."""
    hub.faults[shard_name(1)] = ["drop", "whole"]
    assert climbmix() == 0
    assert_complete(hub, data)


def test_a_redirection_keeps_the_range(hub, data, monkeypatch):
    """The real hub sends clients on to a content network; resuming must work through that."""
    monkeypatch.setenv("AUTORESEARCH_HUB", f"{hub.url}/resolve/")
    name = shard_name(0)
    hub.faults[name] = ["drop"]
    assert climbmix() == 0
    assert [start for n, start in hub.ranges if n == name] == [0, len(hub.files[name]) // 2]
    assert_complete(hub, data)


def test_a_later_run_resumes_an_earlier_one(hub, data):
    """Partial files outlive the process; here they were left by one that gave up."""
    name = shard_name(0)
    hub.faults[name] = ["drop"] + ["503"] * download.ATTEMPTS
    earlier = threading.enumerate()
    assert climbmix() == 1
    wait_for_threads(earlier)
    assert not (data / name).exists()
    hub.ranges.clear()
    assert prepare.main([]) == 0
    assert (name, len(hub.files[name]) // 2) in hub.ranges
    assert_complete(hub, data)


def test_a_partial_file_longer_than_the_shard_starts_over(hub, data):
    """A leftover that cannot be a beginning of the shard is thrown away."""
    data.mkdir(parents=True)
    (data / (shard_name(0) + ".part")).write_bytes(b"x" * 10**6)
    assert climbmix() == 0
    assert_complete(hub, data)


def test_a_server_that_keeps_failing_is_given_up(hub, data, capsys):
    """After a few attempts without progress the run ends, says why, and leaves no false shard."""
    hub.faults[VALIDATION_SHARD] = ["503"] * download.ATTEMPTS
    assert climbmix() == 1
    assert "HTTP 503" in capsys.readouterr().err
    assert not (data / VALIDATION_SHARD).exists()


def test_a_missing_shard_is_no_reason_to_retry(hub, data, capsys):
    """404 will not get better: the run ends at once and names the address."""
    del hub.files[shard_name(1)]
    assert climbmix() == 1
    assert f"{hub.url}/shard_00001.parquet: HTTP 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body", [b"<html>Log in to this network</html>", parquet_bytes(0, words=["a"])]
)
def test_what_is_no_shard_does_not_become_one(hub, data, body, capsys):
    """A log-in page of a proxy, or a parquet file without text, never gets a shard's name."""
    hub.files[shard_name(0)] = body
    assert climbmix() == 1
    assert "no parquet file with a `text` column" in capsys.readouterr().err
    assert not list(data.glob("shard_00000*"))


def test_a_complete_cache_needs_no_network(hub, data):
    """A second run asks the hub nothing; a lost shard alone is fetched again."""
    assert climbmix() == 0
    hub.ranges.clear()
    assert prepare.main([]) == 0
    assert hub.ranges == []
    (data / shard_name(1)).unlink()
    assert prepare.main([]) == 0
    assert hub.ranges == [(shard_name(1), 0)]
    assert_complete(hub, data)


def test_more_shards_can_be_added(hub, data):
    """Only the new one is downloaded."""
    assert climbmix() == 0
    hub.ranges.clear()
    assert prepare.main(["--num-shards", "3"]) == 0
    assert hub.ranges == [(shard_name(2), 0)]
    assert_complete(hub, data, shards=3)


def test_shards_of_another_program_are_kept_if_their_size_is_right(hub, data):
    """autoresearch keeps its shards in the same folder, without our manifest."""
    data.mkdir(parents=True)
    (data / shard_name(0)).write_bytes(hub.files[shard_name(0)])
    (data / shard_name(1)).write_bytes(b"half a shard")
    assert climbmix() == 0
    assert shard_name(0) not in [name for name, _ in hub.ranges]
    assert_complete(hub, data)


def test_ctrl_c_leaves_no_half_file_and_the_next_run_goes_on(hub, data, capsys):
    """It ends at once, though the server is silent, with one line and status 130."""
    name = shard_name(0)
    hub.faults[name] = ["stall"]

    def interrupt() -> None:
        hub.stalled.wait(10)
        _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    earlier = threading.enumerate()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert climbmix() == 130
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not hub.go_on.is_set()
    assert "Interrupted" in capsys.readouterr().out.splitlines()[-1]
    assert not (data / name).exists()
    hub.go_on.set()
    wait_for_threads(earlier)
    assert prepare.main([]) == 0
    assert_complete(hub, data)


def test_progress_on_a_terminal_is_one_line(hub, data, capsys, monkeypatch):
    """Shards and megabytes, rewritten in place."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert climbmix() == 0
    line = next(line for line in capsys.readouterr().out.split("\n") if "\r" in line)
    assert line.rstrip().endswith("3 of 3 shards, 0 MB")


def write_folder(folder) -> None:
    folder.mkdir()
    for i in range(30):
        lines = [f"line {n} of file {i} {n * i}" for n in range(2000)]
        (folder / f"{i}.txt").write_text("\n".join(lines))


@pytest.fixture
def closed_port(hub) -> str:
    """The address of a hub that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


def test_an_unreachable_hub_leads_to_the_offline_corpus(
    hub, closed_port, tmp_path, monkeypatch, capsys
):
    """Without --source: said plainly, and what it means for val_bpb too."""
    write_folder(tmp_path / "lib")
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda _: str(tmp_path / "lib"))
    monkeypatch.setenv("AUTORESEARCH_HUB", closed_port)
    assert prepare.main([]) == 0
    assert prepare.Manifest.require().source == "offline"
    said = capsys.readouterr().out
    assert "cannot be reached" in said
    assert "compares only with itself" in said


def test_a_hub_that_never_answers_is_given_up_within_seconds(hub, monkeypatch):
    """Neither a silent server nor a silent name service is waited for."""
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AUTORESEARCH_HUB", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert download.hub_error() is not None


def test_climbmix_that_was_asked_for_is_not_replaced_by_something_else(
    hub, closed_port, data, monkeypatch, capsys
):
    """With --source climbmix and no network there is an error, not another corpus."""
    monkeypatch.setenv("AUTORESEARCH_HUB", closed_port)
    assert climbmix() == 1
    assert "--source offline" in capsys.readouterr().err
    assert not data.exists()


def test_an_interrupted_download_is_not_replaced_by_something_else(
    hub, closed_port, data, monkeypatch, capsys
):
    """Once climbmix was begun, a run without a network says what is missing and changes nothing."""
    hub.faults[shard_name(1)] = ["503"] * download.ATTEMPTS
    assert climbmix() == 1
    monkeypatch.setenv("AUTORESEARCH_HUB", closed_port)
    assert prepare.main([]) == 1
    assert "are to be downloaded" in capsys.readouterr().err
    assert prepare.Manifest.load().source == "climbmix"


def test_force_without_a_network_destroys_nothing(hub, closed_port, data, monkeypatch):
    """What would replace the data is looked for first."""
    assert climbmix() == 0
    monkeypatch.setenv("AUTORESEARCH_HUB", closed_port)
    assert climbmix("--force") == 1
    assert_complete(hub, data)


def test_only_web_addresses_are_hubs(hub, monkeypatch):
    """urllib would open file:// as well."""
    monkeypatch.setenv("AUTORESEARCH_HUB", "file:///etc")
    with pytest.raises(PrepareError, match="http://"):
        download.shard_url("passwd")

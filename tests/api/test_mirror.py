"""The mirror's loop, against a real orchestrator: each decided run once, through all faults."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cli import main, mirror
from orchestrator.cli.client import Client
from orchestrator.cli.errors import CommandError
from orchestrator.cli.mirror import Mirror, Place, SinkAwayError
from orchestrator.cli.mlflow_sink import metrics_of, params_of, tags_of
from orchestrator.schemas import ExperimentDetail
from tests import hostile_log as hostile
from tests.conftest import Api, eventually


class Shelf:
    """A sink in memory; `away` makes it fail so many times."""

    def __init__(self) -> None:
        self.held: dict[str, ExperimentDetail] = {}
        self.puts: list[str] = []
        self.away = 0

    def known(self, tag: str) -> set[str]:
        self._fail()
        return {name for name, detail in self.held.items() if detail.tag == tag}

    def put(self, detail: ExperimentDetail) -> bool:
        self._fail()
        self.puts.append(detail.id)
        new = detail.id not in self.held
        self.held.setdefault(detail.id, detail)
        return new

    def _fail(self) -> None:
        if self.away:
            self.away -= 1
            raise SinkAwayError("The shelf is locked.")


class StoppedError(Exception):
    pass


class StoppableClient(Client):
    """A client whose event stream another thread can end, without another attempt."""

    stopped = False
    response: httpx.Response | None = None

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        if self.stopped:
            raise StoppedError
        with super().stream(path, **options) as self.response:
            yield self.response

    def stop(self) -> None:
        self.stopped = True
        if self.response is not None:
            connection = self.response.extensions["network_stream"].get_extra_info("socket")
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)


class Following:
    """A mirror that follows on a thread of its own, as the command does in a process."""

    def __init__(self, api: Api, shelf: Shelf, place: Place, *tags: str) -> None:
        self._client = StoppableClient(api.url)
        self.mirror = Mirror(self._client, shelf, place, frozenset(tags), lambda _: None)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        with suppress(StoppedError):
            self.mirror.follow()

    def stop(self) -> None:
        self._client.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._client._http.close()


Start = Callable[..., Following]


@pytest.fixture
def start(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(mirror, "_PAUSES", (0.05,))
    running: list[Following] = []

    def start_(shelf: Shelf, place: Place, *tags: str) -> Following:
        running.append(Following(api, shelf, place, *tags))
        return running[-1]

    yield start_
    for following in running:
        following.stop()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "mirrors").mkdir()
    return Place(tmp_path / "mirrors" / "x.json")


def test_what_was_decided_before_and_what_is_decided_after_is_mirrored(
    api: Api, start: Start, place: Place
) -> None:
    shelf = Shelf()
    api.tag()
    before = api.register()
    api.complete(before, 1.0)
    running = api.register()
    start(shelf, place)
    eventually(lambda: before in shelf.held)
    api.crash(running)
    eventually(lambda: running in shelf.held)
    assert set(shelf.held) == {before, running}
    assert eventually(place.read)


def test_a_mirror_that_was_away_goes_on_where_it_was(api: Api, start: Start, place: Place) -> None:
    """It looks at what was decided meanwhile, and at nothing else."""
    shelf = Shelf()
    api.tag()
    first = api.register()
    api.complete(first, 1.0)
    following = start(shelf, place)
    eventually(lambda: first in shelf.held)
    eventually(place.read)
    following.stop()
    second = api.register()
    api.complete(second, 0.9)
    start(shelf, place)
    eventually(lambda: second in shelf.held)
    assert shelf.puts == [first, second]


def test_where_events_were_cut_off_the_sink_is_compared(
    api: Api, start: Start, place: Place
) -> None:
    """A place from another life of Redis is before the first event that is left."""
    shelf = Shelf()
    api.tag()
    done = [api.register() for _ in range(3)]
    for number, name in enumerate(done):
        api.complete(name, 1.0 - number / 10)
    place.write("1-0")
    start(shelf, place)
    eventually(lambda: set(shelf.held) == set(done))


def test_a_sink_that_is_away_is_waited_for(
    api: Api, start: Start, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf()
    shelf.away = 3
    api.tag()
    name = api.register()
    api.complete(name, 1.0)
    start(shelf, place)
    eventually(lambda: name in shelf.held)
    assert capsys.readouterr().err.count("The shelf is locked. Waiting for it.") == 1


def test_only_the_tags_that_were_named_and_nothing_that_was_cancelled(
    api: Api, start: Start, place: Place
) -> None:
    shelf = Shelf()
    api.tag("a")
    api.tag("b")
    other, mine = api.register("b"), api.register("a")
    api.complete(other, 1.0)
    cancelled = api.submit("print()", "a")
    api.post(f"/api/experiment/{cancelled}/cancel")
    api.complete(mine, 1.0)
    start(shelf, place, "a")
    eventually(lambda: mine in shelf.held)
    late = api.register("a")
    api.complete(late, 1.0)
    eventually(lambda: late in shelf.held)
    assert set(shelf.held) == {mine, late}


def test_two_mirrors_between_the_same_two_exclude_each_other(place: Place) -> None:
    with place.held(), pytest.raises(CommandError, match="another mirror"), place.held():
        pass
    with place.held():
        pass


def test_a_place_that_cannot_be_read_is_no_place(place: Place, tmp_path: Path) -> None:
    assert place.read() is None
    (tmp_path / "mirrors" / "x.json").write_text("{")
    assert place.read() is None
    place.write("5-1")
    assert place.read() == "5-1"


def test_without_the_extra_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["mirror", "mlflow", "--tracking-uri", "http://127.0.0.1:9"]) == 2
    assert "n-autoresearch[mlflow]" in capsys.readouterr().err


def test_what_mlflow_is_told_of_a_run_is_harmless_and_complete(api: Api) -> None:
    words = hostile.RUN_LOG.decode(errors="replace")[:3000]
    api.tag()
    first, second = api.register(), api.register(hypothesis=words, description=words)
    api.complete(first, 1.0)
    api.complete(second, 0.75, depth=8)
    with Client(api.url) as client:
        detail = client.experiment(second)
    for text in (*tags_of(detail).values(), *params_of(detail).values()):
        hostile.assert_harmless(text)
    assert tags_of(detail)["autoresearch.id"] == second
    values = {name: value for name, value, _, _ in metrics_of(detail)}
    assert values == {"val_bpb": 0.75, "improvement": 0.25, "depth": 8.0}


@pytest.mark.parametrize(("trained", "seconds"), [(30.0, 30), (None, 300)])
def test_mlflow_s_curve_lasts_as_long_as_the_run_trained(
    api: Api, trained: float | None, seconds: int
) -> None:
    """Which is less than its budget of 300 s where its text ended first."""
    api.tag()
    done = api.register()
    api.complete(done, 1.0, **({} if trained is None else {"training_seconds": trained}))
    with Client(api.url) as client:
        detail = client.experiment(done)
    ends = [{"step": 0, "percent": 0.0, "loss": 9.0}, {"step": 99, "percent": 100.0, "loss": 3.0}]
    detail = type(detail).model_validate(detail.model_dump() | {"curve": ends})
    first, last = (at for name, _, at, _ in metrics_of(detail) if name == "loss")
    assert last - first == 1000 * seconds

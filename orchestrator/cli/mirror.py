"""`autoresearch mirror`: decided runs, handed to another program after the fact, at least once.

A process of its own that only reads, so no failure of it disturbs the search. The position is
written after the run is in the sink: a mirror that dies between the two hands the run over again,
and sinks keep a run once. Where events are missing (no position yet, or they were cut off), the
mirror compares ids to find what the sink lacks.
"""

import fcntl
import hashlib
import json as jsonlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from gpu_worker.durable import write_durably
from orchestrator.cli.client import Client, retried
from orchestrator.cli.errors import ApiError, CommandError, UnreachableError
from orchestrator.cli.events import Event, Follower, Live, Lost, Missed
from orchestrator.cli.options import add_command, load
from orchestrator.cli.output import answer, note, write_json
from orchestrator.cli.run.process import interruptible
from orchestrator.domain import FINISHED
from orchestrator.schemas import ExperimentDetail, ExportPage
from orchestrator.settings import HomeSettings

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)

T = TypeVar("T")


class SinkAwayError(Exception):
    """The sink cannot be reached now, or not properly; the call is tried again."""


class Sink(Protocol):
    """Where runs are mirrored to. Both raise SinkAwayError."""

    def known(self, tag: str) -> set[str]:
        """Ids of the experiments of a tag that are there, whole."""

    def put(self, detail: ExperimentDetail) -> bool:
        """Store this run once; True if it was not there before."""


class Place:
    """The last event whose run has been mirrored, on disk. Read and write it only inside `held`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """CommandError if another mirror between the same two runs on this machine."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CommandError(
                    f"another mirror to there runs already (it holds {lock.name})"
                ) from error
            yield

    def read(self) -> str | None:
        """The event's id; None if unknown."""
        try:
            return str(jsonlib.loads(self._path.read_text())["event"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, event_id: str) -> None:
        write_durably(self._path, jsonlib.dumps({"event": event_id}).encode())


class Mirror:
    """`tags` empty stands for all; `say` gets each run that was mirrored."""

    def __init__(
        self,
        client: Client,
        sink: Sink,
        place: Place,
        tags: frozenset[str],
        say: Callable[[ExperimentDetail], None],
    ) -> None:
        self._client = client
        self._sink = sink
        self._place = place
        self._tags = tags
        self._say = say
        self.count = 0
        self.follower = Follower(client, since=place.read())

    def catch_up(self) -> None:
        """Mirror every decided run that the sink lacks."""
        for tag in _retried(self._client.tags):
            if not self._wants(tag.name):
                continue
            known = _retried(partial(self._sink.known, tag.name))
            page: ExportPage | None = None
            while page is None or page.next_after is not None:
                after = page.next_after if page else None
                page = _retried(partial(self._client.export_page, tag.name, after=after))
                for row in page.rows:
                    if row.status in FINISHED and row.id not in known:
                        self._put(row.id)

    def follow(self) -> None:
        """Mirror without end."""
        complete = self.follower.last_id is not None
        for sign in self.follower:
            if isinstance(sign, Lost):
                note(f"{sign.why}; trying again")
            elif isinstance(sign, Missed) or (isinstance(sign, Live) and not complete):
                begun_at = self.follower.last_id
                self.catch_up()
                complete = True
                if begun_at is not None:
                    self._place.write(begun_at)
            elif isinstance(sign, Event) and sign.kind == "decided":
                if self._wants(sign.tag):
                    self._put(sign.subject)
                self._place.write(sign.id)

    def _wants(self, tag: str) -> bool:
        return not self._tags or tag in self._tags

    def _put(self, experiment_id: str) -> None:
        try:
            detail = _retried(partial(self._client.experiment, experiment_id))
        except ApiError as error:  # the event is of an earlier Redis
            note(f"{experiment_id} is left out: {error.message}")
            return
        if detail.status in FINISHED and _retried(partial(self._sink.put, detail)):
            self.count += 1
            self._say(detail)


def _retried(call: Callable[[], T]) -> T:
    """The answer, after any time that the orchestrator or the sink is away."""
    errors = (UnreachableError, SinkAwayError)
    return retried(call, seconds=math.inf, pauses=_PAUSES, errors=errors)


mirror = typer.Typer(
    name="mirror", help="Tell decided runs to other programs, after the fact.", no_args_is_help=True
)


@mirror.callback()
def _only_commands() -> None:
    """Without a callback Typer takes the one command for the group itself."""


def mlflow(
    client: Client,
    *,
    tracking_uri: Annotated[
        str,
        typer.Option(envvar="MLFLOW_TRACKING_URI", metavar="URI", help="MLflow's server."),
    ],
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only this one; may be repeated.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Begins the name of each MLflow experiment, one for each tag.")
    ] = "autoresearch/",
    sources: Annotated[
        bool, typer.Option("--sources", help="Each train.py as an artifact of its run.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Mirror what is decided now, and end.")
    ] = False,
    json: bool,
) -> None:
    """It only reads, and remembers how far it came; each run becomes one MLflow run."""
    from orchestrator.cli.mlflow_sink import MlflowSink

    def say(detail: ExperimentDetail) -> None:
        fact: dict[str, Any] = {"experiment_id": detail.id, "status": detail.status}
        write_json(fact) if json else note(f"{detail.id} {detail.status}")

    sink = MlflowSink(tracking_uri, prefix, client.source if sources else None)
    # A hash, because the URLs may have a password.
    between = f"{client.url}\n{tracking_uri} {prefix} {tag}"
    digest = hashlib.sha256(between.encode()).hexdigest()[:16]
    paths = load(HomeSettings).paths
    paths.make_private()
    place = Place(paths.mirror(f"mlflow-{digest}"))
    client.tags()  # a missing orchestrator or a wrong token fails at once
    with place.held():
        runs = Mirror(client, sink, place, frozenset(tag or ()), say)
        with suppress(KeyboardInterrupt), interruptible():
            runs.catch_up() if once else runs.follow()
    if not json:
        answer(f"{runs.count} runs mirrored")


add_command(
    mirror, mlflow, "Mirror every decided run to MLflow, and go on with each verdict until stopped."
)

"""Follows the orchestrator's events and hands each decided run to a sink, at least once.

The place is written down after the run is in the sink, so a mirror that dies between the two hands
the run over again: sinks take a run twice and keep it once. Where the events do not tell all (no
place yet, or they were cut off), what the sink lacks is found by comparing ids.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from orchestrator.cli.client import Client
from orchestrator.cli.errors import ApiError, UnreachableError
from orchestrator.cli.events import Event, Follower, Live, Lost, Missed
from orchestrator.cli.mirroring.place import Place
from orchestrator.cli.output import note
from orchestrator.schemas import ExperimentDetail

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
# The words of results.tsv: what was cancelled was not decided.
_MIRRORED = frozenset({"keep", "discard", "crash", "timeout"})

T = TypeVar("T")


class SinkAwayError(Exception):
    """The sink cannot be reached now, or not properly; it is tried again."""


class Sink(Protocol):
    """Where runs are mirrored to. Both raise SinkAwayError."""

    def known(self, tag: str) -> set[str]:
        """Ids of the experiments of a tag that are there, whole."""

    def put(self, detail: ExperimentDetail) -> bool:
        """Have this run there once; whether it was not there before."""


class Mirror:
    def __init__(
        self,
        client: Client,
        sink: Sink,
        place: Place,
        tags: frozenset[str],
        say: Callable[[ExperimentDetail], None],
    ) -> None:
        """`tags` empty stands for all; `say` hears of each run that was mirrored. `follower` is
        what ends `follow`, from another thread."""
        self._client = client
        self._sink = sink
        self._place = place
        self._tags = tags
        self._say = say
        self.count = 0
        self.follower = Follower(client, since=place.read())

    def catch_up(self) -> None:
        """Mirror every decided run that the sink lacks."""
        for tag in _persistently(self._client.tags):
            if not self._wants(tag.name):
                continue
            known = _persistently(partial(self._sink.known, tag.name))
            after: str | None = None
            while True:
                page = _persistently(partial(self._client.export_page, tag.name, after=after))
                for row in page.rows:
                    if row.status in _MIRRORED and row.id not in known:
                        self._put(row.id)
                after = page.next_after
                if after is None:
                    break

    def follow(self) -> None:
        """Mirror for ever."""
        whole = self.follower.last_id is not None
        for sign in self.follower:
            if isinstance(sign, Lost):
                note(f"{sign.why}; trying again")
                continue
            if isinstance(sign, Missed) or (isinstance(sign, Live) and not whole):
                begun_at = self.follower.last_id
                self.catch_up()
                whole = True
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
            detail = _persistently(partial(self._client.experiment, experiment_id))
        except ApiError as error:  # it is gone: the events of another Redis' life
            note(f"{experiment_id} is left out: {error.message}")
            return
        if detail.status in _MIRRORED and _persistently(partial(self._sink.put, detail)):
            self.count += 1
            self._say(detail)


def _persistently(call: Callable[[], T]) -> T:
    """The answer, however long either side is away."""
    tries = 0
    while True:
        try:
            return call()
        except (UnreachableError, SinkAwayError) as error:
            if not tries:
                note(f"{error} Waiting for it.")
        time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
        tries += 1

"""Keeps a view up to date in the background: by events, and while runs train by a glance every two
seconds, because progress makes no events."""

import queue
import threading
import time

from orchestrator.cli.errors import CommandError, UnreachableError
from orchestrator.cli.events import Event, Follower, Live, Lost, Missed, Sign
from orchestrator.cli.watching.gather import Gatherer, View

# A burst of events is one look.
LOOK_SECONDS = 1.0
GLANCE_SECONDS = 2.0
IDLE_GLANCE_SECONDS = 5.0
# A reading older than this is no longer taken for the present.
STALE_SECONDS = 12.0


class Watcher:
    """`view` and `stale` are what is known now; `changed` is set when they change. Use as a context
    manager; `failure` is why it gave up, if it did."""

    def __init__(self, gatherer: Gatherer, follower: Follower, view: View) -> None:
        self.view = view
        self.changed = threading.Event()
        self.failure: CommandError | None = None
        self._gatherer = gatherer
        self._follower = follower
        self._signs: queue.Queue[Sign | None] = queue.Queue()
        self._trouble = ""
        self._streaming = False
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._listen, self._keep_up)
        ]

    def __enter__(self) -> "Watcher":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._signs.put(None)
        self._follower.stop()

    @property
    def stale(self) -> str:
        """Why the view may not be the present; empty if it is."""
        if self._trouble:
            return self._trouble
        late = time.time() - self.view.as_of > STALE_SECONDS
        return "the orchestrator does not answer" if late else ""

    def _listen(self) -> None:
        for sign in self._follower:
            self._signs.put(sign)

    def _keep_up(self) -> None:
        looked = glanced = time.monotonic()
        changed = False
        while True:
            pause = self._pause(changed, looked, glanced)
            try:
                sign = self._signs.get(timeout=max(0.0, pause - time.monotonic()))
            except queue.Empty:
                pass
            else:
                if sign is None:
                    return
                if isinstance(sign, Live | Lost):
                    self._streaming = isinstance(sign, Live)
                changed = changed or isinstance(sign, Event | Live | Missed)
                if time.monotonic() < self._pause(changed, looked, glanced):
                    continue
            # Without a stream nobody tells what changes: each reading is of everything.
            whole = changed or not self._streaming
            if self._read(whole=whole):
                changed = False
            glanced = time.monotonic()
            looked = glanced if whole else looked

    def _pause(self, changed: bool, looked: float, glanced: float) -> float:
        """When to read next, by the monotonic clock."""
        if changed and not self._trouble:
            return looked + LOOK_SECONDS
        busy = self.view.running or self._trouble or not self._streaming
        return glanced + (GLANCE_SECONDS if busy else IDLE_GLANCE_SECONDS)

    def _read(self, *, whole: bool) -> bool:
        """Whether the view was renewed."""
        try:
            view = self._gatherer.look(self.view) if whole else self._gatherer.glance(self.view)
        except UnreachableError as error:
            self._trouble = error.message
        except CommandError as error:  # refused: a tag or a token that is no longer good
            self.failure = error
        else:
            self.view, self._trouble = view, ""
        self.changed.set()
        return not self._trouble

"""One demo from the system's start to its end, whichever way it ends.

Whatever happens, what was decided is written down, the run at hand is cancelled, and nothing that
was started here is left running.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli.client import Client
from orchestrator.cli.errors import INTERRUPTED, CommandError, ConfigError
from orchestrator.cli.output import answer, console, note, write_json
from orchestrator.cli.results import difference, write_results
from orchestrator.cli.screen import Screen, results_table
from orchestrator.cli.search import Search
from orchestrator.cli.system import System
from orchestrator.cli.up import Stops
from orchestrator.cli.workers import Workers
from orchestrator.demo.agent import Agent, NothingLeftError
from orchestrator.schemas import SetupRequest
from orchestrator.settings import Settings

_LOUD = re.compile(r"(?:\b(?:WARNING|ERROR|CRITICAL)\b|^error:)")
_LOG_TAIL_LINES = 25
_CANCEL_SECONDS = 10.0


class InterruptedDemo(CommandError):
    """Told to stop before it was done."""

    exit_code = INTERRUPTED


@dataclass(frozen=True)
class Plan:
    """What the demo is to do: `wanted` experiments of `budget` seconds, the baseline included."""

    tag: str
    baseline: str
    wanted: int
    budget: float
    seed: int


class Demonstration:
    def __init__(self, plan: Plan, settings: Settings, workers: Workers, stops: Stops) -> None:
        self._plan = plan
        self._stops = stops
        try:
            agent = Agent(plan.baseline, plan.seed)
        except (NothingLeftError, SyntaxError) as error:
            raise ConfigError(f"this train.py cannot be tuned: {error}") from error
        self._system = System(settings, workers, self._say, self._hear, logs_as="demo-")
        token = settings.token.get_secret_value() if settings.token else None
        self._client = Client(self._system.url, token, timeout=10)
        self._search = Search(self._client, plan.tag, plan.baseline, plan.wanted, agent)
        self._screen = Screen(self._search, plan.budget)

    def run(self, *, as_json: bool) -> None:
        """The whole demo. CommandError unless all experiments that were wanted are decided."""
        failures: list[CommandError] = []
        done: dict[str, Any] = {}
        tail = ""
        with self._system as system, self._client:
            note(f"starting the system: home {system.settings.home}, logs {system.logs}")
            try:
                system.start(self._stops.asked)
                self._search_on()
            except CommandError as error:
                failures.append(error)
            self._drop_current()
            try:
                done = self._write_down() if self._search.decided else {}
                tail = self._log_tail()
            except CommandError as error:
                failures.append(error)
            system.stop(self._stops.pressed)
        if done:
            self._present(done, as_json=as_json)
        if failures:
            raise failures[0]
        self._judge(done, tail)

    def _search_on(self) -> None:
        """Until the search is over, the system breaks down, or somebody says stop."""
        plan, system = self._plan, self._system
        if self._stops.asked():
            return
        self._client.setup(SetupRequest(tag=plan.tag, time_budget_seconds=plan.budget))
        note(f"{system.url}, tag {plan.tag}: {plan.wanted} experiments of {plan.budget:g} s each")
        with self._screen:
            for _ in self._search.run():
                system.poll()
                self._screen.update()
                reason = system.lost()
                if reason is not None:
                    raise CommandError(reason)
                if self._stops.asked():
                    return
            self._screen.update()

    def _drop_current(self) -> None:
        """Cancel the experiment that the demo will not wait for, and let its worker stop it."""
        current = self._search.current
        if current is None:
            return
        note(f"cancelling {current.id}")
        deadline = time.monotonic() + _CANCEL_SECONDS
        try:
            self._client.cancel(current.id)
            while self._client.experiment(current.id).finished_at is None:
                if time.monotonic() > deadline or self._stops.pressed():
                    break
                time.sleep(0.2)
        except CommandError as error:
            note(f"{current.id} could not be cancelled: {error.message}")

    def _write_down(self) -> dict[str, Any]:
        plan, search = self._plan, self._search
        best = search.best()
        source = self._client.source(best.id) if best else None
        profiles = [d.environment.profile for d in search.decided if d.environment.profile]
        profile = profiles[0] if profiles else "unknown"
        files = write_results(
            Path.cwd(),
            search.decided,
            tsv=self._client.tsv(plan.tag).tsv,
            best_source=source,
            title=plan.tag,
            subtitle=f"budget {plan.budget:g} s a run · profile {profile} · seed {plan.seed}",
        )
        return {
            "tag": plan.tag,
            "wanted": plan.wanted,
            "decided": len(search.decided),
            "best_val_bpb": best.val_bpb if best else None,
            "best_experiment_id": best.id if best else None,
            "best_diff": difference(plan.baseline, source) if source else "",
            "files": files,
        }

    def _present(self, done: dict[str, Any], *, as_json: bool) -> None:
        if as_json:
            decided = [d.model_dump(mode="json", exclude={"curve"}) for d in self._search.decided]
            write_json(done | {"experiments": decided})
            return
        console().print(results_table(self._search.decided))
        answer("")
        answer(done["best_diff"] or "The baseline is still the best: no edit beat it.")
        for name, path in done["files"].items():
            answer(f"{name:<14} {path}")

    def _judge(self, done: dict[str, Any], tail: str) -> None:
        decided, wanted = len(self._search.decided), self._plan.wanted
        if decided >= wanted:
            return
        kept = f"{decided} of {wanted} experiments are decided and kept in tag {self._plan.tag}"
        kept += " (`autoresearch up` brings it back)" if decided else ""
        if done:
            kept += f"; {', '.join(done['files'])} are written"
        if self._stops.asked():
            raise InterruptedDemo(f"interrupted: {kept}")
        raise CommandError(f"{self._search.ended or 'the search stopped'}: {kept}{tail}")

    def _log_tail(self) -> str:
        """The end of the baseline's log if it is the baseline that failed."""
        decided = self._search.decided
        if not decided or decided[0].val_bpb is not None:
            return ""
        lines = self._client.log(decided[0].id).decode(errors="replace").splitlines()
        return "\n".join(["", f"{decided[0].error or ''}", *lines[-_LOG_TAIL_LINES:]])

    def _say(self, name: str, line: str) -> None:
        self._screen.say(name, line)

    def _hear(self, name: str, line: str) -> None:
        """A child's own words go to its log; here only what went wrong."""
        if _LOUD.search(line):
            self._screen.say(name, line)

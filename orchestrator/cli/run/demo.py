"""`autoresearch demo`: data, system, tag, search, files; with an agent that needs no LLM.

However a demo ends, what was decided is written down, the open run is cancelled, and every process
that it started is stopped. What the agent decides is in orchestrator/demo.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from gpu_worker import hostcheck, isolation
from gpu_worker.settings import WorkerSettings
from orchestrator.chart.draw import Look, draw
from orchestrator.chart.values import points_of
from orchestrator.cli.client import Client
from orchestrator.cli.errors import INTERRUPTED, CommandError, ConfigError, needs
from orchestrator.cli.experiments import read_source
from orchestrator.cli.export import all_rows
from orchestrator.cli.options import Cpu, UpFlags, secret
from orchestrator.cli.output import answer, atomic_file, console, note, write_json
from orchestrator.cli.run.demo_search import Screen, Search, results_table
from orchestrator.cli.run.doctor import check_training, training_environment
from orchestrator.cli.run.process import Stops, interruptible
from orchestrator.cli.run.system import System, Workers, plan_workers
from orchestrator.cli.run.up import both_settings, with_cpu
from orchestrator.demo.agent import Agent, NothingLeftError
from orchestrator.schemas import OverviewAnswer, SetupRequest, TsvAnswer
from orchestrator.settings import Settings

_PREFIX = "demo-"  # of its tags
_DRAIN_SECONDS = 1.0  # a demo that is stopped does not wait for its run
_CANCEL_SECONDS = 10.0
_LOG_TAIL_LINES = 25
_LOUD = re.compile(r"(?:\b(?:WARNING|ERROR|CRITICAL)\b|^error:)")


def demo(
    *,
    flags: UpFlags,
    experiments: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many; 10, or 3 without a GPU.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Training time of each: 300, CPU 20."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Its name, demo-DATE-TIME-PID by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the agent's choices.")] = 0,
    train_py: Annotated[
        Path | None, typer.Option("--train-py", metavar="FILE", help="Another baseline.")
    ] = None,
    cpu: Cpu = False,
    json: bool,
) -> None:
    for module in ("optuna", "matplotlib"):
        needs(module, "the demo needs optuna and matplotlib", "demo")
    defaults = {"port": 0, "drain_timeout": _DRAIN_SECONDS}
    settings, worker_settings = both_settings(defaults | with_cpu(flags, cpu=cpu))
    worker_settings = _with_sandbox(_with_launcher(worker_settings))
    path = train_py or worker_settings.project / "train.py"
    if not path.is_file():
        raise ConfigError(
            f"there is no {path}: run inside a checkout, or name a baseline with --train-py"
        )
    baseline = read_source(str(path))
    if not os.access(".", os.W_OK | os.X_OK):
        raise ConfigError("the results go to the current folder, which takes none: cd to another")
    workers = plan_workers(worker_settings)
    with interruptible():
        _ensure_data(worker_settings)
    wanted = experiments or (3 if workers.on_cpu else 10)
    seconds = budget or (20.0 if workers.on_cpu else 300.0)
    try:
        agent = Agent(baseline, seed)
    except (NothingLeftError, SyntaxError) as error:
        raise ConfigError(f"this train.py cannot be tuned: {error}") from error
    tag = tag or time.strftime(f"{_PREFIX}%Y%m%d-%H%M%S-{os.getpid()}")  # two may start at once
    with Stops().counted() as stops:
        shown = Demonstration(settings, workers, stops, agent, tag, wanted, seconds)
        shown.run(as_json=json)


def _with_launcher(settings: WorkerSettings) -> WorkerSettings:
    """The settings; on a machine without uv, this Python runs train.py if it has torch."""
    if settings.launcher or shutil.which("uv") or find_spec("torch") is None:
        return settings
    # A new object, so that the launcher counts as set and reaches the worker.
    return type(settings)(**settings.model_dump(exclude_unset=True), launcher=(sys.executable,))


def _with_sandbox(settings: WorkerSettings) -> WorkerSettings:
    """The settings, with the highest level that works here unless one was asked for. The demo's
    train.py files are those of its own agent, so a bare machine may run them in a lower one."""
    if settings.sandbox is not None or settings.isolation != "auto":
        note(f"sandbox {settings.level}, as set")
        return settings
    level, why = isolation.best(settings)
    note(f"sandbox {level}" + (f", because {why}" if why else ""))
    return type(settings)(**settings.model_dump(exclude_unset=True), sandbox=level)


def _ensure_data(settings: WorkerSettings) -> None:
    """Run prepare.py if its check fails. CommandError if training is impossible after that."""
    if not settings.check or check_training(settings).ok:
        return
    note("preparing the training data (once; later runs find it)")
    process = subprocess.Popen(
        [*settings.command, "prepare.py"],
        cwd=settings.project,
        env=training_environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,  # so that one signal ends all of it
    )
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if code != 0:
        raise CommandError(f"prepare.py ended with exit code {code}; its output is above")
    if problems := hostcheck.judge(check_training(settings), needs_cuda=False):
        raise CommandError("; ".join(problems))


class InterruptedDemo(CommandError):
    """Stopped by a signal before all experiments were decided."""

    exit_code = INTERRUPTED


class Demonstration:
    """`wanted` experiments of `budget` seconds, the baseline included."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        stops: Stops,
        agent: Agent,
        tag: str,
        wanted: int,
        budget: float,
    ) -> None:
        self._budget = budget
        self._stops = stops
        self._system = System(
            settings, workers, self._say, self._hear, logs_as=f"demo-{os.getpid()}-"
        )
        self._client = Client(self._system.url, secret(settings), ca=settings.ca, timeout=10)
        self._search = Search(self._client, tag, wanted, agent)
        self._screen = Screen(self._search)

    def run(self, *, as_json: bool) -> None:
        """The whole demo. CommandError unless all wanted experiments are decided."""
        failures: list[CommandError] = []
        done: dict[str, Any] = {}
        tail = ""
        with self._system as system, self._client:
            note(f"starting the system: home {system.settings.home}, logs {system.logs}")
            try:
                system.start(self._stops.asked, self._refuse_others)
                self._run_search()
            except CommandError as error:
                failures.append(error)
            self._cancel_current()
            try:
                done = self._write_results() if self._search.decided else {}
                tail = self._log_tail()
            except CommandError as error:
                failures.append(error)
            system.stop(self._stops.pressed)
        if done:
            self._present(done, as_json=as_json)
        if failures:
            raise failures[0]
        self._raise_if_incomplete(done, tail)

    def _refuse_others(self) -> None:
        """The demo's worker would train other searches' runs too, before its own and perhaps in a
        lower sandbox level."""
        tags = self._client.get("/api/report/overview", OverviewAnswer).tags
        open_ = [
            tag.name
            for tag in tags
            if tag.state in ("queued", "running") and not tag.name.startswith(_PREFIX)
        ]
        if open_:
            raise CommandError(
                f"tag {open_[0]} has runs to train: finish them with `autoresearch up`, or give the"
                " demo a home of its own with AUTORESEARCH_HOME=FOLDER"
            )

    def _run_search(self) -> None:
        """Until the search is over, the system is lost, or a signal says stop."""
        system, search, budget = self._system, self._search, self._budget
        if self._stops.asked():
            return
        self._client.setup(SetupRequest(tag=search.tag, time_budget_seconds=budget))
        wanted = f"{search.wanted} experiment{'s' * (search.wanted != 1)}"
        note(f"{system.url}, tag {search.tag}: {wanted} of {budget:g} s each")
        with self._screen.bar:
            for _ in search.run():
                system.poll()
                self._screen.update()
                reason = system.lost()
                if reason is not None:
                    raise CommandError(reason)
                if self._stops.asked():
                    return
            self._screen.update()

    def _cancel_current(self) -> None:
        """Cancel the open experiment, and give its worker time to stop it."""
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

    def _write_results(self) -> dict[str, Any]:
        """results.tsv, progress.png and best_train.py in the current folder; what they say.

        A file with another content is kept under its name with a `~`.
        """
        search, client, tag = self._search, self._client, self._search.tag
        best = search.best()
        diff = client.diff(best.id, search.decided[0].id) if best else ""
        profile = next((p for d in search.decided if (p := d.environment.profile)), "unknown")
        about = f"budget {self._budget:g} s a run · profile {profile} · seed {search.agent.seed}"
        picture = io.BytesIO()
        draw(points_of(list(all_rows(client, tag))), picture, Look(tag, about))
        table = client.get("/api/report/tsv", TsvAnswer, tag=tag).tsv
        files = {"results.tsv": f"{table}\n".encode()}
        if best is not None:
            files["best_train.py"] = client.source(best.id).encode()
        files["progress.png"] = picture.getvalue()
        for name, content in files.items():
            path = Path(name)
            if path.exists() and path.read_bytes() != content:
                path.replace(f"{name}~")  # it may be somebody's own
            with atomic_file(name) as file:
                file.write(content)
        return {
            "tag": tag,
            "wanted": search.wanted,
            "decided": len(search.decided),
            "best_val_bpb": best.val_bpb if best else None,
            "best_experiment_id": best.id if best else None,
            "best_diff": diff,
            "files": {name: str(Path.cwd() / name) for name in files},
        }

    def _present(self, done: dict[str, Any], *, as_json: bool) -> None:
        if as_json:
            decided = [d.model_dump(mode="json", exclude={"curve"}) for d in self._search.decided]
            write_json(done | {"experiments": decided})
            return
        console().print(results_table(self._search.decided))
        answer("")
        answer(done["best_diff"] or "The baseline is still the best: no edit beat it.")
        if done["best_diff"]:
            answer(
                "No keep is proved: each is one run, and seeds alone move val_bpb as much.\n"
                f"`autoresearch race {done['tag']} -r REASON` repeats what looks better.\n"
            )
        for name, path in done["files"].items():
            answer(f"{name:<14} {path}")

    def _raise_if_incomplete(self, done: dict[str, Any], tail: str) -> None:
        decided, wanted = len(self._search.decided), self._search.wanted
        if decided >= wanted:
            return
        kept = f"{decided} of {wanted} experiments are decided and kept in tag {self._search.tag}"
        kept += " (`autoresearch up` brings it back)" if decided else ""
        if done:
            kept += f"; {', '.join(done['files'])} are written"
        if self._stops.asked():
            raise InterruptedDemo(f"interrupted: {kept}")
        raise CommandError(f"{self._search.ended or 'the search stopped'}: {kept}{tail}")

    def _log_tail(self) -> str:
        """The end of the baseline's log if the baseline failed."""
        decided = self._search.decided
        if not decided or decided[0].val_bpb is not None:
            return ""
        lines = self._client.log(decided[0].id).decode(errors="replace").splitlines()
        return "\n".join(["", f"{decided[0].error or ''}", *lines[-_LOG_TAIL_LINES:]])

    def _say(self, name: str, line: str) -> None:
        self._screen.say(f"{name}: {line}")

    def _hear(self, name: str, line: str) -> None:
        """All of a child's output is in its log; the screen shows warnings and errors."""
        if _LOUD.search(line):
            self._screen.say(f"{name}: {line}")

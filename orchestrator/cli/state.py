"""Commands on the state itself: audit, backup, restore. They need Redis and the home, and no
orchestrator; where one runs, audit and backup leave it running."""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from orchestrator.cli.errors import FAILED, CommandError
from orchestrator.cli.options import StateFlags, load
from orchestrator.cli.output import answer, console, note, respond, write_json
from orchestrator.cli.run.process import interruptible
from orchestrator.cli.run.serve import log_to_stderr, redis_for
from orchestrator.files import open_files
from orchestrator.seals import Seals
from orchestrator.services.core import backup as service
from orchestrator.services.core.audit import Audit, Report
from orchestrator.settings import Settings
from orchestrator.store.connection import Store

_SHOWN = 20
T = TypeVar("T")


def audit(
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[TAG]...", help="All tags by default.")
    ] = None,
    *,
    flags: StateFlags,
    json: bool,
) -> None:
    """Verdicts, best and counters, by the rules that decided them."""

    settings = _settings(flags)
    # Made by orchestrators only: an audit changes nothing.
    files = open_files(settings)
    seals = Seals(files) if files.has_journal_key() else None

    async def check(store: Store) -> list[Report]:
        auditor = Audit(store, seals)
        return [await auditor.check(name) for name in tags or await auditor.tags()]

    reports = _with_store(settings, check)
    if json:
        write_json([vars(report) for report in reports])
    else:
        _print_reports(reports)
        if seals is None:
            note(f"seals were not checked: there is no journal.key in {files.place}")
    if any(report.differences for report in reports):
        raise typer.Exit(FAILED)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _print_reports(reports: list[Report]) -> None:
    for report in reports:
        decisions, experiments = report.decisions, report.experiments
        what = f"{report.tag}: {_count(decisions, 'decision')}, {_count(experiments, 'experiment')}"
        if report.unsealed:
            what += f", {report.unsealed} entries of a version without seals"
        if not report.differences:
            answer(f"{what}: all as the journal says")
            continue
        answer(f"{what}: {_count(len(report.differences), 'difference')}")
        for difference in report.differences[:_SHOWN]:
            answer(f"  {difference}")
        if len(report.differences) > _SHOWN:
            note(f"  … and {len(report.differences) - _SHOWN} more; --json has all")
    if not reports:
        note("no tags yet: nothing to audit")


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write, such as night.tar.gz.")],
    *,
    flags: StateFlags,
    json: bool,
) -> None:
    """Writers wait while Redis is read, about a second for ten thousand experiments; training
    goes on.
    """
    settings = _settings(flags)
    with _counter("backing up", file) as count:
        files = open_files(settings)

        async def write(store: Store) -> service.Manifest:
            files_id = Seals(files).files_id if files.has_journal_key() else None
            await store.check_files(files_id, files.place)
            return await service.backup(store, files, file, count)

        manifest = _with_store(settings, write)
    size = file.stat().st_size
    text = f"{manifest.files} files and {manifest.parts} parts of Redis in {file} ({size} B)"
    respond(json, {"file": str(file), "bytes": size} | vars(manifest), text)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` has written.")],
    *,
    flags: StateFlags,
    json: bool,
) -> None:
    """Start the orchestrators after it. Runs that were training at the time of the backup go back
    to the queue by themselves.
    """
    settings = _settings(flags, must_exist=False)
    with _counter("restoring", file) as count:
        files = open_files(settings)
        manifest = _with_store(settings, lambda store: service.restore(store, files, file, count))
    text = f"restored {file}; `autoresearch audit` checks it"
    respond(json, {"file": str(file)} | vars(manifest), text)


def _settings(flags: dict[str, Any], *, must_exist: bool = True) -> Settings:
    settings = load(Settings, **flags)
    usable = os.access(settings.paths.redis_dir, os.W_OK | os.X_OK)
    if must_exist and settings.redis_url is None and not usable:
        raise CommandError(
            f"{settings.home} holds no state of yours: say where it is with --home "
            "(AUTORESEARCH_HOME) or --redis-url (REDIS_URL)"
        )
    settings.paths.make_private()
    log_to_stderr()
    return settings


def _with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do `work` on the store that the settings name; start its embedded server if need be."""

    async def run(url: str) -> T:
        store = Store(url, settings.redis_timeout_seconds)
        try:
            await store.check_version()
            return await work(store)
        finally:
            await store.close()

    with interruptible(), redis_for(settings) as ready:
        assert ready.redis_url is not None  # noqa: S101 - `redis_for` sets it
        return anyio.run(run, ready.redis_url.get_secret_value())


@contextlib.contextmanager
def _counter(what: str, file: Path) -> Iterator[Callable[[int], None]]:
    """A counter on the terminal; nothing in a pipe. An error names the file that it is about."""
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed}"),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        try:
            yield lambda count: bar.advance(task, count)
        except OSError as error:
            name = error.filename2 or error.filename or file
            raise CommandError(f"{name}: {error.strerror or error}") from error

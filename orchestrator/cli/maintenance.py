"""Commands on the state itself: audit, backup, restore. They need Redis and the home, and no
orchestrator; where one runs, audit and backup leave it running."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import STATE_FLAGS, Json, takes_settings
from orchestrator.cli.output import answer, note, write_json

if TYPE_CHECKING:
    from orchestrator.services.core.audit import Report
    from orchestrator.settings import Settings
    from orchestrator.store.connection import Store

_SHOWN = 20


@takes_settings(STATE_FLAGS)
def audit(
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[TAG]...", help="All tags by default.")
    ] = None,
    *,
    flags: dict[str, Any],
    json: Json = False,
) -> None:
    """Recompute verdicts, best and counters from the journal; exit 1 if the state differs."""
    settings = _settings(flags)
    reports = _with_store(settings, lambda store: _audited(store, tags or []))
    if json:
        write_json([vars(report) for report in reports])
    else:
        _tell(reports)
    if any(report.differences for report in reports):
        raise typer.Exit(1)


async def _audited(store: "Store", tags: list[str]) -> "list[Report]":
    from orchestrator.services.core.audit import Audit

    names = tags or [state.tag.name for state in reversed(await store.reads.tags())]
    return [await Audit(store).check(name) for name in names]


def _tell(reports: "list[Report]") -> None:
    for report in reports:
        what = f"{report.tag}: {report.decisions} decisions, {report.experiments} experiments"
        if not report.differences:
            answer(f"{what}: all as the journal says")
            continue
        answer(f"{what}: {len(report.differences)} differences")
        for difference in report.differences[:_SHOWN]:
            answer(f"  {difference}")
        if len(report.differences) > _SHOWN:
            note(f"  … and {len(report.differences) - _SHOWN} more; --json has all")
    if not reports:
        note("no tags yet: nothing to audit")


@takes_settings(STATE_FLAGS)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write, such as night.tar.gz.")],
    *,
    flags: dict[str, Any],
    json: Json = False,
) -> None:
    """Write the whole state to one file: experiments, sources, logs, curves.

    Writers wait while Redis is read, about a second for ten thousand experiments; training goes on.
    """
    from orchestrator.services.core import backup as service

    settings = _settings(flags)
    with _files(file), _progress("backing up") as progress:
        manifest = _with_store(
            settings, lambda store: service.backup(store, settings.paths, file, progress)
        )
    size = file.stat().st_size
    if json:
        write_json({"file": str(file), "bytes": size} | vars(manifest))
    else:
        answer(f"{manifest.files} files and {manifest.parts} parts of Redis in {file} ({size} B)")


@takes_settings(STATE_FLAGS)
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` has written.")],
    *,
    flags: dict[str, Any],
    json: Json = False,
) -> None:
    """Put a backup back, into an empty Redis and a home; start the orchestrators after it.

    Runs that were training at the time of the backup go back to the queue by themselves.
    """
    from orchestrator.services.core import backup as service

    settings = _settings(flags, must_exist=False)
    with _files(file), _progress("restoring") as progress:
        manifest = _with_store(
            settings, lambda store: service.restore(store, settings.paths, file, progress)
        )
    if json:
        write_json({"file": str(file)} | vars(manifest))
    else:
        answer(f"restored {file}; `autoresearch audit` checks it")


def _settings(flags: dict[str, Any], *, must_exist: bool = True) -> "Settings":
    from orchestrator.cli.config import load
    from orchestrator.cli.serve import log_to_stderr
    from orchestrator.settings import Settings

    settings = load(Settings, **flags)
    if must_exist and settings.redis_url is None and not settings.paths.redis_dir.exists():
        raise CommandError(
            f"{settings.home} holds no state: say where it is with --home (AUTORESEARCH_HOME) or"
            " --redis-url (REDIS_URL)"
        )
    log_to_stderr()
    return settings


def _with_store(settings: "Settings", work: "Callable[[Store], Any]") -> Any:
    """Do `work` on the store that the settings name, its embedded server started if need be."""
    import anyio

    from orchestrator.cli.serve import interruptible, redis_for

    with interruptible(), redis_for(settings) as ready:
        assert ready.redis_url is not None  # noqa: S101 - redis_for sees to that
        url = ready.redis_url.get_secret_value()

        async def run() -> Any:
            async with _store(url, settings.redis_timeout_seconds) as store:
                return await work(store)

        return anyio.run(run)


@contextlib.asynccontextmanager
async def _store(url: str, timeout_seconds: float) -> "AsyncIterator[Store]":
    from orchestrator.store.connection import Store

    store = Store.connect(url, timeout_seconds)
    try:
        await store.check_version()
        yield store
    finally:
        await store.close()


@contextlib.contextmanager
def _files(file: Path) -> Iterator[None]:
    """Say which file could not be read or written, and why."""
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename or file
        raise CommandError(f"{name}: {error.strerror or error}") from error


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A counter on the terminal; nothing in a pipe."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from orchestrator.cli.output import console

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed}"),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.advance(task, count)

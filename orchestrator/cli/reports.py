"""Commands on tags and their results: setup, status, best, history, diff."""

from typing import Annotated, Any

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from orchestrator import schemas
from orchestrator.cli import tables
from orchestrator.cli.client import Client, explained
from orchestrator.cli.errors import ApiError, CommandError, ConfigError
from orchestrator.cli.experiments import step
from orchestrator.cli.options import Tag, load_model
from orchestrator.cli.output import answer, atomic_file, console, note, respond, write_json
from orchestrator.cli.text import one_line, visible
from orchestrator.schemas import ExperimentDetail

# Metric, decimals, and whether less is better (None: neither).
_METRICS: tuple[tuple[str, int, bool | None], ...] = (
    ("val_bpb", 6, True),
    ("training_seconds", 1, None),
    ("num_steps", 0, None),
    ("total_tokens_m", 1, None),
    ("mfu_percent", 1, False),
    ("peak_vram_mb", 0, True),
    ("num_params_m", 1, None),
    ("depth", 0, None),
)
_FACTS = ("status", "category", "gpu_id", "seed", "time_budget_seconds", "source_sha256")


def setup(
    client: Client,
    tag: Tag,
    *,
    time_budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="Training time of each run.")
    ] = 300,
    near_miss: Annotated[
        float, typer.Option(metavar="BPB", help="How close to the best counts as a near miss.")
    ] = 0.002,
    max_crashes: Annotated[
        int, typer.Option(help="Crashes in a row after which agents are told to stop.")
    ] = 3,
    keep_rule: Annotated[
        str,
        typer.Option(metavar="greedy|greedy+merge|race", help="What is kept: docs/keep-rules.md."),
    ] = "greedy",
    gpu_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model that runs it; that of the first run."),
    ] = None,
    mix_models: Annotated[
        bool, typer.Option("--mix-models", help="Several GPU models may run it.")
    ] = False,
    early_stop: Annotated[
        bool | None,
        typer.Option(
            "--early-stop/--no-early-stop",
            help="End runs that 30 finished ones say cannot win: docs/keep-rules.md."
            " By default where the keep rule is race.",
        ),
    ] = None,
    json: bool,
) -> None:
    request = load_model(
        schemas.SetupRequest,
        tag=tag,
        time_budget_seconds=time_budget,
        near_miss_threshold=near_miss,
        max_consecutive_crashes=max_crashes,
        keep_rule=keep_rule,
        gpu_model=gpu_model,
        mix_models=mix_models,
        early_stop=early_stop,
    )
    result = client.setup(request)
    seconds = result.tag.time_budget_seconds
    respond(json, result, f"tag {tag} is set up: {seconds:g} s of training a run")


def status(
    client: Client,
    what: Annotated[
        str | None, typer.Argument(metavar="[TAG|EXPERIMENT]", help="All tags by default.")
    ] = None,
    *,
    json: bool,
) -> None:
    """All of them by default; with a tag its numbers, with an experiment its record."""
    if what is None:
        pool, tags = client.pool(), client.tags()
        data = {
            "url": client.url,
            "pool": pool.model_dump(mode="json"),
            "tags": [t.model_dump(mode="json") for t in tags],
        }
        respond(json, data, tables.pool_table(pool), "", tables.tags_table(tags))
    elif what.startswith("exp-"):
        detail = client.experiment(what)
        state = f"{what} {step(detail)[1]}"
        respond(json, detail, tables.verdict_line(detail) if detail.finished_at else state)
    else:
        with explained(client, what):
            summary = client.summary(what)
        respond(json, summary, tables.summary_lines(summary))


def best(
    client: Client,
    tag: Tag,
    *,
    source: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the best train.py there; - for stdout."),
    ] = None,
    json: bool,
) -> None:
    if source == "-" and json:
        raise ConfigError("--source - and --json both want stdout; give --source a file name")
    result = client.best(tag)
    if source:
        text = client.source(result.best.experiment_id)
        with atomic_file(source) as file:
            file.write(text.encode())
    if source == "-":
        return
    found = result.best
    value, guess = f"{found.val_bpb:.6f}", found.estimate
    if guess is not None:
        value += f" (an estimate, {guess.low:.4f} to {guess.high:.4f})"
    line = f"{value}  {found.experiment_id}  {result.experiment.description}"
    respond(json, result, line)
    if source and not json:
        note(f"its train.py is in {source}")


def history(
    client: Client,
    tag: Tag,
    *,
    status: Annotated[
        str | None, typer.Option(help="Only queued, running, candidate, keep, discard, …")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the newest N.", min=1, max=10_000)] = None,
    json: bool,
) -> None:
    result = client.history(tag, status, limit)
    respond(json, result, tables.experiments_table(result.experiments))
    if result.total > len(result.experiments) and not json:
        note(f"the newest {len(result.experiments)} of {result.total}")


def diff(
    client: Client,
    a: Annotated[str, typer.Argument(metavar="A", help="An experiment's id.")],
    b: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another; without it, A and its parent.")
    ] = None,
    *,
    json: bool,
) -> None:
    """What B measured and changed against A; with one experiment, against its parent."""
    if b is None:
        after = client.experiment(a)
        if after.parent_id is None:
            raise CommandError(f"{a} has no parent: name two experiments")
        before = client.experiment(after.parent_id)
    else:
        before, after = client.experiment(a), client.experiment(b)
    try:
        text = client.diff(after.id, before.id)
    except ApiError as error:  # a run by hand has no source here
        text = ""
        note(error.message)
    deltas: dict[str, float | None] = {}
    for name, _, _ in _METRICS:
        left, right = getattr(before, name), getattr(after, name)
        deltas[name] = None if left is None or right is None else right - left
    if json:
        a_record, b_record = (e.model_dump(mode="json", exclude={"curve"}) for e in (before, after))
        write_json({"a": a_record, "b": b_record, "deltas": deltas, "diff": text})
        return
    screen = console()
    screen.print(_side_by_side(before, after, deltas))
    if screen.is_terminal and text:
        screen.print("", Syntax(visible(text), "diff", background_color="default"), sep="\n")
    else:
        answer(f"\n{text}" if text else "\nthe sources are the same")


def _side_by_side(
    a: ExperimentDetail, b: ExperimentDetail, deltas: dict[str, float | None]
) -> Table:
    """Facts and metrics of both; equal facts are left out, except description and verdict."""
    table = tables.plain("", f">{a.id}", f">{b.id}", ">change")
    for name in ("description", "hypothesis", *_FACTS):
        left, right = getattr(a, name), getattr(b, name)
        if left != right or name in ("description", "status"):
            limit = 40 if name in _FACTS else None
            cells = ("—" if v is None else one_line(str(v))[:limit] for v in (left, right))
            table.add_row(name.replace("_", " "), *cells, "")
    for name, decimals, less_is_better in _METRICS:
        values = getattr(a, name), getattr(b, name)
        if values != (None, None):
            label = name if name == "val_bpb" else name.replace("_", " ")
            cells = ("—" if v is None else f"{v:,.{decimals}f}" for v in values)
            table.add_row(label, *cells, _change(deltas[name], decimals, less_is_better))
    return table


def _change(delta: float | None, decimals: int, less_is_better: bool | None) -> Any:
    if not delta:
        return "" if delta is None else Text("=", style="dim")
    better = None if less_is_better is None else (delta < 0) == less_is_better
    style = "" if better is None else "green" if better else "red"
    return Text(f"{delta:+,.{decimals}f}", style=style)

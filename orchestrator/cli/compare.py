"""`autoresearch diff`: two experiments side by side, and what was changed between them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import ApiError, CommandError
from orchestrator.cli.options import Json, Token, Url
from orchestrator.cli.output import answer, console, note, write_json

if TYPE_CHECKING:
    from rich.table import Table

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


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="An experiment's id.")],
    b: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another; without it, A and its parent.")
    ] = None,
    *,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """What B measured and changed against A; with one experiment, against its parent."""
    from orchestrator.cli.config import connect

    with connect(orchestrator, token) as client:
        if b is None:
            child = client.experiment(a)
            if child.parent_id is None:
                raise CommandError(f"{a} has no parent: name two experiments")
            before, after = client.experiment(child.parent_id), child
        else:
            before, after = client.experiment(a), client.experiment(b)
        try:
            text = client.diff(after.id, before.id)
        except ApiError as error:  # a run by hand has no source here
            text = ""
            note(error.message)
    if json:
        write_json({"a": before.model_dump(mode="json", exclude={"curve"}),
                    "b": after.model_dump(mode="json", exclude={"curve"}),
                    "deltas": deltas(before, after), "diff": text})  # fmt: skip
        return
    screen = console()
    screen.print(side_by_side(before, after))
    if screen.is_terminal and text:
        from rich.syntax import Syntax

        from orchestrator.cli.text import visible

        screen.print("", Syntax(visible(text), "diff", background_color="default"), sep="\n")
    else:
        answer(f"\n{text}" if text else "\nthe sources are the same")


def deltas(a: "ExperimentDetail", b: "ExperimentDetail") -> dict[str, float | None]:
    """b - a for each metric; None where one of them has none."""
    found: dict[str, float | None] = {}
    for name, _, _ in _METRICS:
        left, right = getattr(a, name), getattr(b, name)
        found[name] = None if left is None or right is None else right - left
    return found


def side_by_side(a: "ExperimentDetail", b: "ExperimentDetail") -> "Table":
    """Facts and metrics of both; a fact that is the same is left out, but for the verdict."""
    from rich.table import Table

    from orchestrator.cli.text import one_line

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in (a.id, b.id):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("change", justify="right")
    for text in ("description", "hypothesis"):
        left, right = (one_line(getattr(side, text)) for side in (a, b))
        if left != right or text == "description":
            table.add_row(text, left, right, "")
    for fact in _FACTS:
        left, right = getattr(a, fact), getattr(b, fact)
        if left != right or fact == "status":
            table.add_row(_words(fact), _fact(left), _fact(right), "")
    changes = deltas(a, b)
    for name, decimals, less_is_better in _METRICS:
        left, right = getattr(a, name), getattr(b, name)
        if left is not None or right is not None:
            change = _change(changes[name], decimals, less_is_better)
            table.add_row(_words(name), _number(left, decimals), _number(right, decimals), change)
    return table


def _words(name: str) -> str:
    return name if name == "val_bpb" else name.replace("_", " ")


def _fact(value: Any) -> str:
    from orchestrator.cli.text import one_line

    return "—" if value is None else one_line(str(value))[:40]


def _number(value: float | None, decimals: int) -> str:
    return "—" if value is None else f"{value:,.{decimals}f}"


def _change(delta: float | None, decimals: int, less_is_better: bool | None) -> Any:
    from rich.text import Text

    if delta is None:
        return ""
    if not delta:
        return Text("=", style="dim")
    better = None if less_is_better is None else (delta < 0) == less_is_better
    style = "" if better is None else "green" if better else "red"
    return Text(f"{delta:+,.{decimals}f}", style=style)

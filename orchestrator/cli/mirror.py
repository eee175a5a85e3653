"""`autoresearch mirror mlflow`: decided runs in MLflow, in a process of its own."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import Json, Token, Url
from orchestrator.cli.output import answer, note, write_json

if TYPE_CHECKING:
    from orchestrator.schemas import ExperimentDetail

app = typer.Typer(
    name="mirror", help="Tell decided runs to other programs, after the fact.", no_args_is_help=True
)


@app.callback()
def _only_commands() -> None:
    """Keeps typer from taking the one command for the group itself."""


@app.command()
def mlflow(
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
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Mirror every decided run to MLflow, and go on with each verdict until told to stop.

    It only reads, and remembers how far it came; a run is one MLflow run however often it is told.
    """
    from orchestrator.cli.config import ClientSettings, connect, load
    from orchestrator.cli.mirroring.loop import Mirror
    from orchestrator.cli.mirroring.mlflow import MlflowSink
    from orchestrator.cli.mirroring.place import Place
    from orchestrator.cli.serve import interruptible

    def say(detail: "ExperimentDetail") -> None:
        fact: dict[str, Any] = {"experiment_id": detail.id, "status": detail.status}
        write_json(fact) if json else note(f"{detail.id} {detail.status}")

    with connect(orchestrator, token) as client:
        sink = MlflowSink(tracking_uri, prefix, client.source if sources else None)
        sink.ensure_possible()
        paths = load(ClientSettings, orchestrator=orchestrator, token=token).paths
        place = Place.between(paths, "mlflow", client.url, f"{tracking_uri} {prefix} {tag}")
        client.tags()  # nobody there, or a wrong token, is for the caller to hear at once
        with place.held():
            mirror = Mirror(client, sink, place, frozenset(tag or ()), say)
            with suppress(KeyboardInterrupt), interruptible():
                mirror.catch_up() if once else mirror.follow()
    if not json:
        answer(f"{mirror.count} runs mirrored")

"""The tools. A function is a tool: its docstring says to the agent what it is for, its hints say
what it takes and gives, and its body is the REST call."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import anyio

from orchestrator import schemas
from orchestrator.mcp import models
from orchestrator.mcp.api import Api, ToolError
from orchestrator.rules import sanitize

# A waiting call reports progress this often, so that the agent's client does not give it up.
PROGRESS_SECONDS = 10.0
DIFF_BYTES = 60_000


@dataclass(frozen=True)
class Call:
    """The API, and a function that reports the progress of one call: seconds gone, seconds in all,
    and the state of the run."""

    api: Api
    progress: Callable[[float, float, str], Awaitable[None]]


Run = Callable[[Call, Any], Awaitable[schemas.Answer]]


async def setup(call: Call, request: schemas.SetupRequest) -> schemas.SetupAnswer:
    """Create a tag: a search with its own best. 409: it exists, and you join it."""
    return await call.api.post("/api/experiment/setup", schemas.SetupAnswer, request)


async def brief(call: Call, request: schemas.TagRequest) -> schemas.BriefAnswer:
    """Everything needed to go on with a tag, in less than 8 KB. Call it first, and again whenever
    your context was lost."""
    return await call.api.get("/api/report/brief", schemas.BriefAnswer, request)


async def suggest(call: Call, request: schemas.SuggestRequest) -> schemas.Suggestion:
    """What to try next and what not to, notes from people, and with `idea` what was already tried
    near it."""
    return await call.api.get("/api/search/suggest", schemas.Suggestion, request)


async def similar(call: Call, request: schemas.SimilarRequest) -> schemas.SimilarAnswer:
    """What was already tried near an idea, and how it went."""
    return await call.api.get("/api/search/similar", schemas.SimilarAnswer, request)


async def submit(call: Call, request: models.SubmitAndWait) -> schemas.SubmitAnswer:
    """Queue a train.py and wait for its verdict, which carries a digest: metrics with changes
    against parent and best, the thinned curve, warnings, and how a failed run failed."""
    body = schemas.SubmitRequest(**request.model_dump(exclude={"wait_seconds", "path"}))
    answer = await call.api.post("/api/experiment/submit", schemas.SubmitAnswer, body)
    if not request.wait_seconds:
        return answer
    waiting = models.WaitRequest(experiment_id=answer.experiment_id, seconds=request.wait_seconds)
    return await wait(call, waiting)


async def submit_file(call: Call, request: models.SubmitFile) -> schemas.SubmitAnswer:
    """Queue a train.py and wait for its verdict, which carries a digest: metrics with changes
    against parent and best, the thinned curve, warnings, and how a failed run failed. `path` saves
    sending the text."""
    if request.path is not None:
        try:
            text = await anyio.Path(_inside(request.path)).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ToolError(f"{request.path} cannot be read: {error}") from error
        request = request.model_copy(update={"train_py": text})
    return await submit(call, request)


async def wait(call: Call, request: models.WaitRequest) -> schemas.SubmitAnswer:
    """Wait for the verdict of a submitted experiment."""
    path = f"/api/experiment/{request.experiment_id}/wait"
    start = anyio.current_time()
    while True:
        left = max(0.0, start + request.seconds - anyio.current_time())
        timeout = min(left, PROGRESS_SECONDS)
        found = await call.api.get(path, schemas.ExperimentDetail, timeout=timeout)
        if found.verdict is not None or left <= PROGRESS_SECONDS:
            return schemas.SubmitAnswer(**vars(found), experiment_id=found.id)
        percent = f" at {found.curve[-1].percent:.0f} %" if found.curve else ""
        gone = anyio.current_time() - start
        await call.progress(gone, request.seconds, f"{found.status}{percent}")


async def digest(call: Call, request: schemas.ExperimentRequest) -> schemas.Digest:
    """A run in less than 2 KB, also while it runs."""
    path = f"/api/experiment/{request.experiment_id}/digest"
    return await call.api.get(path, schemas.Digest)


async def _best_of(call: Call, tag: str) -> schemas.BestAnswer:
    query = schemas.TagRequest(tag=tag)
    return await call.api.get("/api/experiment/best", schemas.BestAnswer, query)


async def _source_of(call: Call, request: models.SourceRequest) -> tuple[str, str]:
    """The id and the train.py of the requested experiment."""
    experiment_id = request.experiment_id
    if experiment_id is None:
        experiment_id = (await _best_of(call, request.tag or "")).best.experiment_id
    return experiment_id, await call.api.text(f"/api/experiment/{experiment_id}/train.py")


async def source(call: Call, request: models.SourceRequest) -> models.Source:
    """The exact train.py of an experiment, or of a tag's best."""
    experiment_id, text = await _source_of(call, request)
    shown = sanitize.visible(text)
    return models.Source(experiment_id=experiment_id, train_py=shown, exact=shown == text)


async def checkout(call: Call, request: models.CheckoutRequest) -> models.Checkout:
    """Write the exact train.py of an experiment, or of a tag's best, to a file."""
    target = _inside(request.path)
    experiment_id, text = await _source_of(call, request)
    try:
        await anyio.Path(target).write_text(text, "utf-8")
    except OSError as error:
        raise ToolError(f"{request.path} cannot be written: {error}") from error
    lines = len(text.splitlines())
    return models.Checkout(experiment_id=experiment_id, path=request.path, lines=lines)


def _inside(path: str) -> Path:
    """A file below the folder that this process was started in. Raises ToolError for others."""
    folder = Path.cwd().resolve()
    target = (folder / path).resolve()
    if not target.is_relative_to(folder):
        raise ToolError(f"{path} is outside of {folder}, where this server was started.")
    return target


async def diff(call: Call, request: models.DiffRequest) -> models.Diff:
    """What an experiment changed: a unified diff against parent, best or any other."""
    path = f"/api/experiment/{request.experiment_id}/diff"
    text = await call.api.text(path, against=request.against)
    shown = sanitize.visible(text[:DIFF_BYTES])
    return models.Diff(diff=shown, exact=shown == text)


async def history(call: Call, request: models.HistoryRequest) -> models.History:
    """The newest experiments of a tag in short."""
    found = await call.api.get("/api/experiment/history", schemas.HistoryAnswer, request)
    experiments = [_tried(record) for record in found.experiments]
    return models.History.model_validate(vars(found) | {"experiments": experiments})


async def best(call: Call, request: schemas.TagRequest) -> models.Best:
    """The best experiment of a tag."""
    found = await _best_of(call, request.tag)
    return models.Best(best=found.best, experiment=_tried(found.experiment))


def _tried(record: schemas.Record) -> schemas.Tried:
    """A record in short, without `error`, which the run printed."""
    short = {"experiment_id": record.id, "val_bpb": record.val_bpb or None, "behind_best": None}
    return schemas.Tried.model_validate(vars(record) | short)


async def near_misses(call: Call, request: schemas.NearMissRequest) -> schemas.NearMissAnswer:
    """Discarded runs that came close to the best: candidates to combine."""
    return await call.api.get("/api/experiment/near-misses", schemas.NearMissAnswer, request)


async def pool(call: Call, request: models.NoArguments) -> schemas.PoolAnswer:
    """The GPUs and what they do."""
    return await call.api.get("/api/pool/list", schemas.PoolAnswer, request)


async def log(call: Call, request: models.LogRequest) -> models.Log:
    """The end of a run's output, where its digest does not suffice."""
    path = f"/api/experiment/{request.experiment_id}/log"
    headers = {"Range": f"bytes=-{request.last_bytes}", "Accept-Encoding": "identity"}
    response = await call.api.send("GET", path, headers=headers, accept=(404, 416))
    data = response.content if response.is_success else b""  # there is nothing yet
    return models.Log(untrusted_log=sanitize.block(data, request.last_bytes, end=True))


async def note(call: Call, request: models.NoteRequest) -> schemas.NoteAnswer:
    """Leave a note that every agent of the tag gets with its next suggest."""
    return await call.api.post("/api/steer/note", schemas.NoteAnswer, request)


async def cancel(call: Call, request: models.CancelRequest) -> schemas.CancelAnswer:
    """Take an experiment back, queued or running."""
    body = schemas.CancelRequest(reason=request.reason, by="agent")
    path = f"/api/experiment/{request.experiment_id}/cancel"
    return await call.api.post(path, schemas.CancelAnswer, body)


@dataclass(frozen=True)
class Tool:
    """A function as the protocol describes it."""

    run: Run
    name: str
    description: str
    request: type[schemas.Request]
    answer: type[schemas.Answer]
    read_only: bool


def _tool(run: Run) -> Tool:
    hints = get_type_hints(run)
    return Tool(
        run=run,
        name="submit" if run is submit_file else run.__name__,
        description=" ".join((run.__doc__ or "").split()),
        request=hints["request"],
        answer=hints["return"],
        read_only=run not in (setup, submit, submit_file, checkout, note, cancel),
    )


_SHARED = (
    setup, brief, suggest, similar, wait, digest, source, diff, history, best, near_misses, pool,
    log, note, cancel,
)  # fmt: skip
# At /mcp the server has no access to the agent's files; over stdio it runs beside the agent.
REMOTE = [_tool(run) for run in (*_SHARED, submit)]
LOCAL = [_tool(run) for run in (*_SHARED, submit_file, checkout)]

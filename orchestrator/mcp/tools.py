"""The tools: what each is for, what it takes and gives, and the REST call behind it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from orchestrator import schemas
from orchestrator.mcp import models
from orchestrator.mcp.api import Api, ToolError
from orchestrator.rules import sanitize

# Told after each of these, an agent's client knows that the call is alive.
PROGRESS_SECONDS = 10.0
DIFF_BYTES = 60_000

# (seconds gone, seconds in all, where the run stands)
Progress = Callable[[float, float, str], Awaitable[None]]


@dataclass(frozen=True)
class Call:
    """One call of a tool: its arguments, the API, and whom to tell that it goes on."""

    api: Api
    arguments: Any
    progress: Progress


@dataclass(frozen=True)
class Tool:
    """`run` answers with a model of `answer`."""

    name: str
    description: str
    request: type[schemas.Request]
    answer: type[schemas.Answer]
    run: Callable[[Call], Awaitable[schemas.Answer]]
    read_only: bool = True


def _getting(path: str, answer: type[schemas.Answer]) -> Callable[[Call], Awaitable[Any]]:
    """A tool that is a GET with its arguments as the query."""

    async def run(call: Call) -> schemas.Answer:
        query = call.arguments.model_dump(mode="json", exclude_none=True)
        return await call.api.get(path, answer, **query)

    return run


def _posting(path: str, answer: type[schemas.Answer]) -> Callable[[Call], Awaitable[Any]]:
    """A tool that is a POST with its arguments as the body."""

    async def run(call: Call) -> schemas.Answer:
        return await call.api.post(path, answer, call.arguments)

    return run


async def _submit(call: Call) -> schemas.SubmitAnswer:
    request: models.SubmitAndWait = call.arguments
    body = schemas.SubmitRequest(**request.model_dump(exclude={"wait_seconds", "path"}))
    answer = await call.api.post("/api/experiment/submit", schemas.SubmitAnswer, body)
    if not request.wait_seconds:
        return answer
    return await _until_decided(call, answer.experiment_id, request.wait_seconds)


async def _submit_file(call: Call) -> schemas.SubmitAnswer:
    request: models.SubmitFile = call.arguments
    if request.path is not None:
        try:
            text = await anyio.Path(_inside(request.path)).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ToolError(f"{request.path} cannot be read: {error}") from error
        request = request.model_copy(update={"train_py": text})
    return await _submit(Call(call.api, request, call.progress))


async def _wait(call: Call) -> schemas.SubmitAnswer:
    request: models.WaitRequest = call.arguments
    return await _until_decided(call, request.experiment_id, request.seconds)


async def _until_decided(call: Call, experiment_id: str, seconds: float) -> schemas.SubmitAnswer:
    begun = anyio.current_time()
    while True:
        left = max(0.0, begun + seconds - anyio.current_time())
        found = await call.api.get(
            f"/api/experiment/{experiment_id}/wait",
            schemas.ExperimentDetail,
            timeout=min(left, PROGRESS_SECONDS),
        )
        if found.verdict is not None or left <= PROGRESS_SECONDS:
            return schemas.SubmitAnswer(
                experiment_id=found.id,
                status=found.status,
                position=found.position,
                verdict=found.verdict,
            )
        percent = f" at {found.curve[-1].percent:.0f} %" if found.curve else ""
        gone = anyio.current_time() - begun
        await call.progress(gone, seconds, f"{found.status}{percent}")


async def _digest(call: Call) -> schemas.Digest:
    path = f"/api/experiment/{call.arguments.experiment_id}/digest"
    return await call.api.get(path, schemas.Digest)


async def _named(call: Call) -> str:
    """The experiment that a SourceRequest means."""
    request: models.SourceRequest = call.arguments
    if request.experiment_id is not None:
        return request.experiment_id
    found = await call.api.get("/api/experiment/best", schemas.BestAnswer, tag=request.tag)
    return found.best.experiment_id


async def _source(call: Call) -> models.Source:
    experiment_id = await _named(call)
    text = await call.api.text(f"/api/experiment/{experiment_id}/train.py")
    shown = sanitize.visible(text)
    return models.Source(experiment_id=experiment_id, train_py=shown, exact=shown == text)


async def _checkout(call: Call) -> models.Checkout:
    request: models.CheckoutRequest = call.arguments
    target = _inside(request.path)
    experiment_id = await _named(call)
    text = await call.api.text(f"/api/experiment/{experiment_id}/train.py")
    try:
        await anyio.Path(target).write_text(text, "utf-8")
    except OSError as error:
        raise ToolError(f"{request.path} cannot be written: {error}") from error
    return models.Checkout(
        experiment_id=experiment_id, path=request.path, lines=len(text.splitlines())
    )


def _inside(path: str) -> Path:
    """The file below the folder that this process was started in; nothing outside of it."""
    folder = Path.cwd().resolve()
    target = (folder / path).resolve()
    if not target.is_relative_to(folder):
        raise ToolError(f"{path} is outside of {folder}, where this server was started.")
    return target


async def _diff(call: Call) -> models.Diff:
    request: models.DiffRequest = call.arguments
    path = f"/api/experiment/{request.experiment_id}/diff"
    text = await call.api.text(path, against=request.against)
    shown = sanitize.visible(text[:DIFF_BYTES])
    return models.Diff(diff=shown, exact=shown == text)


async def _history(call: Call) -> models.History:
    query = call.arguments.model_dump(mode="json", exclude_none=True)
    found = await call.api.get("/api/experiment/history", schemas.HistoryAnswer, **query)
    return models.History(
        experiments=[_tried(record) for record in found.experiments],
        total=found.total,
        next_cursor=found.next_cursor,
    )


async def _best(call: Call) -> models.Best:
    found = await call.api.get("/api/experiment/best", schemas.BestAnswer, tag=call.arguments.tag)
    return models.Best(best=found.best, experiment=_tried(found.experiment))


def _tried(record: schemas.Record) -> schemas.Tried:
    """A record in short: above all without `error`, which is what a run printed."""
    return schemas.Tried(
        experiment_id=record.id,
        status=record.status,
        category=record.category,
        val_bpb=record.val_bpb or None,
        behind_best=None,
        hypothesis=record.hypothesis,
        diff_summary=record.diff_summary,
    )


async def _cancel(call: Call) -> schemas.CancelAnswer:
    request: models.CancelRequest = call.arguments
    body = schemas.CancelRequest(reason=request.reason, by="agent")
    path = f"/api/experiment/{request.experiment_id}/cancel"
    return await call.api.post(path, schemas.CancelAnswer, body)


async def _log(call: Call) -> models.Log:
    request: models.LogRequest = call.arguments
    path = f"/api/experiment/{request.experiment_id}/log"
    data = await call.api.end_of(path, request.last_bytes)
    return models.Log(untrusted_log=sanitize.block(data, request.last_bytes, end=True))


_SUBMIT = (
    "Queue a train.py and wait for its verdict, which carries a digest: metrics with changes"
    " against parent and best, the thinned curve, warnings, and how a failed run failed."
)

SHARED: Sequence[Tool] = (
    Tool(
        "setup", "Create a tag: a search with its own best. 409: it exists, and you join it.",
        schemas.SetupRequest, schemas.SetupAnswer,
        _posting("/api/experiment/setup", schemas.SetupAnswer), read_only=False,
    ),
    Tool(
        "brief", "Everything needed to go on with a tag, in less than 8 KB. Call it first, and"
        " again whenever your context was lost.",
        schemas.TagRequest, schemas.BriefAnswer, _getting("/api/report/brief", schemas.BriefAnswer),
    ),
    Tool(
        "suggest", "What to try next and what not to, notes from people, and with `idea` what was"
        " already tried near it.",
        schemas.SuggestRequest, schemas.Suggestion,
        _getting("/api/search/suggest", schemas.Suggestion),
    ),
    Tool(
        "similar", "What was already tried near an idea, and how it went.",
        schemas.SimilarRequest, schemas.SimilarAnswer,
        _getting("/api/search/similar", schemas.SimilarAnswer),
    ),
    Tool("wait", "Wait for the verdict of a submitted experiment.",
         models.WaitRequest, schemas.SubmitAnswer, _wait),
    Tool("digest", "A run in less than 2 KB, also while it runs.",
         models.ExperimentRequest, schemas.Digest, _digest),
    Tool("source", "The exact train.py of an experiment, or of a tag's best.",
         models.SourceRequest, models.Source, _source),
    Tool("diff", "What an experiment changed: a unified diff against parent, best or any other.",
         models.DiffRequest, models.Diff, _diff),
    Tool("history", "The newest experiments of a tag in short.",
         models.HistoryRequest, models.History, _history),
    Tool("best", "The best experiment of a tag.", schemas.TagRequest, models.Best, _best),
    Tool(
        "near_misses", "Discarded runs that came close to the best: candidates to combine.",
        schemas.NearMissRequest, schemas.NearMissAnswer,
        _getting("/api/experiment/near-misses", schemas.NearMissAnswer),
    ),
    Tool("pool", "The GPUs and what they do.", models.NoArguments, schemas.PoolAnswer,
         _getting("/api/pool/list", schemas.PoolAnswer)),
    Tool("log", "The end of a run's output, where its digest does not suffice.",
         models.LogRequest, models.Log, _log),
    Tool(
        "note", "Leave a note that every agent of the tag gets with its next suggest.",
        models.NoteRequest, schemas.NoteAnswer, _posting("/api/steer/note", schemas.NoteAnswer),
        read_only=False,
    ),
    Tool("cancel", "Take an experiment back, queued or running.",
         models.CancelRequest, schemas.CancelAnswer, _cancel, read_only=False),
)  # fmt: skip

# At /mcp the files are another machine's; beside the agent they are its own.
REMOTE: Sequence[Tool] = (
    *SHARED,
    Tool("submit", _SUBMIT, models.SubmitAndWait, schemas.SubmitAnswer, _submit, read_only=False),
)
LOCAL: Sequence[Tool] = (
    *SHARED,
    Tool("submit", f"{_SUBMIT} `path` saves sending the text.", models.SubmitFile,
         schemas.SubmitAnswer, _submit_file, read_only=False),
    Tool("checkout", "Write the exact train.py of an experiment, or of a tag's best, to a file.",
         models.CheckoutRequest, models.Checkout, _checkout, read_only=False),
)  # fmt: skip

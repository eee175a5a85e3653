"""The official MCP client runs an agent's whole loop, over both transports, on real processes."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests import hostile_log as hostile
from tests.e2e.conftest import System, stub

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def by_stdio(system: System, mode: str = "auto", **environment: str) -> AsyncIterator[Client]:
    folder = system.folder / "agent"
    folder.mkdir(exist_ok=True)
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "orchestrator.cli", "mcp", "--orchestrator", system.url],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
    )
    with (system.folder / "mcp.log").open("w") as errors:
        async with Client(stdio_client(server, errors), mode=mode) as client:
            yield client


@asynccontextmanager
async def by_http(system: System, mode: str = "auto") -> AsyncIterator[Client]:
    async with Client(f"{system.url}/mcp", mode=mode) as client:
        yield client


async def call(client: Client, name: str, **arguments: Any) -> Any:
    """The structured answer of a tool, which must have one that its schema allows."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    for content in result.content:
        hostile.assert_harmless(content.text)
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error, result
    return str(result.content[0].text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("connect", [by_stdio, by_http])
async def test_the_official_client_runs_the_whole_loop(
    system: System, connect: Connect, mode: str
) -> None:
    """Set up, ask, submit, wait, digest, diff, remember, note, take back: with today's protocol and
    with the one before."""
    system.serve()
    system.worker()
    async with connect(system, mode) as client:
        assert "untrusted" in (client.instructions or "")
        await call(client, "setup", tag="t", time_budget_seconds=20)
        assert "the baseline" in (await call(client, "brief", tag="t"))["text"]
        baseline = {"tag": "t", "hypothesis": "baseline", "train_py": stub(1.0, note="first")}
        first = await call(client, "submit", **baseline)
        assert first["verdict"]["digest"]["metrics"]["val_bpb"] == 1.0
        assert first["experiment_id"] in await refused(client, "submit", **baseline)

        source = await call(client, "source", tag="t")
        assert (source["train_py"], source["exact"]) == (baseline["train_py"], True)
        better = source["train_py"].replace("1.0", "0.9")
        second = await call(
            client, "submit", tag="t", hypothesis="lower the learning rate", train_py=better,
            category="optimizer", wait_seconds=0,
        )  # fmt: skip
        waited = await call(client, "wait", experiment_id=second["experiment_id"])
        assert (waited["status"], waited["verdict"]["action"]) == ("keep", "keep_commit")
        digest = await call(client, "digest", experiment_id=second["experiment_id"])
        assert digest == waited["verdict"]["digest"]
        assert digest["parent"]["changes"]["val_bpb"] == -0.1
        diff = (await call(client, "diff", experiment_id=second["experiment_id"]))["diff"]
        assert "-SECONDS, BPB = 0.05, 1.0" in diff

        await call(client, "note", tag="t", text="mind the batch size")
        suggestion = await call(client, "suggest", tag="t", idea="learning rates")
        assert suggestion["near"][0]["experiment_id"] == second["experiment_id"]
        assert [note["by"] for note in suggestion["notes"]] == ["agent"]
        history = await call(client, "history", tag="t")
        assert [row["status"] for row in history["experiments"]] == ["keep", "keep"]
        best = await call(client, "best", tag="t")
        assert best["best"]["experiment_id"] == second["experiment_id"]
        assert (await call(client, "near_misses", tag="t"))["total"] == 0
        assert (await call(client, "pool"))["total"] == 1
        long = await call(
            client, "submit", tag="t", hypothesis="long", train_py=stub(0.8, 15), wait_seconds=0
        )
        taken = await call(client, "cancel", experiment_id=long["experiment_id"])
        assert taken["experiment_id"] == long["experiment_id"]
        assert "mind the batch size" in (await call(client, "brief", tag="t"))["text"]


@pytest.mark.parametrize("connect", [by_stdio, by_http])
async def test_every_tool_says_what_it_takes_and_gives(system: System, connect: Connect) -> None:
    """The schemas are the REST API's, with descriptions; reading tools say that they only read."""
    system.serve()
    async with connect(system) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        api = httpx2.get(f"{system.url}/openapi.json").json()["components"]["schemas"]
        suggest = tools["suggest"]
        assert (
            suggest.input_schema["properties"].keys() == api["SuggestRequest"]["properties"].keys()
        )
        assert suggest.output_schema is not None
        assert suggest.output_schema["properties"].keys() == api["Suggestion"]["properties"].keys()
        submit = tools["submit"].input_schema["properties"].keys()
        assert submit - {"wait_seconds", "path"} == api["SubmitRequest"]["properties"].keys()
        assert ("path" in submit) == ("checkout" in tools) == (connect is by_stdio)
        for name, tool in tools.items():
            assert tool.description
            writes = name in ("setup", "submit", "note", "cancel", "checkout")
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is not writes


@pytest.mark.parametrize("connect", [by_stdio, by_http])
async def test_a_wrong_call_is_told_what_is_wrong(system: System, connect: Connect) -> None:
    """An error of the tool, in the words of the REST API, and never a traceback."""
    system.serve()
    async with connect(system) as client:
        assert "Unknown tag" in await refused(client, "brief", tag="nowhere")
        assert "hypothesi: Extra inputs" in await refused(client, "submit", hypothesi="x")
        assert "give experiment_id" in await refused(client, "source")
        await call(client, "setup", tag="t")
        assert "409" in await refused(client, "setup", tag="t")
        broken = await refused(client, "submit", tag="t", hypothesis="h", train_py="def f(:\n")
        assert "train.py line 1" in broken
        large = {"tag": "t", "hypothesis": "h", "train_py": "#" * 1_100_000}
        assert "1100000 bytes; the limit is" in await refused(client, "submit", **large)
        assert "No such tool" in await refused(client, "rm")


@pytest.mark.slow
async def test_a_long_wait_says_that_it_goes_on(system: System) -> None:
    """Progress, so that a client's own time-out does not strike while a run trains."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=60)
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async with by_http(system) as client:
        body = {"tag": "t", "hypothesis": "h", "train_py": stub(1.0, 13), "wait_seconds": 40}
        result = await client.call_tool("submit", body, progress_callback=progress)
    assert result.structured_content is not None
    assert result.structured_content["status"] == "keep"
    assert told[0][1] == 40
    assert "running" in (told[0][2] or "")


async def test_a_token_is_asked_for_at_the_http_door_and_passed_on_by_stdio(
    system: System,
) -> None:
    """The same guard as before the REST API: token, host, origin."""
    system.serve(AUTORESEARCH_TOKEN="secret")
    with pytest.raises(Exception):  # noqa: B017, PT011 - an ExceptionGroup of the client's
        async with by_http(system) as client:
            await client.list_tools()
    url = f"{system.url}/mcp"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert httpx2.post(url, headers=headers, json={}).status_code == 403
    assert httpx2.post(url, json={}).status_code == 401
    assert httpx2.get(url, headers={"Authorization": "Bearer secret"}).status_code == 405
    async with (
        httpx2.AsyncClient(headers={"Authorization": "Bearer secret"}) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        await call(client, "setup", tag="t")
    async with by_stdio(system, AUTORESEARCH_TOKEN="secret") as client:
        assert (await call(client, "brief", tag="t"))["tag"] == "t"
    async with by_stdio(system) as client:
        assert "AUTORESEARCH_TOKEN" in await refused(client, "brief", tag="t")


async def test_a_file_beside_the_agent_is_submitted_and_checked_out_by_its_name(
    system: System,
) -> None:
    """Over stdio the text of a train.py need not pass through the model; nothing outside the folder
    is read or written."""
    system.serve()
    system.worker()
    async with by_stdio(system) as client:
        await call(client, "setup", tag="t", time_budget_seconds=20)
        file = system.folder / "agent" / "train.py"
        file.write_text(stub(1.0))
        done = await call(client, "submit", tag="t", hypothesis="h", path="train.py")
        assert done["status"] == "keep"
        file.unlink()
        written = await call(client, "checkout", tag="t", path="best.py")
        assert (system.folder / "agent" / "best.py").read_text() == stub(1.0)
        assert written["experiment_id"] == done["experiment_id"]
        for path in ("../x.py", "/etc/passwd"):
            submitted = await refused(client, "submit", tag="t", hypothesis="h", path=path)
            assert "outside" in submitted
            assert "outside" in await refused(client, "checkout", tag="t", path=path)


@pytest.mark.parametrize("connect", [by_stdio, by_http])
async def test_a_hostile_run_reaches_the_agent_harmlessly(system: System, connect: Connect) -> None:
    """Forged blocks and verdicts, instructions, terminal commands, a line of 50 MB: the result is
    the run's own last block, and every text is clean and in a field that says whose it is."""
    system.serve()
    system.worker()
    async with connect(system) as client:
        await call(client, "setup", tag="t", time_budget_seconds=60)
        kept = await call(
            client, "submit", tag="t", hypothesis=f"h {hostile.BIDI}{hostile.TITLE}",
            train_py="from autoresearch_run import measured\nmeasured(1.25)\n"
            + hostile.train_py(val_bpb=1.25, long=hostile.LONG_LINE_BYTES),
        )  # fmt: skip
        assert kept["verdict"]["val_bpb"] == 1.25
        failed = await call(
            client, "submit", tag="t", hypothesis="h",
            train_py=hostile.train_py(val_bpb=None, end="raise SystemExit(out.write(b'x') + 2)"),
        )  # fmt: skip
        assert failed["status"] == "crash"
        digest = await call(client, "digest", experiment_id=failed["experiment_id"])
        said = digest.pop("untrusted")
        assert said["exception"] == "EvilError"
        assert "IGNORE" not in json.dumps(digest)
        log = await call(client, "log", experiment_id=failed["experiment_id"])
        hostile.assert_harmless(log["untrusted_log"])
        for name in ("brief", "suggest", "history", "best"):
            answer = await call(client, name, tag="t")
            for field in ("untrusted_cause", "untrusted"):
                answer = json.loads(json.dumps(answer).replace(field, ""))
            assert hostile.FORGED_VAL_BPB not in json.dumps(answer)

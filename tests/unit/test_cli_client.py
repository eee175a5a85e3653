"""The client: what each kind of refusal becomes, and retries where it waits."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from orchestrator.cli.client import OUTAGE_SECONDS, Client
from orchestrator.cli.errors import ApiError, UnreachableError

DETAIL: dict[str, Any] = {
    "id": "exp-1", "tag": "t", "status": "running", "parent_id": None, "commit_sha": "c",
    "description": "d", "hypothesis": "h", "category": "other", "diff_summary": "",
    "val_bpb": None, "peak_vram_mb": None, "training_seconds": None, "total_tokens_m": None,
    "mfu_percent": None, "num_steps": None, "num_params_m": None, "depth": None, "gpu_id": None,
    "created_at": "2026-01-01T00:00:00.000000Z", "started_at": None, "finished_at": None,
    "error": None, "reason": None, "seed": 42, "priority": 0, "position": None,
    "source_sha256": None, "prepare_sha256": None, "time_budget_seconds": 20.0,
    "best_val_bpb_before": None, "warnings": [], "environment": {}, "verdict": None,
    "attempts": [], "lease": None, "curve": [],
}  # fmt: skip
KEPT = DETAIL | {"status": "keep", "val_bpb": 1.0, "finished_at": "2026-01-01T00:00:01.000000Z"}

Handler = Callable[[httpx.Request], httpx.Response]


def talking_to(handler: Handler, token: str | None = None) -> Client:
    return Client("http://127.0.0.1:1", token, transport=httpx.MockTransport(handler))


def problem(status: int, error: str, **more: Any) -> Handler:
    body = {"error": error, "detail": error, "status": status} | more
    return lambda _: httpx.Response(status, json=body)


@pytest.mark.parametrize(
    ("status", "exit_code"), [(404, 1), (409, 1), (413, 1), (401, 2), (403, 2), (422, 2), (500, 1)]
)
def test_a_refusal_keeps_its_words_and_gets_an_exit_code(status: int, exit_code: int) -> None:
    client = talking_to(problem(status, "No.", existing={"id": "exp-1"}))
    with client, pytest.raises(ApiError, match="No") as caught:
        client.tags()
    assert caught.value.status == status
    assert caught.value.error.startswith("No.")
    assert caught.value.exit_code == exit_code
    assert caught.value.extra["existing"] == {"id": "exp-1"}


def test_a_missing_token_is_named() -> None:
    with talking_to(problem(401, "Send the token")) as client, pytest.raises(ApiError) as caught:
        client.pool()
    assert "AUTORESEARCH_TOKEN" in caught.value.message


def test_redis_being_away_counts_as_unreachable() -> None:
    with talking_to(problem(503, "Redis is away")) as client, pytest.raises(UnreachableError) as e:
        client.tags()
    assert "Redis is away" in e.value.message


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'{"tags": 1}'])
def test_another_server_at_that_address_is_recognised(content: bytes) -> None:
    client = talking_to(lambda _: httpx.Response(200, content=content))
    with client, pytest.raises(UnreachableError, match="no orchestrator of this version"):
        client.tags()


@pytest.mark.parametrize("status", [302, 404, 405])
def test_another_web_server_is_not_taken_for_an_orchestrator_that_refuses(status: int) -> None:
    client = talking_to(lambda _: httpx.Response(status, content=b"<html>"))
    with client, pytest.raises(UnreachableError, match=r"127.0.0.1:1 is not autoresearch"):
        client.tags()


def test_the_token_goes_with_each_call_and_each_post_has_a_key_of_its_own() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return problem(404, "no")(request)

    from orchestrator.schemas import SetupRequest

    with talking_to(handler, token="secret") as client:
        for _ in range(2):
            with pytest.raises(ApiError):
                client.setup(SetupRequest(tag="t"))
    assert {r.headers["authorization"] for r in seen} == {"Bearer secret"}
    assert len({r.headers["idempotency-key"] for r in seen}) == 2


def test_a_local_orchestrator_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client("http://127.0.0.1:1") as client, pytest.raises(UnreachableError) as caught:
        client.tags()
    assert "127.0.0.1:1 " in caught.value.message


def test_watching_ends_with_the_decision_and_bears_with_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [
        httpx.Response(200, json=DETAIL),
        httpx.Response(202, json=DETAIL),
        httpx.Response(503, json={"error": "away"}),
        httpx.Response(200, json=KEPT),
    ]
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with talking_to(lambda _: answers.pop(0)) as client:
        statuses = [detail.status for detail in client.watch("exp-1")]
    assert statuses == ["running", "running", "running", "keep"]


def test_watching_does_not_begin_with_an_outage() -> None:
    """The first call fails at once if no orchestrator answers."""
    client = talking_to(problem(503, "away"))
    with client, pytest.raises(UnreachableError):
        next(client.watch("exp-1"))


def test_watching_gives_up_when_the_outage_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(time, "monotonic", lambda: now[0] + 1)
    answers = [httpx.Response(200, json=DETAIL)]
    client = talking_to(
        lambda r: answers.pop() if answers else problem(503, "away")(r),
    )
    with client, pytest.raises(UnreachableError):
        list(client.watch("exp-1"))
    assert now[0] >= OUTAGE_SECONDS


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [(206, b"cd", b"cd"), (200, b"abcd", b"cd"), (416, b"", b""), (404, b"{}", b"")],
)
def test_a_log_is_read_on_from_where_the_last_piece_ended(
    status: int, content: bytes, expected: bytes
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["range"].startswith("bytes=2-")
        return httpx.Response(status, content=content)

    with talking_to(handler) as client:
        assert client.log("exp-1", 2) == expected

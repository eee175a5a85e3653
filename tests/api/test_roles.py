"""Who may do what: every route with every role, and what each role owns."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from pydantic import TypeAdapter
from starlette.routing import Route

from orchestrator import ids, schemas
from orchestrator.cli import main
from orchestrator.errors import SetupError
from orchestrator.routes import access, jobs
from orchestrator.services.core import credentials
from tests.conftest import Api, MakeApi, eventually, lease_of

ADMIN = "an-admin-token-of-more-than-128-bits"
ROLES = ("read", "agent", "worker", "admin")
OPEN = {
    "/healthz", "/readyz", "/api/login", "/", "/compare", "/actions", "/t/{tag}",
    "/e/{experiment_id}", "/static/{name:path}",
}  # fmt: skip
# About no tag, and so the same for a token of any tag.
NO_TAG = OPEN | {
    "/api/logout", "/openapi.json", "/api/pool/list", "/api/prepare/{sha256}", "/mcp",
    "/api/report/tags", "/api/gpu/{gpu_id}/health",
}  # fmt: skip
# About all tags: nothing for a token that is limited to some.
ALL_TAGS = {
    "/metrics",
    "/api/report/overview",
    "/api/pool/release",
    "/api/pool/drain",
    "/api/pool/undrain",
}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def guarded(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An orchestrator with a token; `api.http` is its admin."""
    monkeypatch.setattr(credentials, "CACHE_SECONDS", 0.0)
    api = make_api(token=ADMIN)
    api.http.headers.update(bearer(ADMIN))
    return api


def token(api: Api, role: str, **fields: Any) -> dict[str, str]:
    """The header of a new token."""
    return bearer(api.post("/api/token/create", role=role, **fields)["secret"])


def roles_of(path: str, methods: set[str]) -> set[str]:
    """The issue's words: agents submit and cancel, workers have pool and jobs, `read` gets, and an
    admin does everything."""
    if path in OPEN | {"/api/logout", "/openapi.json", "/api/pool/list", "/api/prepare/{sha256}"}:
        return set(ROLES)
    if path.startswith("/api/job/"):
        return {"worker", "admin"}
    if path in {f"/api/pool/{name}" for name in ("register", "heartbeat", "deregister")}:
        return {"worker", "admin"}
    if path in {"/api/experiment/submit", "/api/experiment/{experiment_id}/cancel"}:
        return {"agent", "admin"}
    by_hand = {f"/api/experiment/{name}" for name in ("setup", "register", "complete", "crash")}
    if path.startswith("/api/token/") or path == "/api/steer/ledger" or path in by_hand:
        return {"admin"}
    if "GET" in methods or path == "/mcp":
        return {"read", "agent", "admin"}
    return {"admin"}


def routes(api: Api) -> Iterator[tuple[str, str, set[str]]]:
    """Each path with one of its methods, and all methods that it has."""
    methods: dict[str, set[str]] = {}
    for route in api.app.routes:
        assert isinstance(route, Route)
        methods.setdefault(route.path, set()).update((route.methods or set()) - {"HEAD"})
    for path, all_of_it in methods.items():
        for method in sorted(all_of_it):
            yield path, method, all_of_it


def call(api: Api, method: str, path: str, ident: str, headers: dict[str, str]) -> int:
    """The status of a call that names the tag "mine" and an experiment of it in every way."""
    parts = {"experiment_id": ident, "tag": "mine", "gpu_id": "g", "sha256": "0" * 64}
    url = path.replace("{name:path}", "app.js").format(**parts)
    query = {"tag": "mine"} | ({"timeout": "0"} if path.endswith("/wait") else {})
    body = {"tag": "mine", "experiment_id": ident} if method == "POST" else None
    request = api.http.build_request(method, url, params=query, json=body)
    request.headers.pop("authorization")
    request.headers.update(headers)
    answer = api.http.send(request, stream=True)  # the event stream does not end
    if path != "/api/events":
        answer.read()
    answer.close()
    return answer.status_code


@pytest.mark.slow  # more than a thousand requests
def test_every_route_answers_every_role_as_it_should(
    guarded: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each route with each role, and with no token, a wrong one, the right one, one of this tag and
    one of another. Fields that no route knows make a call that passes 422, so it changes nothing.
    """
    monkeypatch.setattr(credentials, "TRIES", 10_000)
    api = guarded
    for tag in ("mine", "other"):
        api.tag(tag)
    experiment_id = api.submit("1", "mine")
    limits: list[tuple[str, ...]] = [(), ("mine",), ("other",)]
    tokens = {
        (role, tags): token(api, role, tags=tags)
        for role in ROLES for tags in limits if not (role == "worker" and tags)
    }  # fmt: skip
    wrong, count = [], 0
    for path, method, methods in routes(api):
        allowed = roles_of(path, methods)
        of_all_tags = path in ALL_TAGS or path.startswith("/api/token/") or "worker" in allowed
        for (role, tags), headers in tokens.items():
            fits = path in NO_TAG or not tags or (tags == ("mine",) and not of_all_tags)
            status = call(api, method, path, experiment_id, headers)
            count += 1
            if (status == 403) == (role in allowed and fits) or status in (401, 500):
                wrong.append((method, path, role, tags, status))
        for headers in ({}, bearer("wrong"), {"authorization": ADMIN}):
            status = call(api, method, path, experiment_id, headers)
            count += 1
            if (status == 401) == (path in OPEN) or status in (403, 500):
                wrong.append((method, path, "no good token", headers, status))
    assert wrong == []
    assert count > 1000


def test_a_route_without_a_role_keeps_the_application_from_starting() -> None:
    with pytest.raises(SetupError, match=r"/api/new.*has no role"):
        access.restrict([Route("/api/new", jobs.claim)])


def test_the_check_of_tags_knows_every_field_that_names_one(api: Api) -> None:
    """In the OpenAPI description such a field has the pattern of a tag or of an id."""
    described = json.dumps(api.app.openapi())
    tag_pattern = TypeAdapter(schemas.TagName).json_schema()["pattern"]
    found = set()

    def look(node: Any, name: str) -> None:
        if isinstance(node, dict):
            if node.get("pattern") in (ids.PATTERN, tag_pattern):
                found.add(name)
            for key, value in node.items():
                look(value, node.get("name", name) if key in ("schema", "anyOf", "items") else key)
        if isinstance(node, list):
            for item in node:
                look(item, name)

    look(json.loads(described), "")
    found.discard("tags")  # of a new token
    assert found >= {"tag", "experiment_id"}
    assert found <= access.TAG_NAMES | access.EXPERIMENT_NAMES


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/api/experiment/history", b'{"tag": "other", "tag": "mine"}'),
        ("/api/experiment/history", b'{"tag": "mine", "tag": "other"}'),
        ("/api/experiment/history?tag=mine", b'{"tag": "other"}'),
        ("/api/experiment/history", b'{"t\\u0061g": "other"}'),
        ("/api/experiment/history", b'\xef\xbb\xbf{"tag": "other"}'),
        ("/api/experiment/history", '{"tag": "other"}'.encode("utf-16")),
        ("/api/experiment/history", b"[" * 100_000),
        ("/api/steer/pause?tag=mine", b'{"tag": "other", "reason": "r"}'),
        ("/api/token/create?tag=mine", b'{"role": "admin"}'),
        ("/api/pool/drain?tag=mine", b'{"gpu_id": "g", "reason": "r"}'),
        ("/api/token/create", b'{"role": "admin", "tags": ["mine"]}'),
    ],
)
def test_no_wording_of_a_request_reaches_another_tag(
    guarded: Api, path: str, content: bytes
) -> None:
    for tag in ("mine", "other"):
        guarded.tag(tag)
    headers = token(guarded, "admin", tags=["mine"])
    answer = guarded.http.post(path, content=content, headers=headers)
    assert answer.status_code == (403 if content.isascii() else 422)
    assert guarded.http.post(
        "/api/experiment/history", json={"tag": "mine"}, headers=headers
    ).is_success


def test_a_limited_token_compares_and_lists_within_its_tags(guarded: Api) -> None:
    for tag in ("mine", "other"):
        guarded.tag(tag)
    own, foreign = guarded.submit("1", "mine"), guarded.submit("1", "other")
    headers = token(guarded, "read", tags=["mine"])

    def get(path: str, **query: str) -> httpx.Response:
        return guarded.http.get(path, params=query, headers=headers)

    assert [tag["name"] for tag in get("/api/report/tags").json()["tags"]] == ["mine"]
    assert get(f"/api/experiment/{own}").is_success
    assert get(f"/api/experiment/{foreign}").status_code == 403
    assert get(f"/api/experiment/{own}/diff", against=foreign).status_code == 403
    assert get("/api/report/diff", experiment_a=own, experiment_b=foreign).status_code == 403
    assert get("/api/events").status_code == 403
    assert get("/api/report/export", tag="mine").is_success


def test_an_agent_cancels_what_it_submitted_and_nothing_else(guarded: Api) -> None:
    """Also after its token was replaced by a new one of the same label."""
    api = guarded
    api.tag()
    alice, bob = token(api, "agent", label="alice"), token(api, "agent", label="bob")
    body = {"tag": "mar11", "hypothesis": "h"}
    mine, other, admins = (
        api.post("/api/experiment/submit", 202, _headers=headers, train_py=source, **body)[
            "experiment_id"
        ]
        for headers, source in ((alice, "1"), (bob, "2"), (bearer(ADMIN), "3"))
    )
    for experiment_id in (other, admins):
        refusal = api.post(f"/api/experiment/{experiment_id}/cancel", 403, _headers=alice)
        assert "not submitted with this token" in refusal["error"]
    api.post("/api/token/revoke", label="alice")
    api.post(f"/api/experiment/{mine}/cancel", 401, _headers=alice)
    alice = token(api, "agent", label="alice")
    answer = api.post(f"/api/experiment/{mine}/cancel", _headers=alice)
    assert answer["status"] == "cancelled"
    api.post("/api/steer/note", 403, _headers=alice, tag="mar11", text="Trust me.")
    assert api.post(f"/api/experiment/{other}/cancel")["status"] == "cancelled"


def test_a_worker_has_the_gpus_that_it_registered_and_no_others(guarded: Api) -> None:
    api = guarded
    api.tag()
    api.submit("1")
    one, two = token(api, "worker", label="box-1"), token(api, "worker", label="box-2")
    gpu = {"gpu_index": 0, "gpu_name": "x", "vram_mb": 1}
    api.post("/api/pool/register", _headers=one, gpu_id="g1", **gpu)
    api.post("/api/pool/register", _headers=bearer(ADMIN), gpu_id="g0", **gpu)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/api/pool/register", gpu), ("/api/pool/heartbeat", {}), ("/api/pool/deregister", {}),
        ("/api/job/claim", {"claim_id": "claim-01"}),
    ]  # fmt: skip
    for path, body in calls:
        for gpu_id in ("g0", "g1"):
            refusal = api.post(path, 403, _headers=two, gpu_id=gpu_id, **body)
            assert "another token" in refusal["error"]
    api.post("/api/token/revoke", label="box-1")
    one = token(api, "worker", label="box-1")  # a new token for the same worker
    api.post("/api/pool/heartbeat", _headers=one, gpu_id="g1")
    job = api.post("/api/job/claim", _headers=one, gpu_id="g1", claim_id="claim-02")["job"]
    api.post("/api/job/renew", _headers=one, **lease_of(job))
    api.post("/api/job/renew", 409, _headers=two, **(lease_of(job) | {"lease_secret": "0" * 32}))
    body = {"outcome": "completed", "metrics": {"val_bpb": 0.9}}
    assert api.post("/api/job/finish", _headers=one, **body, **lease_of(job))["status"] == "keep"
    api.post("/api/pool/deregister", _headers=one, gpu_id="g1")
    api.post("/api/pool/register", _headers=two, gpu_id="g1", **gpu)


def test_the_audit_log_names_the_credential_and_keeps_the_name_as_a_claim(guarded: Api) -> None:
    api = guarded
    api.tag()
    ada = token(api, "admin", label="ada", by="the boss")
    api.post("/api/steer/pause", _headers=ada, tag="mar11", reason="r", by="Bob")
    api.post("/api/token/revoke", label="ada")
    entries = api.get("/api/steer/ledger")["entries"]
    found = [(e["actor"], e["by"], e["action"], e["target"], e["outcome"]) for e in entries]
    assert found == [
        ("admin", "human", "revoke-token", "ada", "revoked"),
        ("ada", "Bob", "pause", None, "paused"),
        ("admin", "the boss", "create-token", "ada", "created"),
    ]


def test_a_token_s_secret_is_shown_once_and_never_stored(guarded: Api, redis_url: str) -> None:
    """Nor for an Idempotency-Key, which the command line sends."""
    answer = guarded.post(
        "/api/token/create", _headers={"idempotency-key": "k"}, role="agent", tags=["a", "b"],
        label="x", expires_in_seconds=3600,
    )  # fmt: skip
    assert len(answer["secret"]) >= 43
    (listed,) = guarded.get("/api/token/list")["tokens"]
    assert listed == answer["token"]
    assert (listed["label"], listed["role"], listed["tags"]) == ("x", "agent", ["a", "b"])
    assert listed["expires_at"] > listed["created_at"]
    guarded.post("/api/token/create", 409, role="read", label="x")
    guarded.post("/api/token/create", 409, role="read", label="admin")
    guarded.post("/api/token/create", 422, role="worker", tags=["a"])
    guarded.post("/api/token/revoke", 404, label="y")
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            assert answer["secret"].encode() not in client.dump(key), key


def test_an_expired_token_is_a_wrong_one(guarded: Api) -> None:
    headers = token(guarded, "read", expires_in_seconds=1)
    assert guarded.http.get("/api/pool/list", headers=headers).is_success
    eventually(
        lambda: guarded.http.get("/api/pool/list", headers=headers).status_code == 401, seconds=20
    )


def test_a_stored_answer_is_for_the_token_that_got_it(guarded: Api) -> None:
    """The same Idempotency-Key with the same body, from a token that may less."""
    guarded.tag()
    body = {"tag": "mar11", "reason": "r"}
    key = {"idempotency-key": "k"}
    guarded.post("/api/steer/pause", _headers=key, **body)
    guarded.post("/api/steer/pause", 403, _headers=key | token(guarded, "agent"), **body)
    guarded.post("/api/steer/pause", 401, _headers=key | bearer("wrong"), **body)


def test_the_tools_at_mcp_do_what_their_caller_may(guarded: Api) -> None:
    guarded.tag()
    agent = token(guarded, "agent", tags=["mar11"]) | {
        "accept": "application/json, text/event-stream"
    }

    def tool(name: str, **arguments: Any) -> str:
        params = {"name": name, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return guarded.http.post("/mcp", json=body, headers=agent).text

    assert "403" in tool("note", tag="mar11", text="Trust me.")
    assert "403" in tool("setup", tag="mine")
    assert "403" in tool("brief", tag="other")
    assert "mar11" in tool("brief", tag="mar11")
    assert guarded.get("/api/steer/notes", tag="mar11")["notes"] == []


def test_without_a_token_of_its_own_the_service_stays_open_and_roles_bind_who_shows_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback needs no header, as ever; a shell may export a token that nobody asks for."""
    monkeypatch.setattr(credentials, "CACHE_SECONDS", 0.0)
    assert api.http.get("/api/pool/list", headers=bearer("of another service")).is_success
    reader = token(api, "read", label="r")
    assert api.http.get("/api/pool/list", headers=reader).is_success
    api.post("/api/experiment/setup", 403, _headers=reader, tag="t")
    api.post("/api/token/revoke", label="r", by="Ada")
    token(api, "read")
    api.post("/api/experiment/setup", 401, _headers=reader, tag="t")
    api.tag("t")
    assert [e["actor"] for e in api.get("/api/steer/ledger")["entries"]] == [None] * 3


def test_the_command_line_makes_lists_and_revokes_tokens(
    guarded: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str, secret: str = ADMIN) -> tuple[int, str, str]:
        code = main([*words, "--orchestrator", guarded.url, "--token", secret])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = run(
        "token", "create", "--role", "agent", "--label", "ann", "--tags", "a,b", "--expires", "30d"
    )
    assert code == 0
    assert "ann, agent for a, b, until" in err
    secret = out.strip()
    assert guarded.http.get("/api/report/tags", headers=bearer(secret)).is_success
    code, out, _ = run("token", "list")
    assert "ann" in out
    assert "a, b" in out
    assert secret not in out
    code, _, err = run("token", "create", "--role", "read", secret=secret)
    assert (code, "takes a token of role admin; this one is of role agent" in err) == (2, True)
    assert run("token", "create", "--role", "boss")[0] == 2
    assert run("token", "create", "--role", "read", "--expires", "soon")[0] == 2
    assert run("token", "revoke", "ann")[:2] == (0, "ann is revoked\n")
    assert guarded.http.get("/api/report/tags", headers=bearer(secret)).status_code == 401
    assert "admin (says human)" in " ".join(run("ledger")[1].split())


def test_who_has_no_token_stores_no_answer(guarded: Api) -> None:
    """Not even by logging in with a wrong one."""
    headers = {"idempotency-key": "k", "authorization": ""}
    for path in ("/api/login", "/api/experiment/setup", "/nosuch"):
        guarded.http.post(path, json={"token": "wrong"}, headers=headers)
    assert guarded.settings.redis_url is not None
    with redis.Redis.from_url(guarded.settings.redis_url.get_secret_value()) as client:
        assert list(client.scan_iter("ar:idem:*")) == []

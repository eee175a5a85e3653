"""Logging in from a page: cookies instead of the token, a CSRF token for changes, and guessing."""

import hashlib
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import pytest

from orchestrator.routes.cookies import Place
from orchestrator.services.core import credentials
from orchestrator.services.core.sessions import SESSION_SECONDS
from tests.conftest import Api, MakeApi

TOKEN = "s3cret-and-long"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def guarded(make_api: MakeApi) -> Api:
    return make_api(token=TOKEN)


def log_in(api: Api, token: str = TOKEN) -> httpx.Response:
    return api.http.post("/api/login", json={"token": token})


def cookies_of(response: httpx.Response) -> dict[str, "Morsel[str]"]:
    found: dict[str, Morsel[str]] = {}
    for line in response.headers.get_list("set-cookie"):
        found |= SimpleCookie(line)
    return found


def csrf(api: Api) -> dict[str, str]:
    """What a page's script sends along."""
    return {"x-csrf-token": api.http.cookies[named(api, "csrf")]}


def named(api: Api, what: str) -> str:
    """A cookie's name, which has the port in it."""
    return f"autoresearch_{what}_{httpx.URL(api.url).port}"


def test_a_page_logs_in_once_and_then_reads_and_changes_with_its_cookies(guarded: Api) -> None:
    api = guarded
    assert api.http.get("/api/pool/list").status_code == 401
    answer = log_in(api)
    assert answer.status_code == 200
    assert answer.json()["expires_at"]
    assert answer.headers["cache-control"] == "no-store"
    assert api.http.get("/api/pool/list").status_code == 200
    changed = api.http.post("/api/experiment/setup", json={"tag": "t"}, headers=csrf(api))
    assert changed.status_code == 200


def test_the_session_s_cookie_is_out_of_reach_for_scripts_and_other_sites(guarded: Api) -> None:
    """Neither cookie is the token, nor holds it."""
    cookies = cookies_of(log_in(guarded))
    session, readable = (cookies[named(guarded, what)] for what in ("session", "csrf"))
    assert session["httponly"]
    assert not readable["httponly"]
    for cookie in (session, readable):
        assert cookie["samesite"] == "strict"
        assert (cookie["path"], cookie["max-age"]) == ("/", str(SESSION_SECONDS))
        assert TOKEN not in cookie.value


def test_a_change_by_cookie_without_its_csrf_token_is_refused_with_what_to_do(guarded: Api) -> None:
    """Missing, wrong, or that of another session."""
    api = guarded
    log_in(api)
    other = csrf(api)
    api.http.cookies.clear()
    log_in(api)
    for headers in ({}, {"x-csrf-token": "x"}, {"x-csrf-token": ""}, other):
        response = api.http.post("/api/experiment/setup", json={"tag": "t"}, headers=headers)
        assert response.status_code == 403
        assert "X-CSRF-Token" in response.json()["error"]
    assert api.http.get("/api/report/tags").json()["tags"] == []


def test_a_caller_with_the_token_needs_no_csrf_token(guarded: Api) -> None:
    """Not even one that keeps cookies."""
    log_in(guarded)
    response = guarded.http.post("/api/experiment/setup", json={"tag": "t"}, headers=BEARER)
    assert response.status_code == 200


def test_a_session_outlives_a_restart_and_counts_at_every_orchestrator(make_api: MakeApi) -> None:
    """As long as the token is the same, under the address that the page was loaded from."""
    log_in(first := make_api(token=TOKEN))
    second, stranger = make_api(token=TOKEN), make_api(token="another")
    cookies = dict(first.http.cookies)
    headers = {"host": httpx.URL(first.url).netloc.decode()}

    def status(url: str, **more: Any) -> int:
        return httpx.get(f"{url}/api/pool/list", cookies=cookies, **more).status_code

    assert status(second.url, headers=headers) == 200
    assert status(stranger.url, headers=headers) == 401
    assert status(first.url, headers={"host": f"localhost:{httpx.URL(first.url).port}"}) == 401


def test_a_session_is_good_at_its_own_port_only(make_api: MakeApi) -> None:
    """A browser sends a host's cookies to all ports; who listens there cannot use them."""
    log_in(first := make_api(token=TOKEN))
    second = make_api(token=TOKEN)
    value = first.http.cookies[named(first, "session")]
    for name in (named(first, "session"), named(second, "session")):
        answer = httpx.get(f"{second.url}/api/pool/list", cookies={name: value})
        assert answer.status_code == 401


def test_a_session_has_the_rights_of_its_token_and_ends_with_it(
    guarded: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "CACHE_SECONDS", 0.0)
    made = guarded.post("/api/token/create", _headers=BEARER, role="read", label="wall")
    log_in(guarded, made["secret"])
    assert guarded.http.get("/api/report/overview").status_code == 200
    body = {"tag": "t", "reason": "r"}
    assert (
        guarded.http.post("/api/steer/pause", json=body, headers=csrf(guarded)).status_code == 403
    )
    guarded.post("/api/token/revoke", _headers=BEARER, label="wall")
    assert guarded.http.get("/api/report/overview").status_code == 401


def test_events_stream_to_a_page_by_its_cookie(guarded: Api) -> None:
    """An EventSource can send no header."""
    with guarded.http.stream("GET", "/api/events") as response:
        assert response.status_code == 401
    log_in(guarded)
    with guarded.http.stream("GET", "/api/events") as response:
        assert next(response.iter_lines()) == "retry: 1000"


def test_logging_out_ends_the_session_for_a_copy_of_its_cookie_too(guarded: Api) -> None:
    api = guarded
    log_in(api)
    copy = dict(api.http.cookies)
    assert api.http.post("/api/logout").status_code == 403, "not by a foreign form"
    assert api.http.post("/api/logout", headers=csrf(api)).json() == {"ok": True}
    assert dict(api.http.cookies) == {}
    assert httpx.get(f"{api.url}/api/pool/list", cookies=copy).status_code == 401


def test_wrong_tokens_are_slowed_down_and_logged_and_the_right_one_always_passes(
    guarded: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """In the form as with a bearer token."""

    def bearer() -> httpx.Response:
        return guarded.http.get("/api/pool/list", headers={"authorization": "Bearer guess"})

    answers = [log_in(guarded, "guess"), bearer(), bearer(), bearer(), bearer(), bearer()]
    answers.append(log_in(guarded, "guess"))
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert answers[-1].headers["retry-after"] == "60"
    logged = [r.message for r in caplog.records if "wrong token" in r.message]
    assert len(logged) == 5
    assert all("127.0.0.1" in message for message in logged)
    assert guarded.http.get("/api/pool/list", headers=BEARER).status_code == 200
    assert log_in(guarded).status_code == 200


def test_who_guesses_disturbs_nobody_else_and_is_forgotten_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "_REMEMBERED_ADDRESSES", 2)
    service = credentials.Credentials(Any, TOKEN)
    kinds = [type(service.refusal(f"10.0.0.{n // 6}")).__name__ for n in range(12)]
    assert kinds == (["Unauthorized"] * 5 + ["TooManyTries"]) * 2
    kinds = [type(service.refusal(f"10.1.0.{n}")).__name__ for n in range(6)]
    assert kinds[-1] == "TooManyTries", "no list without end: addresses beyond it count together"
    service._period_end = 0.0
    assert type(service.refusal("10.0.0.1")).__name__ == "Unauthorized"


def test_the_page_s_files_need_no_token_and_data_do(guarded: Api) -> None:
    for path in ("/", "/t/mar11", "/e/exp-1", "/compare", "/actions", "/static/app.js"):
        assert guarded.http.get(path).status_code != 401, path
    for path in ("/metrics", "/openapi.json", "/api/report/tags", "/api/login/x", "/tx", "/e"):
        assert guarded.http.get(path).status_code == 401, path


def test_without_a_token_there_is_nothing_to_log_in_to(api: Api) -> None:
    answer = api.http.post("/api/login", json={"token": "any"})
    assert answer.json() == {"ok": True, "expires_at": None}
    assert cookies_of(answer) == {}


def test_a_cookie_that_was_made_up_is_no_session(guarded: Api) -> None:
    """Nor the CSRF token, the token itself, or what the store keeps of a session."""
    log_in(guarded)
    api, name = guarded, named(guarded, "session")
    value = api.http.cookies[name]
    forged = ["", "x", value[:-1], f"{value}x", TOKEN, api.http.cookies[named(api, "csrf")]]
    forged.append(hashlib.sha256(value.encode()).hexdigest())
    for cookie in forged:
        answer = httpx.get(f"{api.url}/api/pool/list", cookies={name: cookie})
        assert answer.status_code == 401, cookie


@pytest.mark.parametrize(
    ("scheme", "host", "name"),
    [
        ("http", "127.0.0.1:3111", "autoresearch_session_3111"),
        ("http", "[::1]:3111", "autoresearch_session_3111"),
        ("http", "box", "autoresearch_session_80"),
        ("https", "box", "__Host-autoresearch_session_443"),
        ("https", "box:8443", "__Host-autoresearch_session_8443"),
        ("http", "127.0.0.1:x", "autoresearch_session_80"),
    ],
)
def test_a_cookie_is_named_by_its_port_and_under_tls_belongs_to_its_host(
    scheme: str, host: str, name: str
) -> None:
    assert Place(scheme, host).session_cookie == name

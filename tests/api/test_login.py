"""Logging in from a page: cookies instead of the token, a CSRF token for changes, and guessing."""

import time
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import pytest

from orchestrator import sessions
from orchestrator.sessions import SESSION_SECONDS, Sessions
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
    return {"x-csrf-token": api.http.cookies["autoresearch_csrf"]}


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
    session, readable = cookies["autoresearch_session"], cookies["autoresearch_csrf"]
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
    """As long as the token is the same."""
    log_in(first := make_api(token=TOKEN))
    second, stranger = make_api(token=TOKEN), make_api(token="another")
    cookies = dict(first.http.cookies)
    assert httpx.get(f"{second.url}/api/pool/list", cookies=cookies).status_code == 200
    assert httpx.get(f"{stranger.url}/api/pool/list", cookies=cookies).status_code == 401


def test_events_stream_to_a_page_by_its_cookie(guarded: Api) -> None:
    """An EventSource can send no header."""
    with guarded.http.stream("GET", "/api/events") as response:
        assert response.status_code == 401
    log_in(guarded)
    with guarded.http.stream("GET", "/api/events") as response:
        assert next(response.iter_lines()) == "retry: 1000"


def test_logging_out_takes_the_cookies_away(guarded: Api) -> None:
    api = guarded
    log_in(api)
    assert api.http.post("/api/logout").status_code == 403, "not by a foreign form"
    assert api.http.post("/api/logout", headers=csrf(api)).json() == {"ok": True}
    assert dict(api.http.cookies) == {}
    assert api.http.get("/api/pool/list").status_code == 401


def test_guessing_has_to_wait(guarded: Api) -> None:
    """Also with the right token, or the wait would tell which one that is."""
    answers = [log_in(guarded, f"guess-{number}") for number in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    answer = log_in(guarded)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert "wait" in answer.json()["error"]
    assert guarded.http.get("/api/pool/list", headers=BEARER).status_code == 200


def test_the_page_s_files_need_no_token_and_data_do(guarded: Api) -> None:
    for path in ("/", "/t/mar11", "/e/exp-1", "/compare", "/actions", "/static/app.js"):
        assert guarded.http.get(path).status_code != 401, path
    for path in ("/metrics", "/openapi.json", "/api/report/tags", "/api/login/x", "/tx", "/e"):
        assert guarded.http.get(path).status_code == 401, path


def test_without_a_token_there_is_nothing_to_log_in_to(api: Api) -> None:
    answer = api.http.post("/api/login", json={"token": "any"})
    assert answer.json() == {"ok": True, "expires_at": None}
    assert cookies_of(answer) == {}


# ---------------------------------------------------------------------------- the cookie itself


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    monkeypatch.setattr(sessions, "_KEY_ITERATIONS", 1)
    return Sessions(TOKEN)


def test_a_session_ends_with_its_time(service: Sessions) -> None:
    session = service.login(TOKEN, "here", 1000.0)
    assert session.expires == 1000 + SESSION_SECONDS
    assert service.csrf_of(session.cookie, session.expires - 1) == session.csrf
    assert service.csrf_of(session.cookie, session.expires) is None


def test_a_cookie_that_was_changed_or_made_up_is_no_session(service: Sessions) -> None:
    """A later end, another signature, the CSRF token in its place, nonsense."""
    session = service.login(TOKEN, "here", time.time())
    expiry, random, signature = session.cookie.split(".")
    forged: list[Any] = [
        f"{int(expiry) + 1}.{random}.{signature}",
        f"{expiry}.{random}.{signature[::-1]}",
        f"{expiry}.{random}.{session.csrf}",
        f"{expiry}.{signature}", f"{expiry}..", "..", ".", "", "é.é.é", TOKEN,
    ]  # fmt: skip
    for cookie in forged:
        assert service.csrf_of(cookie, time.time()) is None, cookie


def test_who_guesses_keeps_nobody_else_out_and_may_try_again_later(service: Sessions) -> None:
    for _ in range(sessions.TRIES):
        with pytest.raises(sessions.Unauthorized):
            service.login("wrong", "there", 0.0)
    with pytest.raises(sessions.TooManyTries):
        service.login(TOKEN, "there", 1.0)
    assert service.login(TOKEN, "here", 1.0)
    assert service.login(TOKEN, "there", sessions.TRIES_SECONDS + 1)

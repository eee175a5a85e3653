"""How the dashboard's files are served; what they do in a browser is tests/browser's affair."""

import gzip
import re
from pathlib import Path

import pytest

from tests.conftest import Api, MakeApi

STATIC = Path(__file__).parents[2] / "orchestrator" / "static"
PAGES = ("/", "/t/mar11", "/e/exp-0660f78349a45a-mar11", "/compare?ids=a,b", "/actions?tag=mar11")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_the_same_document(api: Api, path: str) -> None:
    """The address is read by the script; only it knows which page is meant."""
    response = api.http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text == (STATIC / "index.html").read_text("utf-8")


def test_no_page_runs_a_script_of_elsewhere_or_one_written_into_it(api: Api) -> None:
    """A hostile string that got into the document would still not run."""
    response = api.http.get("/")
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in response.headers["content-security-policy"]
    for script in re.findall(r"<script[^>]*>(.*?)</script>", response.text, re.DOTALL):
        assert script == ""


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("lib/dom.js", "text/javascript; charset=utf-8"),
    ],
)
def test_a_file_is_asked_for_each_time_and_sent_once(api: Api, name: str, media_type: str) -> None:
    """`no-cache` and an ETag: never an old script, and 304 where nothing changed."""
    first = api.http.get(f"/static/{name}", headers={"accept-encoding": "identity"})
    assert first.headers["content-type"] == media_type
    assert first.headers["cache-control"] == "no-cache"
    assert first.content == (STATIC / name).read_bytes()
    again = api.http.get(f"/static/{name}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    with api.http.stream("GET", f"/static/{name}") as compressed:
        assert compressed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(compressed.iter_raw())) == first.content


@pytest.mark.parametrize("path", ["/static/none.js", "/static/../app.py", "/static/%2e%2e/app.py"])
def test_only_the_dashboards_files_are_served(api: Api, path: str) -> None:
    assert api.http.get(path).status_code == 404


def test_the_api_still_says_in_json_what_it_does_not_know(api: Api) -> None:
    for path in ("/api/none", "/none", "/t", "/api/experiment/exp-0660f78349a45a-none"):
        response = api.http.get(path)
        assert response.status_code == 404, path
        assert response.headers["content-type"] == "application/problem+json"


def test_the_files_need_no_token_and_the_data_does(make_api: MakeApi) -> None:
    """The page has to be there to ask for the token."""
    api = make_api(token="s3cret")
    for path in (*PAGES, "/static/app.js"):
        assert api.http.get(path).status_code == 200, path
    assert api.http.get("/api/report/tags").status_code == 401


def test_pages_of_a_foreign_host_name_are_refused(api: Api) -> None:
    assert api.http.get("/", headers={"host": "evil.example"}).status_code == 403


def test_a_page_names_all_its_modules_at_once(api: Api) -> None:
    """A browser that found them one import after the other would wait many times in a row."""
    links = re.findall(r"</static/([^>]+)>", api.http.get("/t/mar11").headers["link"])
    assert {"app.js", "lib/dom.js", "tag/page.js", "tag/chart.js", "tag/style.css"} <= set(links)
    assert not [name for name in links if name.startswith(("overview/", "experiment/"))]
    for name in links:
        assert api.http.get(f"/static/{name}").status_code == 200, name


def test_every_import_of_every_module_is_there(api: Api) -> None:
    """No build step would notice a misspelt one."""
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r"""from ["'](\.[^"']+)["']""", path.read_text("utf-8")):
            assert (path.parent / name).resolve().is_file(), f"{path.name}: {name}"


def test_no_script_writes_markup() -> None:
    """Text of runs is hostile: nothing here may turn a string into elements."""
    for path in STATIC.rglob("*.js"):
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, f"{path.name}: {word}"

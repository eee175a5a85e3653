"""The dashboard's files: one index.html for every page, and what it loads from `/static/`.

The files are kept in memory, compressed once. An ETag is a hash of the content: wheels give all
files one date, so a date would let a browser keep a file of an earlier release.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from posixpath import dirname, normpath

from fastapi import APIRouter, Request, Response

from orchestrator.errors import NotFound

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).resolve().parent.parent / "static"

# Only these kinds are served. Not from the `mimetypes` module, which differs between machines.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMPORT = re.compile(r"""^(?:import|export)\b[^;]*?["'](\.[^"']+)["'];""", re.MULTILINE)
HEADERS = {
    # The browser asks each time: a page must not run an old script against a new service.
    "cache-control": "no-cache",
    "vary": "accept-encoding",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class Asset:
    """A file as it is sent: plain, compressed, and named by its content."""

    media_type: str
    body: bytes
    compressed: bytes
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """All files of the dashboard by their path below `/static/`."""
    found = {}
    for path in STATIC.rglob("*"):
        media_type = MEDIA_TYPES.get(path.suffix)
        if media_type is not None:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            asset = Asset(media_type, body, gzip.compress(body, mtime=0), etag)
            found[path.relative_to(STATIC).as_posix()] = asset
    return found


@cache
def preloads(page: str) -> str:
    """A Link header that names all modules of a page. Each module imports others, so a browser
    without this header would fetch them in as many round trips as the imports are deep."""
    wanted, found = ["app.js", f"{page}/page.js"], dict[str, None]()
    while wanted:
        name = wanted.pop(0)
        if name in found or name not in assets():
            continue
        found[name] = None
        imports = _IMPORT.findall(assets()[name].body.decode())
        wanted += [normpath(f"{dirname(name)}/{path}").lstrip("/") for path in imports]
    links = [f"</static/{name}>; rel=modulepreload" for name in found]
    if f"{page}/style.css" in assets():
        links.append(f"</static/{page}/style.css>; rel=preload; as=style")
    return ", ".join(links)


def _send(name: str, request: Request, **more: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise NotFound(f"No such file: /static/{name}")
    headers = HEADERS | {"etag": asset.etag} | more
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(asset.compressed, media_type=asset.media_type, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


@router.api_route("/static/{name:path}", methods=["GET", "HEAD"])
async def static(name: str, request: Request) -> Response:
    return _send(name, request)


# A page's modules lie in a folder of its name.
PAGES = {
    "/": "overview",
    "/t/{tag}": "tag",
    "/e/{experiment_id}": "experiment",
    "/compare": "compare",
    "/actions": "actions",
}


async def index(request: Request) -> Response:
    """The same document for every page: app.js reads the address."""
    page = PAGES[request.scope["route"].path]
    return _send("index.html", request, link=preloads(page))


for _path in PAGES:
    router.add_api_route(_path, index, methods=["GET", "HEAD"])

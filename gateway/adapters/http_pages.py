"""The pages: every file of the built folder, held in memory and served under its exact path."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.adapters.http import Endpoint

#: Where the build puts them; see hatch_build.py.
FOLDER: Final = Path(__file__).parents[1] / "pages"

#: Nothing of another origin, no inline code, no string that becomes code, and no frame around a page of ours.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_ALL: Final = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}
_HTML: Final = {
    **_ALL,
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".md": "text/plain; charset=utf-8",
}
_NOT_BUILT: Final = """\
Topic Gateway runs; its pages are not built here.
In a checkout: `make pages`, then start it again. Installed wheels have them.
The HTTP API needs no pages: /openapi.json
"""


class File(msgspec.Struct, frozen=True):
    """One file as it is sent: its bytes, the same compressed, and its headers."""

    body: bytes
    zipped: bytes
    headers: dict[str, str]


def read(folder: Path) -> dict[str, File]:
    """Return path → file of ``folder``; none where it is absent. A page is ``/`` or ``/NAME/``."""
    found: dict[str, File] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _TYPES or not path.is_file():
            continue
        name, body = "/" + path.relative_to(folder).as_posix(), path.read_bytes()
        headers = {"content-type": _TYPES[path.suffix], "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
        if path.suffix == ".html":
            headers |= _HTML
        else:
            # What is in assets/ has its digest in its name: another content is another file.
            lasts = "public, max-age=31536000, immutable" if name.startswith("/assets/") else "no-cache"
            headers |= {**_ALL, "cache-control": lasts}
        found[name.removesuffix("index.html")] = File(body, gzip.compress(body, mtime=0), headers)
    return found


def routes(folder: Path = FOLDER) -> list[Route]:
    """Return one route for each file: no path is put together from a request, so none leads anywhere else."""
    made: list[Route] = []
    for path, file in read(folder).items():
        made.append(Route(path, _answering(file)))
        if path.endswith("/") and path != "/":
            made.append(Route(path.removesuffix("/"), _moved))
    return made or [Route("/", _not_built), Route("/{page}/", _not_built)]


def _answering(file: File) -> Endpoint:
    async def answer(request: Request) -> Response:
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if not known.isdisjoint({file.headers["etag"], "*"}):
            return Response(status_code=304, headers=file.headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            # The two are one content in two codings, which a strong tag would deny (RFC 9110, 8.8.3.3).
            headers = {**file.headers, "content-encoding": "gzip", "etag": "W/" + file.headers["etag"]}
            return Response(file.zipped, headers=headers)
        return Response(file.body, headers=file.headers)

    return answer


async def _moved(request: Request) -> Response:
    # Relative, and of the path alone: what the client says of our host is not believed.
    return Response(status_code=308, headers={"location": request.url.path.rpartition("/")[2] + "/"})


async def _not_built(request: Request) -> Response:
    return Response(_NOT_BUILT, 404, {"cache-control": "no-store"}, "text/plain")

"""The pages over HTTP: their headers, their compression, and that nothing but them is served."""

from __future__ import annotations

import gzip
import http.client
import re
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from gateway.adapters.http_pages import FOLDER, read, routes
from gateway.cli.up import front
from tests.web.browser import built


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Built pages in small, beside what nobody may see."""
    (tmp_path / "secret.html").write_text("nobody's business")
    pages = tmp_path / "pages"
    (pages / "console").mkdir(parents=True)
    (pages / "assets").mkdir()
    (pages / "index.html").write_text("<!doctype html>front" * 50)
    (pages / "console/index.html").write_text("<!doctype html>console")
    (pages / "assets/app-1a2b.js").write_text("export {}")
    (pages / "favicon.svg").write_text("<svg/>")
    (pages / "stamp").write_text("0")
    return pages


def door(folder: Path) -> httpx.AsyncClient:
    app = Starlette(routes=list(routes(folder)))
    app.router.redirect_slashes = False
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.example")


async def test_a_page_is_strict_and_asked_for_again(folder: Path) -> None:
    async with door(folder) as ask:
        page = await ask.get("/console/", headers={"accept-encoding": "identity"})
        assert (page.status_code, page.text) == (200, "<!doctype html>console")
        assert page.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            "media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
            "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        )
        assert (page.headers["cache-control"], page.headers["x-content-type-options"]) == ("no-cache", "nosniff")
        again = await ask.get("/console/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == page.headers["content-security-policy"]
        moved = await ask.get("/console")
        assert (moved.status_code, moved.headers["location"]) == (308, "console/")


async def test_what_has_its_digest_in_its_name_is_kept_for_ever(folder: Path) -> None:
    async with door(folder) as ask:
        script = await ask.get("/assets/app-1a2b.js")
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (await ask.get("/favicon.svg")).headers["cache-control"] == "no-cache"


async def test_who_takes_gzip_gets_it_under_a_weak_tag(folder: Path) -> None:
    async with door(folder) as ask:
        plain = await ask.get("/", headers={"accept-encoding": "identity"})
        packed = await ask.get("/", headers={"accept-encoding": "gzip"})
        assert packed.content == plain.content
        assert int(packed.headers["content-length"]) < len(plain.content)
        assert packed.headers["etag"] == "W/" + plain.headers["etag"]
        assert packed.headers["vary"] == "accept-encoding"
        assert (await ask.get("/", headers={"if-none-match": packed.headers["etag"]})).status_code == 304
        assert gzip.decompress(read(folder)["/"].zipped) == plain.content


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/assets/../../secret.html",
        "/%2e%2e/secret.html",
        "/assets/..%2f..%2fsecret.html",
        "//secret.html",
        "/console/index.html/../../../secret.html",
        "/stamp",
        "/assets/",
        "/assets",
        "/index.html%00",
        "/console/index.html",
    ],
)
async def test_no_path_leads_anywhere_else(folder: Path, path: str) -> None:
    async with door(folder) as ask:
        request = httpx.Request("GET", "http://gateway.example/")
        request.url = httpx.URL("http://gateway.example", raw_path=path.encode())
        assert (await ask.send(request)).status_code == http.client.NOT_FOUND


async def test_without_pages_it_says_what_to_do(tmp_path: Path) -> None:
    async with door(tmp_path / "absent") as ask:
        for path in ("/", "/console/"):
            answer = await ask.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
            assert "make pages" in answer.text


def test_what_is_built_is_small_whole_and_ours() -> None:
    built()
    found = read(FOLDER)
    assert {"/", "/console/", "/favicon.svg", "/licenses.md"} <= found.keys()
    assert all(name in found["/licenses.md"].body.decode() for name in ("preact", "centrifuge", "htm", "uplot"))
    budgets = {"/": 60_000, "/console/": 90_000, "/devices/": 65_000, "/chat/": 75_000}
    for page, budget in budgets.items():
        html = found[page].body.decode()
        named = re.findall(r'(?:src|href)="\.*(/?[^"]+)"', html)
        assert named, html
        scripts = [found["/" + name.lstrip("/")] for name in named]
        assert sum(len(one.zipped) for one in scripts) < budget, page
        # Nothing inline, and nothing of anybody else.
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|https?:", html)
    # What draws is loaded once the list is there.
    assert sum(len(one.zipped) for name, one in found.items() if name.startswith("/assets/chart-")) < 25_000


@pytest.mark.parametrize(
    ("edge", "terminal", "ends"),
    [
        ("http://127.0.0.1:8080", True, "/#token=T"),
        ("http://127.0.0.1:8080", False, "/"),
        ("https://gateway.example", True, "/"),
    ],
)
def test_up_shows_an_operators_link_to_a_person_at_this_machine_alone(
    tmp_path: Path, edge: str, terminal: bool, ends: str
) -> None:
    (tmp_path / "operator.token").write_text("T\n")
    assert front(edge, tmp_path / "operator.token", terminal) == edge + ends

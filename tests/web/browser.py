"""A real Chromium, Debian's, for tests of the pages: what it says on its console, and what axe finds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Route, async_playwright, expect

import hatch_build
from gateway.errors import ServerMissing
from tests.servers import missing

#: Widths of a phone and of a desk.
SIZES = {"phone": (390, 844), "desk": (1280, 900)}
Colours = Literal["light", "dark"]
COLOURS: tuple[Colours, ...] = ("light", "dark")
#: A name that means this machine to the browser alone, as a name on the web can be made to (DNS rebinding).
REBOUND = "rebound.example"
_FLAGS = (
    "--no-sandbox",  # root, in CI's containers, has none; what it opens are our own pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)
#: Pictures of what the tests see are written here, where it is set.
PICTURES = os.environ.get("PICTURES", "")

expect.set_options(timeout=20_000)


def program() -> str:
    """Chromium's path; skips with the command that installs it, and fails with ``CI=true``."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing(ServerMissing("Chromium", "sudo apt-get install --no-install-recommends chromium"))
    return found


def built() -> None:
    """Skip where the pages are not built, with ``CI=true`` fail; fail where they are of other sources than web/ has."""
    if not hatch_build.STAMP.exists():
        missing(ServerMissing("a build of the pages", "make pages"))
    if hatch_build.stale():
        pytest.fail("the pages are of other sources than web/ has now: make pages")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    built()
    path = program()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def failing(page: Page, path: str) -> AsyncIterator[None]:
    """Inside the block whatever ``page`` asks at ``path`` is answered 503."""

    async def answer(route: Route) -> None:
        problem = {"detail": "not now", "status": 503}
        await route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem))

    await page.route(path, answer)
    yield
    await page.unroute(path)


class Tab:
    """A page of its own profile, and whatever its console and its scripts complained about."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def picture(self, what: str) -> None:
        if PICTURES:
            await self.page.screenshot(path=Path(PICTURES) / f"{what}-{self.name}.png", full_page=True)

    async def accessible(self, what: str) -> None:
        """Ask axe, and that nothing is wider than the window."""
        await self.picture(what)
        found: Any = await Axe().run(self.page)
        assert not found.response["violations"], f"{what}, {self.name}: {found.generate_report()}"
        wide = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{what}, {self.name}: {wide} pixels too wide"


@asynccontextmanager
async def tab(browser: Browser, size: str = "desk", colours: Colours = "light") -> AsyncIterator[Tab]:
    width, height = SIZES[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=colours, reduced_motion="reduce"
    )
    try:
        yield Tab(await context.new_page(), f"{size}-{colours}")
    finally:
        await context.close()

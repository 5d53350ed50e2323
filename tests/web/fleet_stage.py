"""What the fleet's page is tried on: a running fleet, somebody who looks at it, and what is inked on a chart."""

from __future__ import annotations

import time
from typing import Any

from playwright.async_api import Locator, Page

from tests.devices.fleet import WITHIN, Fleet
from tests.servers import eventually

MINUTE = 60_000

#: How many columns of the plot, from one share of its width to another, show the line: the colour of what is named, and
#: not its band's.
_INKED = """([begin, end, of]) => {
    const canvas = document.querySelector(".chart canvas");
    if (!canvas) return 0;  // what draws is still on its way
    const plot = document.querySelector(".chart .u-over").getBoundingClientRect(), all = canvas.getBoundingClientRect();
    const scale = canvas.width / all.width, width = plot.width * scale, left = (plot.left - all.left) * scale;
    const colour = getComputedStyle(document.querySelector(of)).color.match(/\\d+/g).map(Number);
    const first = Math.round(left + begin * width), columns = Math.round((end - begin) * width);
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const data = copy.getImageData(first, 0, columns, canvas.height).data, found = new Set();
    const inked = (n) => data[n + 3] > 200 && colour.every((one, k) => Math.abs(one - data[n + k]) < 40);
    for (let n = 0; n < data.length; n += 4) if (inked(n)) found.add((n / 4) % columns);
    return found.size / columns;
}"""

#: No frame is drawn, as in a tab that nobody sees, until those that were asked for are let go.
#: What was asked for before is drawn.
HOLD = """() => {
    window.held = []; window.real = requestAnimationFrame;
    window.requestAnimationFrame = (draw) => window.held.push(draw);
    return new Promise((done) => window.real(done));
}"""
LET_GO = "() => { window.requestAnimationFrame = real; held.forEach((draw) => draw(performance.now())); }"


def now() -> int:
    return time.time_ns() // 1_000_000


async def look(page: Page, fleet: Fleet, at: str = "", by: str = "viewer:vera") -> None:
    """Open the page as ``by``, by a link with a token, at the view ``at``."""
    await page.goto(f"{fleet.gateway.url}/devices/#token={fleet.gateway.token(by)}")
    if at:
        await page.evaluate("at => { location.hash = at; }", at)


async def register(fleet: Fleet, *names: str, label: str = "") -> None:
    for name in names:
        await fleet.done("POST", "/devices/registry/", {"device": name, "label": label})


def reading(seq: int, ts: int, **values: float) -> dict[str, Any]:
    return {"boot": "b", "seq": seq, "ts": ts, "m": values}


async def send(fleet: Fleet, device: str, *readings: dict[str, Any]) -> None:
    """As one message of ``device``."""
    await fleet.gateway.publish(f"devices/{device}/telemetry", list(readings))


async def birth(fleet: Fleet, device: str, boot: int = 1, state: str = "online") -> None:
    await fleet.gateway.publish(f"devices/{device}/status", {"state": state, "boot": boot})
    await fleet.gateway.event(f"devices/{device}/presence", within=WITHIN)


async def inked(page: Page, begin: float = 0.0, end: float = 1.0, of: str = ".chart") -> float:
    """Return the share of the plot's columns, from one share of its width to another, that the ink of ``of`` is in."""
    return float(await page.evaluate(_INKED, [begin, end, of]))


async def drawn(page: Page, begin: float, end: float, least: float = 0.0, of: str = ".chart") -> None:
    """The line goes through more than the share ``least`` of the columns between these shares of the plot."""

    async def enough() -> bool:
        return await inked(page, begin, end, of) > least

    await eventually(enough, within=WITHIN)


def mark(nth: int) -> str:
    """What shows the colour of the fleet's ``nth`` line, counted from 1."""
    return f"tr:nth-child({nth}) .mark"


def listed(page: Page, device: str) -> Locator:
    """The row of ``device`` in the list of the fleet."""
    return rows(page, "Devices, by name").filter(has_text=device)


def rows(page: Page, table: str) -> Locator:
    """The rows of the body of a table, by its caption."""
    return page.get_by_role("table", name=table).locator("tbody").get_by_role("row")

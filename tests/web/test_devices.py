"""The fleet's page in a real browser, on the real services: readings, gaps, late data, alerts, a cut connection."""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
from collections.abc import Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.devices.broker import Broker, bridged, broker_of_the_registry
from tests.devices.fleet import WITHIN, Fleet
from tests.servers import eventually
from tests.web.browser import COLOURS, SIZES, tab
from tests.web.fleet_stage import (
    HOLD,
    LET_GO,
    MINUTE,
    birth,
    drawn,
    inked,
    listed,
    look,
    mark,
    now,
    reading,
    register,
    rows,
    send,
)

#: One browser, and one fleet, for all of them: they use different devices.
pytestmark = pytest.mark.asyncio(loop_scope="module")
TIME = re.compile(r"\d\d:\d\d")
HOT = {"kind": "above", "metric": "temp", "threshold": 30, "clear": 25, "severity": "critical"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_of_the_registry(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pumps(fleet: Fleet) -> None:
    """A fleet worth a picture: some there, some not, one too hot, one silent for long."""
    end = now()
    await register(fleet, *(f"pump-{n}" for n in range(1, 6)), label="cooling, hall 2")
    rule = {**HOT, "devices": "pump-*"}
    await fleet.done("PUT", "/devices/alerting/rules/pump-hot", rule)
    await fleet.done("PUT", "/devices/alerting/rules/pump-slow", {**rule, "for": 86_400, "severity": "info"})
    for n in range(1, 5):
        await birth(fleet, f"pump-{n}")
    await birth(fleet, "pump-2", state="offline")
    for n in (1, 3, 4):
        first = end - 55 * MINUTE
        wave = [
            reading(
                k,
                first + k * 7000,
                temp=round(20 + n + 2 * math.sin(k / 25) + k % 3 / 4, 2),
                flow=3 + n,
                rpm=1450 + k % 9,
            )
            for k in range(450)
            if not 380 < k < 400
        ]
        await send(fleet, f"pump-{n}", *wave)
    await send(fleet, "pump-2", reading(1, end - 40 * MINUTE, temp=19, flow=0))
    await send(fleet, "pump-3", reading(460, end, temp=34.5, flow=6))
    await fleet.rests()


async def test_a_sensor_moves_over_mqtt_and_its_line_grows(fleet: Fleet, broker: Broker, browser: Browser) -> None:
    word = (await fleet.done("POST", "/devices/registry/", {"device": "tank-1", "label": "hall 2"}))["password"]
    sensor = await broker.enters("tank-1", word)

    async def says(topic: str, payload: object) -> None:
        assert await asyncio.to_thread(sensor.publish, f"devices/tank-1/{topic}", json.dumps(payload).encode()) == 0

    try:
        async with bridged(fleet, broker), tab(browser) as one:
            page = one.page
            await look(page, fleet)
            row = listed(page, "tank-1")
            await expect(row).to_contain_text("hall 2")
            await expect(row).to_contain_text("never seen")
            await says("status", {"state": "online", "boot": 7})
            await expect(row).to_contain_text("✓ online")
            await says("telemetry", reading(1, now() - 2000, temp=20.5, level=3))
            await expect(row).to_contain_text("temp 20.5")
            await row.get_by_role("link").click()
            await expect(page.get_by_role("heading", name="tank-1")).to_be_focused()
            # The first of its metrics by name, until one is chosen; what came before is there.
            await expect(page.get_by_label("Metric")).to_have_value("level")
            await page.get_by_label("Metric").select_option("temp")
            points = rows(page, "Readings")
            await expect(points).to_have_count(1)
            await expect(page.get_by_role("img")).to_have_attribute(
                "aria-label", "temp of tank-1, the last 15 minutes: from 20.5 to 20.5, at last 20.5"
            )
            for seq, temp in enumerate((21, 22.25, 19), 2):
                # No two of one millisecond: they would be one point.
                await says("telemetry", reading(seq, now() + seq, temp=temp))
            await expect(points).to_have_count(4)
            await expect(points.first).to_contain_text("19")
            await expect(rows(page, "Last values").filter(has_text="temp")).to_contain_text("19")
            assert await inked(page) > 0
            # What it says when it leaves, as its will does when it cannot.
            await says("status", {"state": "offline", "boot": 7})
            await expect(page.get_by_text("! offline")).to_be_visible()
            await page.get_by_role("link", name="All devices").click()
            await expect(row).to_contain_text("! offline")
            await page.get_by_label("Show").select_option("Online")
            await expect(row).to_be_hidden()
            await page.get_by_label("Show").select_option("Offline")
            await expect(row).to_be_visible()
            assert one.complaints == []
    finally:
        sensor.close()


async def test_late_data_finds_its_place_and_a_gap_is_a_gap(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "late-1")
    begin = now() - 10 * MINUTE
    every = [reading(n, begin + n * 1000, temp=20 + n % 7) for n in range(540)]
    await send(fleet, "late-1", *every[:60])
    await send(fleet, "late-1", *every[480:])
    async with tab(browser) as one:
        page = one.page
        await look(page, fleet, "device/late-1/temp/15m")
        label = page.get_by_role("img")
        await expect(label).to_have_attribute(
            "aria-label", "temp of late-1, the last 15 minutes: from 20 to 26, at last 20"
        )
        await expect(page.get_by_text("The newest 100 of 120")).to_be_visible()
        # Between the two runs nothing came, and nothing is drawn.
        await drawn(page, 0.1, 0.45)
        assert await inked(page, 0.5, 0.7) == 0
        losses = rows(page, "Losses by start")
        await expect(losses).to_contain_text("420")
        # They come at last, one of them twice: the line is whole, and the newest is what it was.
        await send(fleet, "late-1", *every[60:480], every[479])
        await expect(page.get_by_text("The newest 100 of 540")).to_be_visible()
        await drawn(page, 0.5, 0.7, 0.9)
        await expect(label).to_have_attribute(
            "aria-label", "temp of late-1, the last 15 minutes: from 20 to 26, at last 20"
        )
        await expect(losses.get_by_role("cell")).to_have_text(["b", "540", "1", "0"])
        # And so it is for whoever comes later.
        await page.reload()
        await expect(page.get_by_text("The newest 100 of 540")).to_be_visible()
        assert one.complaints == []


async def test_longer_than_a_quarter_of_an_hour_it_is_minutes_and_analytics_corrects_them(
    fleet: Fleet, browser: Browser
) -> None:
    await register(fleet, "slow-1")
    begin = now() // MINUTE * MINUTE - 40 * MINUTE
    async with tab(browser) as one:
        page = one.page
        await look(page, fleet, "device/slow-1/temp/1h")
        await expect(page.get_by_text("Nothing came in this time")).to_be_visible()
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        for n in range(20):
            pair = (reading(2 * n + k, begin + n * MINUTE + k * 1000, temp=20 + n % 3 + k) for k in (0, 1))
            await send(fleet, "slow-1", *pair)
        minutes = rows(page, "Minutes")
        await expect(minutes).to_have_count(20)
        await expect(minutes.last.get_by_role("cell")).to_have_text([TIME, "20.5", "20", "21", "2"])
        last = page.locator("dl")
        await expect(last).to_contain_text("✓ usual")
        # One that nobody is used to; told once the minute is over by the device's own clock.
        await send(fleet, "slow-1", reading(40, begin + 20 * MINUTE, temp=90))
        await send(fleet, "slow-1", reading(41, begin + 22 * MINUTE, temp=21))
        await expect(last).to_contain_text("✕ unusual")
        await one.accessible("unusual")
        # There is no minute 21, and no line through it; the minute before has a neighbour.
        await expect(minutes).to_have_count(22)
        await send(fleet, "slow-1", reading(42, begin + 500, temp=26))
        await expect(minutes.last.get_by_role("cell")).to_have_text([TIME, "22.333", "20", "26", "3"])
        await page.reload()
        await expect(minutes.last.get_by_role("cell")).to_have_text([TIME, "22.333", "20", "26", "3"])
        await page.get_by_label("24 hours").check()
        await expect(page).to_have_url(re.compile("#device/slow-1/temp/24h$"))
        await expect(minutes).to_have_count(22)
        await drawn(page, 0.9, 1)
        assert one.complaints == []


async def test_more_readings_than_a_chart_can_draw_are_minutes(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "fast-1")
    begin = now() // MINUTE * MINUTE - 10 * MINUTE
    for first in range(0, 3001, 500):
        await send(fleet, "fast-1", *(reading(n, begin + n * 100, temp=n % 2) for n in range(first, first + 500)))
    await fleet.rests()
    async with tab(browser) as one:
        await look(one.page, fleet, "device/fast-1/temp/15m")
        minutes = rows(one.page, "Minutes")
        await expect(minutes).to_have_count(6)
        await expect(minutes.last.get_by_role("cell")).to_have_text([TIME, "0.5", "0", "1", "600"])
        # What comes live is counted in.
        await send(fleet, "fast-1", reading(3500, begin + 6 * MINUTE, temp=7))
        await expect(minutes.first.get_by_role("cell")).to_have_text([TIME, "7", "7", "7", "1"])
        assert one.complaints == []


async def test_an_alert_fires_is_acknowledged_and_resolved(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "oven-1")
    await fleet.done("PUT", "/devices/alerting/rules/hot", {**HOT, "devices": "oven-*"})
    slow = {**HOT, "devices": "oven-*", "for": 3600, "severity": "info"}
    await fleet.done("PUT", "/devices/alerting/rules/slowly", slow)
    async with tab(browser) as mary, tab(browser) as vera:
        await look(mary.page, fleet, "alerts", by="operator:mary")
        await look(vera.page, fleet, "fleet", by="viewer:vera")
        await expect(mary.page.get_by_role("row", name="hot")).to_contain_text("temp above 30, until it is 25")
        await expect(listed(vera.page, "oven-1")).to_contain_text("none")
        await vera.page.get_by_label("Name or label").fill("oven")
        # Ahead of the time as a device's clock may be: the end of the line stays where it is while we look at it.
        ahead = now() + 4 * MINUTE
        await send(fleet, "oven-1", reading(1, ahead, temp=24))
        line = rows(vera.page, "Lines of the chart")
        await expect(line).to_contain_text("24")
        await drawn(vera.page, 1, 1.05, of=mark(1))  # its number
        assert await inked(vera.page, 1, 1.05) == 0
        await expect(line).not_to_contain_text("firing")
        await send(fleet, "oven-1", reading(2, ahead + 1, temp=42.5))
        await expect(listed(vera.page, "oven-1")).to_contain_text("✕ 1 firing")
        # On the chart: a cross at its end, a thicker line, and the word beside its name.
        await expect(line).to_contain_text("✕ firing")
        await drawn(vera.page, 1.03, 1.06)  # right of its number
        await expect(line.locator(".mark")).to_have_css("border-top-width", "4px")
        await expect(vera.page.get_by_role("img")).to_have_attribute("aria-label", re.compile("fire at oven-1$"))
        firing = rows(mary.page, "Alerts that fire").filter(has_text="oven-1")
        await expect(firing).to_contain_text("✕ critical")
        await expect(firing).to_contain_text("42.5")
        await expect(mary.page.get_by_role("status").last).to_have_text("hot fires at oven-1")
        await expect(rows(mary.page, "Alerts that are pending")).to_contain_text("slowly")
        await firing.get_by_role("button", name="Acknowledge hot oven-1").click()
        dialog = mary.page.get_by_role("dialog", name="Acknowledge")
        await dialog.get_by_label("Comment").fill("on my way <b>")
        await dialog.get_by_role("button", name="Acknowledge").click()
        await expect(dialog).to_be_hidden()
        await expect(firing).to_contain_text("✓ by operator:mary on my way <b>")
        # Who only looks sees the same, and nothing to press.
        await listed(vera.page, "oven-1").get_by_role("link").click()
        await expect(vera.page.get_by_text("hot fires, acknowledged")).to_be_visible()
        await vera.page.get_by_role("navigation").get_by_role("link", name="Alerts").click()
        await expect(rows(vera.page, "Alerts that fire").filter(has_text="oven-1")).to_contain_text("on my way")
        assert await vera.page.get_by_role("main").get_by_role("button").count() == 0
        await send(fleet, "oven-1", reading(3, ahead + 2, temp=20))
        await expect(rows(vera.page, "Alerts that are resolved").filter(has_text="oven-1")).to_be_visible()
        await expect(firing).to_be_hidden()
        assert mary.complaints + vera.complaints == []
    for rule in ("hot", "slowly"):
        await fleet.done("DELETE", f"/devices/alerting/rules/{rule}")


async def test_cut_and_back_the_line_has_no_hole_and_the_page_said_so(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "cut-1")
    begin = now() - MINUTE
    await send(fleet, "cut-1", *(reading(n, begin + n * 1000, temp=20) for n in range(10)))
    async with tab(browser) as one:
        page = one.page
        await look(page, fleet, "device/cut-1/temp/15m")
        points = rows(page, "Readings")
        await expect(points).to_have_count(10)
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        await page.context.set_offline(True)
        await expect(page.get_by_text("Reconnecting.", exact=True)).to_be_visible()
        await one.accessible("reconnecting")
        await send(fleet, "cut-1", *(reading(n, begin + n * 1000, temp=21) for n in range(10, 30)))
        await page.context.set_offline(False)
        await expect(page.get_by_text("Reconnecting.", exact=True)).to_be_hidden()
        await expect(points).to_have_count(30)
        await expect(page.get_by_role("alert")).to_be_hidden()
        await send(fleet, "cut-1", reading(30, begin + 30_000, temp=22))
        await expect(points).to_have_count(31)
        complained = [text for text in one.complaints if "ERR_INTERNET_DISCONNECTED" not in text]
        assert complained == []


@pytest.mark.parametrize("view", ["fleet", "device"])
async def test_a_hidden_tab_draws_nothing_and_what_came_is_drawn_at_once(
    fleet: Fleet, browser: Browser, view: str
) -> None:
    name = f"busy-{view}-{secrets.token_hex(2)}"
    await register(fleet, name)
    begin = now() - MINUTE
    await send(fleet, name, reading(0, begin, temp=20))
    async with tab(browser) as one:
        page, heard = one.page, list[str]()
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: heard.append(str(data))))
        await look(page, fleet, "fleet" if view == "fleet" else f"device/{name}/temp/15m")
        if view == "fleet":
            await page.get_by_label("Name or label").fill(name)
        image = page.get_by_role("img")
        await expect(image).to_have_attribute("aria-label", re.compile("from 20 to 20"))
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        # As a browser does with a tab that nobody sees: no frame, until somebody looks.
        await page.evaluate(HOLD)
        for n in range(1, 81):
            await send(fleet, name, reading(n, begin + n * 10, temp=20 + n))
        await eventually(lambda: '"seq":80' in "".join(heard), within=WITHIN)
        await expect(image).to_have_attribute("aria-label", re.compile("from 20 to 20"))
        assert await page.evaluate("held.length") < 10  # eighty came
        await page.evaluate(LET_GO)
        await expect(image).to_have_attribute("aria-label", re.compile("from 20 to 100"))
        assert one.complaints == []


async def test_a_customer_is_told_whom_the_page_is_for(fleet: Fleet, browser: Browser) -> None:
    async with tab(browser) as one:
        await look(one.page, fleet, by="user:carl")
        await expect(one.page.get_by_role("main")).to_contain_text("for viewers and operators. You are here as a user")
        assert await one.page.get_by_role("table").count() == 0
        await one.accessible("not-for-customers")
        assert one.complaints == []  # nothing was asked that is refused


async def test_the_keyboard_is_enough(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "keys-1", "keys-2")
    await send(fleet, "keys-2", reading(1, now(), temp=42, level=1))
    async with tab(browser) as one:
        page, keys = one.page, one.page.keyboard
        await look(page, fleet)
        await expect(listed(page, "keys-2")).to_be_visible()

        async def tab_to(what: str) -> None:
            for _ in range(60):
                await keys.press("Tab")
                if await page.locator(":focus").and_(page.locator(what)).count():
                    return
            pytest.fail(f"{what!r} is not reached by Tab")

        await tab_to("input[type=search]")
        await keys.type("keys-2")
        await expect(listed(page, "keys-1")).to_be_hidden()
        await tab_to("td a:not(.legend a)")
        await keys.press("Enter")
        await expect(page.get_by_role("heading", name="keys-2")).to_be_focused()
        await expect(page.locator("select option")).to_have_text(["level", "temp"])
        await expect(page.locator("select")).to_have_value("level")
        await tab_to("select")
        await keys.press("ArrowDown")
        await expect(page).to_have_url(re.compile("/temp/15m$"))
        await tab_to("input[type=radio]")
        await keys.press("ArrowDown")
        await expect(rows(page, "Minutes")).to_have_count(1)
        await tab_to(".rows")
        assert one.complaints == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("pumps")
async def test_axe_finds_nothing_by_day_and_by_night(fleet: Fleet, browser: Browser, size: str) -> None:
    for colours in COLOURS:
        async with tab(browser, size, colours) as one:
            page = one.page
            await look(page, fleet, by="operator:mary")
            await page.get_by_label("Name or label").fill("pump")
            await expect(listed(page, "pump-3")).to_contain_text("flow")
            await expect(listed(page, "pump-3")).to_contain_text("firing")
            await page.get_by_label("Metric").select_option("temp")
            await drawn(page, 0.2, 1, of=mark(1))
            await drawn(page, 0.5, 1.05)  # the cross, wherever its reading is by now
            await one.accessible("fleet")
            await listed(page, "pump-3").get_by_role("link").click()
            await page.get_by_label("Metric").select_option("temp")
            await drawn(page, 0, 1)
            await one.accessible("device")
            await page.get_by_label("1 hour").check()
            await expect(rows(page, "Minutes").first).to_be_visible()
            await drawn(page, 0, 1)
            await one.accessible("device-hour")
            await page.get_by_role("navigation").get_by_role("link", name="Alerts").click()
            await expect(rows(page, "Alerts that fire").first).to_be_visible()
            await one.accessible("alerts")
            await rows(page, "Alerts that fire").first.get_by_role("button").click()
            await expect(page.get_by_label("Comment")).to_be_visible()
            await one.accessible("acknowledge")
            assert one.complaints == []

"""A device's settings in a real browser, on the real services: what is wanted of it, and what it says of itself."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.devices.fleet import Fleet
from tests.web.browser import COLOURS, SIZES, tab
from tests.web.fleet_stage import look, register, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_is_wanted_of_a_device_is_said_and_seen_to_be_so(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "set-1")
    said = "devices/set-1/shadow/update"
    await fleet.gateway.publish(said, {"reported": {"every": 60, "led": {"on": True}}})
    async with tab(browser) as one, tab(browser) as other:
        page = one.page
        await look(page, fleet, "device/set-1/temp/15m", by="operator:mary")
        await look(other.page, fleet, "device/set-1/temp/15m", by="viewer:vic")
        table = rows(page, "Settings: what is wanted, and what the device says")
        every, color = table.filter(has_text="every"), table.filter(has_text="led.color")
        await expect(every).to_contain_text("60")
        for setting, value in (("every", "5"), ("led.color", "red")):
            await page.get_by_role("textbox", name="Setting").fill(setting)
            await page.get_by_role("textbox", name="Value").fill(value)
            await page.get_by_role("button", name="Want it so").click()
            await expect(table.filter(has_text=setting)).to_contain_text(value)
        await expect(color).to_contain_text('"red"')
        await expect(every).to_contain_text("not yet")
        await expect(page.get_by_role("region", name="Settings")).to_contain_text("2 not yet as wanted")
        await fleet.gateway.publish(said, {"reported": {"every": 5, "led": {"color": "red"}}})
        for tab_of in (page, other.page):
            await expect(tab_of.get_by_role("region", name="Settings")).to_contain_text("as wanted")
            await expect(tab_of.get_by_role("region", name="Settings")).not_to_contain_text("not yet")
        await expect(other.page.get_by_role("button", name="Want it so")).to_have_count(0)
        await page.get_by_role("textbox", name="Setting").fill("led.color")
        await page.get_by_role("button", name="Want it so").click()
        await expect(color).to_contain_text("–")
        assert (await fleet.get("/devices/shadow/set-1"))["desired"] == {"every": 5, "led": {}}
        await page.reload()
        await expect(every).to_contain_text("5")
        assert one.complaints == other.complaints == []


async def test_what_the_device_cannot_hold_is_refused_in_words(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "set-2")
    async with tab(browser) as one:
        page = one.page
        await look(page, fleet, "device/set-2/temp/15m", by="operator:mary")
        settings = page.get_by_role("region", name="Settings")
        await expect(settings).to_contain_text("Nothing is wanted of it")
        await page.get_by_role("textbox", name="Setting").fill("a.b.c.d.e.f.g.h.i")
        await page.get_by_role("textbox", name="Value").fill("1")
        await page.get_by_role("button", name="Want it so").click()
        await expect(settings.get_by_role("alert")).to_contain_text("deeper than 8 levels")
        await expect(settings).to_contain_text("Nothing is wanted of it")


@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_by_day_and_by_night(fleet: Fleet, browser: Browser, size: str) -> None:
    device = f"set-{size}"
    await register(fleet, device, label="hall 2")
    reported = {"every": 7, "valve": {"open": True}, "zones": [1, 2]}
    await fleet.gateway.publish(f"devices/{device}/shadow/update", {"reported": reported})
    await fleet.done("PATCH", f"/devices/shadow/{device}", {"desired": {"every": 5}})
    for colours in COLOURS:
        async with tab(browser, size, colours) as one:
            await look(one.page, fleet, f"device/{device}/temp/15m", by="operator:mary")
            settings = one.page.get_by_role("region", name="Settings")
            await expect(settings).to_contain_text("1 not yet as wanted")
            await expect(settings).to_contain_text("zones")
            await one.accessible("settings")
            assert one.complaints == []

"""The fleet's chart in a real browser, on the real services: its lines grow live, and the filter chooses them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.devices.fleet import Fleet
from tests.web.browser import tab
from tests.web.fleet_stage import (
    HOLD,
    LET_GO,
    MINUTE,
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

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_fleets_lines_grow_live_the_filter_chooses_them_and_a_cut_leaves_no_hole(
    fleet: Fleet, browser: Browser
) -> None:
    await register(fleet, "fan-1", "fan-2", "fan-3")
    # To be seen for four minutes where it is looked for.
    begin = now() - 8 * MINUTE
    for n in (1, 2):
        await send(fleet, f"fan-{n}", *(reading(k, begin + k * 5000, temp=20 + n + k % 3) for k in range(95)))
    await send(fleet, "fan-3", reading(1, begin, level=4))
    async with tab(browser) as one:
        page = one.page
        await look(page, fleet)
        await page.get_by_label("Name or label").fill("fan")
        await expect(page.get_by_label("Metric")).to_have_value("temp")  # the most common
        image, lines = page.get_by_role("img"), rows(page, "Lines of the chart")

        async def says(count: str, end: str) -> None:
            await expect(image).to_have_attribute("aria-label", f"temp of {count}, the last 15 minutes: from {end}")

        await says("2 devices", "21 to 24")
        await expect(lines).to_have_count(2)
        for nth in (1, 2):
            await drawn(page, 0.5, 0.7, 0.9, of=mark(nth))
            assert await inked(page, 0, 0.15, of=mark(nth)) == 0
        # What is measured by more of them from now on does not take the place of what is looked at.
        await expect(listed(page, "fan-3")).to_contain_text("level")
        for n in (1, 2, 3):
            await send(fleet, f"fan-{n}", reading(300, now(), hum=50))
            await expect(listed(page, f"fan-{n}")).to_contain_text("hum")
        await expect(page.get_by_label("Metric")).to_have_value("temp")
        # What comes live, while storage says nothing: a point, and a line of a device that did not measure this before.
        storage = "**/devices/storage/*/series/**"
        await page.route(storage, lambda _: None)
        await send(fleet, "fan-2", reading(200, now(), temp=30))
        await says("2 devices", "21 to 30")
        await expect(lines.nth(1)).to_contain_text("30")
        await send(fleet, "fan-3", reading(2, now(), temp=35))
        await says("3 devices", "21 to 35")
        await drawn(page, 0.6, 1, of=mark(3))
        await page.unroute(storage)
        await page.context.set_offline(True)
        await expect(page.get_by_text("Reconnecting.", exact=True)).to_be_visible()
        await send(fleet, "fan-1", *(reading(k, begin + k * 5000, temp=18) for k in range(95, 105)))
        await page.context.set_offline(False)
        await says("3 devices", "18 to 35")
        await page.get_by_label("Name or label").fill("fan-2")
        await says("1 device", "22 to 30")
        await drawn(page, 0.5, 0.7, 0.9, of=mark(1))
        await page.get_by_label("Show").select_option("Online")
        await expect(lines).to_have_count(0)
        await expect(page.get_by_role("region", name="The lines")).to_contain_text(
            "None of these devices measures temp."
        )
        await page.get_by_label("Show").select_option("All devices")
        await page.get_by_label("Name or label").fill("fan")
        # Until it is drawn, nothing of what was shown before stands under the other name.
        await page.evaluate(HOLD)
        await page.get_by_label("Metric").select_option("level")
        level = "level of 1 device, the last 15 minutes:"
        await expect(image).to_have_attribute("aria-label", f"{level} nothing came")
        await page.evaluate(LET_GO)
        await expect(image).to_have_attribute("aria-label", f"{level} from 4 to 4")
        await expect(lines).to_have_count(1)
        await lines.get_by_role("link", name="fan-3").click()
        await expect(page).to_have_url(re.compile("#device/fan-3/level/15m$"))
        complained = [text for text in one.complaints if "ERR_INTERNET_DISCONNECTED" not in text]
        assert complained == []


async def test_a_storage_that_never_answers_is_told_until_it_does(fleet: Fleet, browser: Browser) -> None:
    await register(fleet, "mute-1")
    await send(fleet, "mute-1", reading(1, now() - MINUTE, temp=20))
    async with tab(browser) as one:
        page, storage = one.page, "**/devices/storage/*/series/**"
        # The page's patience, a tenth of it.
        await page.add_init_script(
            "const real = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = (ms) => real(ms / 10);"
        )
        await page.route(storage, lambda _: None)
        await look(page, fleet, "device/mute-1/temp/15m")
        await expect(page.get_by_role("alert")).to_contain_text("the gateway does not answer")
        await page.unroute(storage)
        await expect(rows(page, "Readings")).to_have_count(1)
        await expect(page.get_by_role("alert")).to_be_hidden()


async def test_of_many_devices_the_first_by_name_are_drawn_and_it_says_so(fleet: Fleet, browser: Browser) -> None:
    names = [f"crowd-{n:02}" for n in range(1, 15)]
    await register(fleet, *names)
    for n, name in enumerate(names):
        await send(fleet, name, reading(1, now(), temp=n))
    await fleet.rests()
    async with tab(browser) as one:
        await look(one.page, fleet)
        await one.page.get_by_label("Name or label").fill("crowd")
        await expect(one.page.get_by_role("region", name="The lines")).to_contain_text("The first 12 of 14 by name")
        lines = rows(one.page, "Lines of the chart")
        await expect(lines).to_contain_text(names[:12])
        looks = await one.page.locator(".mark").evaluate_all(
            "all => all.map((one) => getComputedStyle(one)).map((one) => one.color + one.borderTopStyle)"
        )
        assert len(set(looks)) == 12
        assert one.complaints == []

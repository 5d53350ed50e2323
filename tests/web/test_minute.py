"""The front page: its minute, walked in a real browser on a real `gateway up --demo`; and a gateway without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from gateway.cli.up import front
from tests.gateways import token
from tests.journeys.running_up import WHOLE_WITHIN, Up
from tests.servers import eventually
from tests.web.browser import COLOURS, SIZES, Tab, chromium, tab
from tests.web.fleet_stage import rows
from tests.web.market import WITHIN, buys, shows
from tests.web.stage import OPERATOR, shop

CUP, TEA = "Cup with a handle", "Mint tea, 50 g"
#: No pump has this, and storage has it once the letter is replayed.
MENDED = "77.25"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_minute_of_the_front_page(tmp_path: Path) -> None:
    demo = Up(tmp_path, demo=True)
    try:
        await demo.up()
        link = front(demo.edge, demo.data / "operator.token", terminal=True)
        await eventually(lambda: "services are ready" in demo.said or demo.dead(), WHOLE_WITHIN)
        async with chromium() as browser, tab(browser) as one:
            one.page.set_default_timeout(WITHIN)
            await one.page.goto(link)
            await a_sensor_moves(one.page)
            await two_windows_talk(one)
            await an_order_waits_for_a_service_that_is_stopped(one)
            await a_letter_is_mended_and_replayed(one.page)
            assert one.complaints == []
            await it_is_for_everybody(browser, link)
    finally:
        demo.process.terminate()
        demo.process.wait(60)


def step(page: Page, title: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=title))


async def aside(one: Tab, link: Locator) -> Tab:
    """Follow a link to a tab of its own, where nobody is signed in."""
    async with one.page.context.expect_page() as opened:
        await link.click()
    page = await opened.value
    page.set_default_timeout(WITHIN)
    assert await page.evaluate("opener") is None
    return Tab(page, one.name)


async def creates(page: Page, name: str) -> None:
    await page.get_by_role("button", name="Create account").click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Mail address").fill(f"{name}@minute.example.org")
    await page.get_by_label("Password", exact=True).fill("the long way home")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("banner")).to_contain_text(name, timeout=WITHIN)


async def a_sensor_moves(page: Page) -> None:
    await page.get_by_role("link", name="Watch pump-01").click()
    value = rows(page, "Last values").filter(has_text="pressure").get_by_role("cell").nth(1)
    before = await value.inner_text()
    await expect(value).not_to_have_text(before, timeout=WITHIN)
    await page.get_by_role("link", name="Topic Gateway").click()


async def two_windows_talk(one: Tab) -> None:
    of = step(one.page, "Chat with yourself")
    first = await aside(one, of.get_by_role("link", name="First window"))
    second = await aside(one, of.get_by_role("link", name="Second window"))
    ann, bob = first.page, second.page
    await creates(ann, "Ann")
    await creates(bob, "Bob")
    await ann.get_by_role("button", name="New room").click()
    await ann.get_by_label("Name").fill("Tea")
    await ann.keyboard.press("Enter")
    await expect(ann.get_by_role("heading", name="Tea")).to_be_visible(timeout=WITHIN)
    await bob.get_by_role("button", name="Join a room").click()
    await bob.get_by_role("button", name="Join Tea").click()
    said = []
    for page, text in ((ann, "hello Bob"), (bob, "hello Ann")):
        await page.get_by_role("textbox", name="Message").fill(text)
        await page.keyboard.press("Enter")
        said.append(text)
        for seen in (ann, bob):
            await expect(seen.locator(".message .text")).to_have_text(said, timeout=WITHIN)
    assert first.complaints + second.complaints == []


async def an_order_waits_for_a_service_that_is_stopped(one: Tab) -> None:
    opened = await aside(one, step(one.page, "Buy something").get_by_role("link", name="Open the shop"))
    page, of = opened.page, step(one.page, "Stop the inventory service")
    await creates(page, "Cem")
    await buys(page, CUP)
    await shows(page, "completed")
    await expect(of).to_contain_text("✓ runs", timeout=WITHIN)
    await of.get_by_role("button", name="Stop it").press("Enter")
    await expect(of.get_by_role("button", name="Start it again")).to_be_focused(timeout=WITHIN)
    await expect(of).to_contain_text("! stopped", timeout=WITHIN)
    await page.get_by_role("navigation").get_by_role("link", name="Articles").click()
    await buys(page, TEA)
    await expect(page.get_by_text("Your order waits.")).to_be_visible(timeout=WITHIN)
    await expect(page.get_by_text("The stock room has not answered yet.")).to_be_visible()
    await expect(of).to_contain_text("behind", timeout=WITHIN)
    await one.picture("front-stopped")
    await of.get_by_role("button", name="Start it again").click()
    await shows(page, "completed")
    await expect(of).to_contain_text("✓ runs", timeout=WITHIN)
    assert opened.complaints == []


async def a_letter_is_mended_and_replayed(page: Page) -> None:
    of = step(page, "Replay a dead letter")
    await expect(of).to_contain_text("devices/pump-01/telemetry was given up by devices.storage", timeout=WITHIN)
    await of.get_by_role("link", name="Open the dead letters").click()
    row = page.get_by_role("row").filter(has_text="devices/pump-01/telemetry")
    await row.get_by_role("button", name="Show").click()
    dialog = page.get_by_role("dialog", name="Dead letter")
    payload = dialog.get_by_label("Payload")
    await payload.fill((await payload.input_value()).replace("null", MENDED))
    await dialog.get_by_role("button", name="Replay").click()
    await expect(dialog).to_be_hidden(timeout=WITHIN)
    await expect(row).to_have_count(0)
    await page.get_by_role("link", name="Topic Gateway").click()
    await expect(of).to_contain_text("None lies there now", timeout=WITHIN)
    # Late, and in its place: the highest of the last quarter of an hour.
    await page.get_by_role("link", name="Watch pump-01").click()
    label = page.get_by_role("img", name=f"to {MENDED}")
    await expect(label).to_be_visible(timeout=WITHIN)


async def it_is_for_everybody(browser: Browser, link: str) -> None:
    for size in SIZES:
        for colours in COLOURS:
            async with tab(browser, size, colours) as one:
                page = one.page
                await page.goto(link)
                await expect(page.get_by_role("link", name="Watch pump-01")).to_be_visible(timeout=WITHIN)
                await expect(page.get_by_text("✓ runs")).to_be_visible(timeout=WITHIN)
                await expect(page.get_by_text("None lies there now")).to_be_visible(timeout=WITHIN)
                await one.accessible("front")
                # Without a token, what anybody may see; and how to come by one.
                await page.get_by_role("button", name="Sign out").click()
                await expect(page.get_by_text("You are here without a token")).to_be_visible()
                await expect(page.get_by_role("link", name="Open the shop")).to_be_visible(timeout=WITHIN)
                await expect(page.get_by_role("link", name="Watch")).to_have_count(0)
                await expect(page.get_by_role("button")).to_have_count(0)
                await one.accessible("front-without-a-token")
                assert one.complaints == []


async def test_a_gateway_without_the_demo_shows_what_it_has(tmp_path: Path) -> None:
    async with shop(tmp_path) as stage, chromium() as browser:
        for jwt in (OPERATOR, token("alice"), "no.good.token", ""):
            async with tab(browser) as one:
                page = one.page
                await page.goto(f"{stage.edge.http}/#token={jwt}" if jwt else stage.edge.http)
                await expect(page.get_by_text("gateway up --demo")).to_be_visible()
                await expect(page.get_by_text("✓ ready")).to_be_visible()
                await expect(page.get_by_text("An operator's token is for")).to_have_count(0 if jwt == OPERATOR else 1)
                await expect(page.get_by_role("alert").filter(has_text="refused")).to_have_count(
                    int(jwt == "no.good.token")
                )
                # This gateway lets nobody in without a token, and a link brings none: what takes one is no link.
                links = await page.get_by_role("link").evaluate_all("all => all.map(one => one.href)")
                assert len(links) >= 3
                for link in links:
                    assert (await page.request.get(link)).ok, link
                await one.accessible("front-alone")
                assert [text for text in one.complaints if "401" not in text] == []

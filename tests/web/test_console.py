"""The operators' console in a real browser: services, dead letters, the live tail, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.gateways import client, running_edge, token
from tests.servers import eventually, stream_server
from tests.web.browser import COLOURS, REBOUND, SIZES, tab
from tests.web.stage import OPERATOR, Shop, shop

#: One browser for all of them: to start one takes longer than most of what is asked of it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def stage(tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(tmp_path) as one:
        yield one


async def at(page: Page, stage: Shop, view: str = "", jwt: str = OPERATOR) -> None:
    """Open the console by the link that `gateway up` prints, and go to ``view``."""
    await page.goto(f"{stage.edge.http}/console/#token={jwt}")
    if view:
        await page.get_by_role("navigation").get_by_role("link", name=view).click()


async def test_a_service_rests_and_goes_on(stage: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        page = one.page
        await at(page, stage)
        row = page.get_by_role("row", name="shop.stock")
        await expect(row).to_contain_text("idle")
        await expect(page.get_by_role("row", name="edge-").get_by_role("cell").nth(1)).to_have_text("0")
        await row.get_by_role("button", name="Pause shop.stock").click()
        await expect(row).to_contain_text("paused")
        await expect(page.get_by_role("status")).to_have_text("shop.stock is paused")
        # Its workers hear it: nobody holds a partition. What comes now waits.
        await expect(row).to_contain_text("0 of ")
        await stage.order("o-1", "tea")
        await expect(row.get_by_role("cell").nth(2)).to_have_text("1")
        assert stage.reserved == []
        await row.get_by_role("button", name="Resume").click()
        await eventually(lambda: stage.reserved == ["o-1"])
        await expect(row).to_contain_text("idle")
        assert one.complaints == []


async def test_dead_letters_are_mended_replayed_and_dropped(stage: Shop, browser: Browser) -> None:
    for n, item in enumerate(("coffee", "milk", "bread", "salt")):
        await stage.order(f"o-{n}", item)

    async def buried() -> bool:
        return await stage.letters() == 4

    await eventually(buried)
    async with tab(browser) as one:
        page = one.page
        await at(page, stage, "Dead letters")
        rows = page.get_by_role("row").filter(has=page.get_by_role("button", name="Show"))
        await expect(rows).to_have_count(4)
        coffee = rows.filter(has_text="we sell tea, not coffee")
        await expect(coffee).to_contain_text("shop.stock")
        # Mended: the payload is edited, and its service gets it once more, under its own id.
        await coffee.get_by_role("button", name="Show").click()
        dialog = page.get_by_role("dialog", name="Dead letter")
        await expect(dialog).to_contain_text("operator:root")
        payload = dialog.get_by_label("Payload")
        await expect(payload).to_have_value('{\n  "item": "coffee"\n}')
        await payload.fill('{"item":')
        await dialog.get_by_role("button", name="Replay").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("JSON")
        await payload.fill('{"item": "tea"}')
        await dialog.get_by_role("button", name="Replay").click()
        await expect(dialog).to_be_hidden()
        await eventually(lambda: stage.reserved == ["o-0"])
        await expect(rows).to_have_count(3)
        # Dropped: the one that is ticked, and only once it is confirmed.
        await rows.filter(has_text="milk").get_by_role("checkbox").check()
        page.once("dialog", lambda asked: asked.dismiss())
        await page.get_by_role("button", name="Drop 1").click()
        await expect(rows).to_have_count(3)
        page.once("dialog", lambda asked: asked.accept())
        await page.get_by_role("button", name="Drop 1").click()
        await expect(rows).to_have_count(2)
        await expect(page.get_by_role("paragraph").filter(has_text="1 letter dropped")).to_be_visible()
        # Replayed as they are, they are rejected again: new letters, of the same events.
        await page.get_by_label("all").check()
        await page.get_by_role("button", name="Replay 2").click()
        await expect(page.get_by_role("paragraph").filter(has_text="2 letters replayed")).to_be_visible()
        # By filter: what no letter has, finds none.
        await page.get_by_label("Topic filter").fill("rooms/#")
        await page.get_by_role("button", name="Find").click()
        await expect(page.get_by_text("No dead letter")).to_be_visible()
        complained = [text for text in one.complaints if "422" not in text]  # the payload that was refused
        assert complained == []


async def test_who_is_connected_is_seen_and_sent_away(stage: Shop, browser: Browser) -> None:
    async with (
        client(stage.edge.ws, token("alice")) as alice,
        client(stage.edge.ws, token("operator:x")) as other,
        tab(browser) as one,
    ):
        assert "subscribe" in await alice.ask("subscribe", channel="rooms/1/messages")
        page = one.page
        await at(page, stage, "Connections")
        rows = page.get_by_role("row").filter(has=page.get_by_role("button", name="Close"))
        await expect(rows).to_have_count(2)
        await page.get_by_label("Topic that they hear").fill("rooms/1/messages")
        await page.get_by_role("button", name="Find").click()
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("user:alice")
        await expect(rows.get_by_role("cell").nth(3)).to_have_text("1")
        await page.get_by_label("slow ones only").check()
        await page.get_by_role("button", name="Find").click()
        await expect(page.get_by_text("Nobody is connected of whom you asked")).to_be_visible()
        await page.get_by_label("slow ones only").uncheck()
        await page.get_by_label("Topic that they hear").fill("")
        await page.get_by_role("button", name="Find").click()
        await expect(rows).to_have_count(2)
        # Whoever calls himself by another's kind is sent away as himself.
        for user, closed in (("user:alice", alice), ("user:operator:x", other)):
            row = rows.filter(has_text=user)
            page.once("dialog", lambda asked: asked.dismiss())
            await row.get_by_role("button", name="Close").click()
            assert closed.close_code is None
            page.once("dialog", lambda asked: asked.accept())
            await row.get_by_role("button", name="Close").click()
            assert await closed.closed() == 3503
            await expect(row).to_have_count(0)
        assert one.complaints == []


async def test_the_live_tail_shows_filters_and_rests(stage: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        page = one.page
        await at(page, stage, "Live")
        # Filled with what the gateway says that this token may read; rooms are not an operator's.
        field = page.get_by_label("Topic filter")
        await expect(field).to_have_value("devices/+/telemetry")
        values = await page.locator("datalist option").evaluate_all("all => all.map(one => one.value)")
        assert values == ["devices/+/telemetry", "shop/orders/+/placed"]
        events = page.get_by_role("list", name="Events").get_by_role("listitem")
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        await eventually(lambda: len(stage.edge.edge.fanout) == 1)
        await stage.publish("devices/7/telemetry", {"t": 21.5}, "r-1")
        await stage.publish("devices/8/telemetry", {"t": 19}, "r-2")
        await expect(events).to_have_count(2)
        await expect(events.first).to_contain_text('devices/8/telemetry {"t":19}')
        # What somebody published is text, whatever it looks like.
        await stage.publish("devices/6/telemetry", {"t": "<img src=x onerror=alert(1)>"}, "r-x")
        await expect(events.first).to_contain_text("<img src=x")
        assert await page.locator("main img").count() == 0
        await page.get_by_label("Containing").fill("21.5")
        await expect(events).to_have_count(1)
        await page.get_by_label("Containing").fill("")
        await page.get_by_role("button", name="Pause").click()
        await stage.publish("devices/9/telemetry", {"t": 1}, "r-3")
        await expect(page.get_by_text("4 events since you came")).to_be_visible()
        await expect(events).to_have_count(3)
        await page.get_by_role("button", name="Go on").click()
        await field.fill("rooms/#")
        await page.get_by_role("button", name="Watch").click()
        await expect(page.get_by_role("alert")).to_contain_text("operator:mary may not read")
        assert one.complaints == []


async def test_who_has_no_good_token_sees_a_form_and_why(stage: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        page = one.page
        await page.goto(f"{stage.edge.http}/console")
        await expect(page).to_have_url(f"{stage.edge.http}/console/")
        await page.get_by_label("Token").fill("no.token.atall")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("refused")
        # Of a user: let in by nobody, and told so.
        await page.get_by_label("Token").fill(token("alice"))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert").first).to_contain_text("for operators")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_a_link_signs_in_on_this_machine_alone_and_leaves_no_trace(stage: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        await at(one.page, stage)
        await expect(one.page.get_by_text("operator mary")).to_be_visible()
        assert OPERATOR not in one.page.url
        await one.page.reload()
        await expect(one.page.get_by_text("operator mary")).to_be_visible()
        # Another tab is another session.
        other = await one.page.context.new_page()
        await other.goto(f"{stage.edge.http}/console/")
        await expect(other.get_by_label("Token")).to_be_visible()
    async with tab(browser) as one:
        await one.page.goto(f"http://{REBOUND}:{stage.edge.port}/console/#token={OPERATOR}")
        await expect(one.page.get_by_label("Token")).to_be_visible()
        assert OPERATOR not in one.page.url


async def test_code_that_gets_into_a_page_does_not_run(stage: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        await at(one.page, stage)
        refused = await one.page.evaluate(
            """async () => {
                const script = document.createElement("script");
                const refused = [];
                try { script.text = "window.ran = true"; } catch (error) { refused.push(error.name); }
                try { document.body.innerHTML += "<i>x</i>"; } catch (error) { refused.push(error.name); }
                script.append("window.ran = true");
                document.head.append(script);
                try { await fetch("http://127.0.0.1:9/"); } catch (error) { refused.push(error.name); }
                return refused;
            }"""
        )
        assert refused == ["TypeError"] * 3
        assert await one.page.evaluate("window.ran") is None
        # Each was the policy's doing: it says so.
        assert sum("Content Security Policy" in text or "Trusted" in text for text in one.complaints) >= 3


async def test_the_keyboard_is_enough(stage: Shop, browser: Browser) -> None:
    await stage.order("o-1", "coffee")

    async def buried() -> bool:
        return await stage.letters() == 1

    await eventually(buried)
    async with tab(browser) as one:
        page, keys = one.page, one.page.keyboard

        async def focused() -> str:
            return str(await page.evaluate("document.activeElement?.innerText || document.activeElement?.name || ''"))

        async def tab_to(name: str) -> None:
            for _ in range(30):
                await keys.press("Tab")
                if name in await focused():
                    return
            pytest.fail(f"{name!r} is not reached by Tab")

        await page.goto(f"{stage.edge.http}/console/")
        await tab_to("token")
        await keys.type(OPERATOR)
        await keys.press("Enter")
        await expect(page.get_by_role("row", name="shop.stock")).to_be_visible()
        await tab_to("Skip to the content")
        await keys.press("Enter")
        await tab_to("Pause")
        await page.reload()
        await tab_to("Dead letters")
        await keys.press("Enter")
        await expect(page.get_by_role("button", name="Show")).to_be_visible()
        await tab_to("Show")
        await keys.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await expect(page.get_by_label("Payload")).to_be_visible()
        await keys.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert "Show" in await focused()
        assert one.complaints == []


@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_by_day_and_by_night(stage: Shop, browser: Browser, size: str) -> None:
    for n in range(3):
        await stage.order(f"o-{n}", "coffee")

    async def buried() -> bool:
        return await stage.letters() == 3

    await eventually(buried)
    for colours in COLOURS:
        async with client(stage.edge.ws, token("alice")), tab(browser, size, colours) as one:
            page = one.page
            await page.goto(f"{stage.edge.http}/console/")
            await expect(page.get_by_label("Token")).to_be_visible()
            await one.accessible("sign-in")
            await at(page, stage)
            await expect(page.get_by_role("row", name="shop.stock")).to_be_visible()
            await expect(page.get_by_role("row", name="edge-")).to_be_visible()
            await one.accessible("services")
            await page.get_by_role("link", name="Connections").click()
            await expect(page.get_by_role("row", name="user:alice")).to_be_visible()
            await one.accessible("connections")
            await page.get_by_role("link", name="Dead letters").click()
            await page.get_by_label("all").check()
            await one.accessible("letters")
            await page.get_by_role("button", name="Show").first.click()
            await expect(page.get_by_label("Payload")).to_be_visible()
            await one.accessible("letter")
            await page.get_by_role("button", name="Close").click()
            await page.get_by_role("link", name="Live").click()
            await eventually(lambda: len(stage.edge.edge.fanout) == 1)
            for n in range(4):
                reading = {"temperature": 20 + n / 4, "seq": n}
                await stage.publish(f"devices/pump-{n}/telemetry", reading, f"{one.name}-{n}")
            await expect(page.get_by_role("listitem")).to_have_count(4)
            await one.accessible("live")
            assert one.complaints == []
        await eventually(lambda: len(stage.edge.edge.fanout) == 0)


async def test_who_is_there_too_often_keeps_the_session(tmp_path: Path, browser: Browser) -> None:
    with stream_server("valkey", tmp_path) as server:
        async with running_edge(server.url, connections_per_user=1) as edge, tab(browser) as one, tab(browser) as other:
            for page in (one.page, other.page):
                await page.goto(f"{edge.http}/console/#token={token()}")
                await page.get_by_role("link", name="Live").click()
                await page.get_by_label("Topic filter").fill("rooms/#")
                await page.get_by_role("button", name="Watch").click()
                if page is one.page:
                    await expect(page.get_by_role("banner")).to_contain_text("✓ live")
            crowded = other.page.get_by_role("alert").filter(has_text="in too many places")
            await expect(crowded).to_be_visible()
            await expect(other.page.get_by_role("banner")).to_contain_text("user alice")
            await one.page.close()
            await other.page.get_by_role("button", name="Connect again").click()
            await expect(other.page.get_by_role("banner")).to_contain_text("✓ live")
            await expect(crowded).to_be_hidden()

"""The chat page where the connection is lost, silent, or what is written is refused: nothing missed, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Response, Route, expect

from chat import limits
from gateway import limits as bounds
from tests.chat.talk import Chat, texts
from tests.faults.proxy import proxy
from tests.web.browser import failing, tab
from tests.web.chatting import at, people, said, says, settled

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chat]:
    async with people(tmp_path_factory.mktemp("chat")) as one:
        yield one


async def test_who_loses_the_connection_misses_nothing_and_says_nothing_twice(
    chat: Chat, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with tab(browser) as one, ann.device() as of_ann:
        page = one.page
        await at(page, bob, room)
        await of_ann.says(room, "before")
        await expect(settled(page)).to_have_text(["before"])
        for round in range(2):
            await page.context.set_offline(True)
            await expect(page.get_by_text("No connection.")).to_be_visible()
            await says(page, f"from the tunnel {round}")
            await says(page, f"and more {round}")
            await expect(page.get_by_text("sending …")).to_have_count(2)
            for n in range(70):  # more than one page
                await of_ann.says(room, f"{round}/{n}")
            await page.context.set_offline(False)
            await expect(page.get_by_text("No connection.")).to_be_hidden(timeout=60_000)
            await expect(settled(page).last).to_have_text(f"and more {round}", timeout=60_000)
            await expect(page.get_by_text("sending …")).to_have_count(0)
        wanted = texts(await ann.history(room))
        assert wanted == [
            "before",
            *(f"0/{n}" for n in range(70)),
            "from the tunnel 0",
            "and more 0",
            *(f"1/{n}" for n in range(70)),
            "from the tunnel 1",
            "and more 1",
        ]
        assert await settled(page).all_text_contents() == wanted
        # What is on its way outlives a reload, and the service's absence.
        async with chat.gateway.away("chat.rooms"):
            await says(page, "while nobody is there")
            await expect(page.get_by_text("sending …")).to_have_count(1)
            await page.reload()
        await expect(settled(page).last).to_have_text("while nobody is there", timeout=60_000)
        assert texts(await ann.history(room)) == [*wanted, "while nobody is there"]


async def test_a_connection_that_is_silent_is_noticed_and_replaced(
    chat: Chat, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells the browser: the SDK misses the pings, and what was asked over HTTP is given up."""
    monkeypatch.setattr(bounds, "PING_EVERY", 3.0)
    monkeypatch.setattr(bounds, "PONG_WITHIN", 2.0)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with proxy(chat.gateway.url) as between, tab(browser) as one, ann.device() as of_ann:
        page = one.page
        jwt = chat.gateway.token(f"user:{bob.name}")
        await page.goto(f"http://127.0.0.1:{between.port}/chat/#token={jwt}")
        await page.locator(f"a[href='#rooms/{room}']").click()
        await of_ann.says(room, "before")
        await expect(settled(page)).to_have_text(["before"])
        between.swallow = between.deaf = True
        await of_ann.says(room, "meanwhile")
        await says(page, "from the silence")
        await expect(page.get_by_text("No connection.")).to_be_visible(timeout=120_000)
        between.swallow = between.deaf = False
        between.cut()
        await expect(settled(page)).to_have_text(["before", "meanwhile", "from the silence"], timeout=120_000)
        assert texts(await ann.history(room)) == ["before", "meanwhile", "from the silence"]


async def test_a_room_that_cannot_be_watched_says_so_until_it_can(chat: Chat, browser: Browser) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with tab(browser) as one, ann.device() as of_ann:
        page, told = one.page, asyncio.Event()

        async def later(route: Route) -> None:
            await told.wait()
            await route.continue_()

        await of_ann.says(room, "before")
        await page.route("**/history?*", later)
        async with failing(page, "**/tokens"):
            await at(page, bob, room)
            await expect(page.get_by_role("alert")).to_have_text("That did not work. not now")
            # What was said before is there: of what comes it says nothing.
            told.set()
            await expect(settled(page)).to_have_text(["before"])
            assert await page.get_by_role("alert").is_visible()
        await expect(page.get_by_role("alert")).to_be_hidden(timeout=60_000)
        await of_ann.says(room, "heard")
        await expect(settled(page)).to_have_text(["before", "heard"])


async def test_a_token_that_is_not_renewed_at_once_is_no_alert(
    chat: Chat, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOKEN_LIFE", 5)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with tab(browser) as one, ann.device() as of_ann:
        page = one.page
        await at(page, bob, room)
        await of_ann.says(room, "before")
        await expect(settled(page)).to_have_text(["before"])
        async with failing(page, "**/tokens"), page.expect_response(refused_messages):
            pass
        await of_ann.says(room, "heard")
        await expect(settled(page)).to_have_text(["before", "heard"])
        assert not await page.get_by_role("alert").is_visible()


def refused_messages(answer: Response) -> bool:
    return not answer.ok and "/messages" in (answer.request.post_data or "")


async def test_what_is_refused_says_so_and_is_tried_again_or_dropped(chat: Chat, browser: Browser) -> None:
    ann = chat.person("ann")
    room = await ann.makes()
    async with tab(browser) as one:
        page = one.page
        await at(page, ann, room)
        await page.get_by_role("textbox", name="Message").evaluate("field => field.removeAttribute('maxlength')")
        await says(page, "x" * 4_001)
        await says(page, "short enough")
        await expect(settled(page)).to_have_text(["short enough"])  # nobody waits for what is refused
        await expect(page.get_by_role("alert")).to_contain_text("length <= 4000")
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("alert")).to_contain_text("Not sent")
        await one.picture("chat-refused")
        await page.get_by_role("button", name="Discard").click()
        await expect(said(page)).to_have_text(["short enough"])
        # What waits is bounded, and nothing of what is not taken is lost.
        await page.context.set_offline(True)
        field = page.get_by_role("textbox", name="Message")
        await field.evaluate(
            """async field => {
                for (let n = 0; n <= 200; n++) {
                    field.value = `waits ${n}`;
                    field.dispatchEvent(new InputEvent("input", { bubbles: true }));
                    await new Promise(done => setTimeout(done));
                    field.form.requestSubmit();
                    await new Promise(done => setTimeout(done));
                }
            }"""
        )
        await expect(page.get_by_text("Too much waits to be sent.")).to_be_visible()
        await expect(page.get_by_text("sending …")).to_have_count(200)
        await expect(field).to_have_value("waits 200")

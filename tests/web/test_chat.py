"""The chat page in real browsers: people talk and change what they said; who is no member sees nothing of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from chat import limits
from tests.chat.talk import WITHIN, Chat
from tests.servers import eventually
from tests.web.browser import COLOURS, SIZES, failing, tab
from tests.web.chatting import at, line, people, said, says, settled

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the treasure is under the oak"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chat]:
    async with people(tmp_path_factory.mktemp("chat")) as one:
        yield one


async def test_two_people_make_accounts_and_talk(chat: Chat, browser: Browser) -> None:
    async with tab(browser) as one, tab(browser) as other:
        for page, name in ((one.page, "Ann"), (other.page, "Bob")):
            await page.goto(f"{chat.gateway.url}/chat/")
            await page.get_by_role("button", name="Create account").click()
            await page.get_by_label("Name").fill(name)
            await page.get_by_label("Mail address").fill(f"{name}@chat.example.org")
            await page.get_by_label("Password", exact=True).fill("the long way home")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", name="Rooms")).to_be_visible()
        ann, bob = one.page, other.page
        await ann.get_by_role("button", name="New room").click()
        await ann.get_by_label("Name").fill("Tea")
        await ann.keyboard.press("Enter")
        await expect(ann.get_by_role("heading", name="Tea")).to_be_visible()
        await bob.get_by_role("button", name="Join a room").click()
        await bob.get_by_role("button", name="Join Tea").click()
        await expect(ann.get_by_text("Bob joined")).to_be_visible()
        await expect(ann.get_by_text("Here: Bob")).to_be_visible()
        # By Enter; by Shift and Enter a line; and what looks like markup is text.
        field = bob.get_by_role("textbox", name="Message")

        async def told() -> bool:
            """Not before her page listens, and every 3 s at most."""
            await field.press_sequentially("o")
            return await ann.get_by_text("Bob writes …").is_visible()

        await eventually(told, WITHIN)
        await field.fill("one")
        await field.press("Shift+Enter")
        await field.press_sequentially("two <img src=x onerror=alert(1)> https://example.org")
        await field.press("Enter")
        await expect(ann.get_by_text("Bob writes …")).to_be_hidden()
        await says(ann, "hello Bob")
        for page in (ann, bob):
            await expect(settled(page)).to_have_text(
                ["one\ntwo <img src=x onerror=alert(1)> https://example.org", "hello Bob"]
            )
            assert await page.locator(".log img, .log a").count() == 0
        await expect(bob.locator(".message:not(.own) .by")).to_contain_text("Ann")
        await expect(field).to_have_value("")
        # A screen reader hears what others say, politely and once.
        await expect(bob.locator("[aria-live=polite]")).to_have_text("Ann: hello Bob")
        # Alone, by the id that the members' list tells.
        await bob.get_by_role("button", name="2 members").click()
        await bob.get_by_role("button", name="Message Ann").click()
        await expect(bob.get_by_role("heading", name="Ann")).to_be_visible()
        await says(bob, "between us")
        await line(ann, "Bob").click()
        await expect(settled(ann)).to_have_text(["between us"])
        assert one.complaints == other.complaints == []


async def test_what_is_edited_and_deleted_is_so_for_all(chat: Chat, browser: Browser) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with tab(browser) as one, tab(browser, "phone") as other:
        await at(one.page, ann, room)
        await at(other.page, bob, room)
        page = one.page
        for text in ("teh tea", "nonsense"):
            await says(page, text)
        await expect(settled(other.page)).to_have_text(["teh tea", "nonsense"])
        assert await other.page.get_by_role("button", name="Edit").count() == 0  # of somebody else
        await page.locator(".message").first.hover()
        await page.get_by_role("button", name="Edit “teh tea”").click()
        await page.get_by_role("textbox", name="Message").fill("the tea")
        await page.keyboard.press("Enter")
        for seen in (page, other.page):
            await expect(settled(seen).first).to_have_text("the tea edited")
        # The arrow up takes the last one; Escape leaves it as it was.
        await page.get_by_role("textbox", name="Message").press("ArrowUp")
        await expect(page.get_by_role("textbox", name="Message")).to_have_value("nonsense")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("textbox", name="Message")).to_have_value("")
        page.once("dialog", lambda asked: asked.accept())
        await page.locator(".message").last.hover()
        await page.get_by_role("button", name="Delete “nonsense”").click()
        for seen in (page, other.page):
            await expect(settled(seen)).to_have_text(["the tea edited", "deleted"])
        await other.page.reload()
        await expect(settled(other.page)).to_have_text(["the tea edited", "deleted"])
        assert one.complaints == other.complaints == []


async def test_what_is_unread_is_counted_and_read_on_all_devices(chat: Chat, browser: Browser) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room, elsewhere = await ann.makes("public", bob), await bob.makes("public", ann)
    async with tab(browser) as one, tab(browser, "phone") as other, ann.device() as of_ann:
        await at(one.page, bob, elsewhere)
        await at(other.page, bob)
        for n in range(3):
            await of_ann.says(room, str(n))
        for page in (one.page, other.page):
            await expect(page.locator(".count")).to_have_text("3 unread")
            await expect(page).to_have_title(re.compile(r"^\(3\) Chat"))
        await one.page.locator(f"a[href='#rooms/{room}']").click()
        await expect(one.page.locator(".rule.fresh")).to_be_visible()
        await expect(settled(one.page)).to_have_text(["0", "1", "2"])
        await expect(other.page.locator(".count")).to_have_count(0)

        async def read() -> bool:
            return await bob.unread(room) == (5, 0)

        await eventually(read)
        # A room that one is let into appears by itself.
        secret = await ann.makes("private", bob)
        await expect(other.page.locator(f"a[href='#rooms/{secret}']")).to_be_visible()


async def test_a_private_room_is_nothing_to_a_stranger(chat: Chat, browser: Browser) -> None:
    ann, eve = chat.person("ann"), chat.person("eve")
    room = await ann.makes("private")
    async with ann.device() as of_ann, tab(browser) as one, tab(browser) as other:
        await of_ann.says(room, SECRET)
        page, stranger = one.page, other.page
        await at(stranger, eve)
        await stranger.get_by_role("button", name="Join a room").click()
        await expect(stranger.get_by_role("dialog")).not_to_contain_text("One moment")
        assert await stranger.locator(f"a[href*='{room}']").count() == 0
        await stranger.keyboard.press("Escape")
        await stranger.evaluate("room => { location.hash = `rooms/${room}` }", room)
        await expect(stranger.get_by_text("There is no such room")).to_be_visible()
        assert SECRET not in await stranger.content()
        # Let in by her id, she sees all of it; sent out, nothing that comes.
        await at(page, ann, room)
        await page.get_by_role("button", name="1 member").click()
        await page.get_by_label("User id of somebody to let in").fill(eve.name)
        await page.get_by_role("button", name="Let in").click()
        await stranger.locator(f"a[href='#rooms/{room}']").click()
        await stranger.get_by_role("link", name="Back to your rooms").click()
        await stranger.locator(f".rooms a[href='#rooms/{room}']").click()
        await expect(settled(stranger)).to_have_text([SECRET])
        page.once("dialog", lambda asked: asked.accept())
        await page.get_by_role("button", name=f"Send out {eve.name}").click()
        await expect(stranger.get_by_text("There is no such room")).to_be_visible()
        await of_ann.says(room, "without her")
        await page.keyboard.press("Escape")
        await expect(settled(page).last).to_have_text("without her")
        assert "without her" not in await stranger.content()


async def test_what_one_said_just_before_one_left_is_shown_where_it_was_said(
    chat: Chat, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room, other = await ann.makes("public", bob), await ann.makes()
    async with bob.device() as of_bob, tab(browser) as one:
        page = one.page
        await at(page, ann, room)
        await page.get_by_role("textbox", name="Message").fill("bye")
        await page.evaluate(
            "other => { document.querySelector('.composer').requestSubmit(); location.hash = `rooms/${other}` }", other
        )

        async def answered() -> bool:
            return not await page.evaluate("JSON.parse(sessionStorage.getItem('topic-gateway.chat')).items.length")

        await eventually(answered, WITHIN)
        for n in range(70):
            await of_bob.says(room, f"message {n}")
        await page.evaluate("room => { location.hash = `rooms/${room}` }", room)
        await expect(settled(page)).to_have_count(60)
        await expect(said(page).last).to_have_text("message 69")


async def test_the_past_comes_as_one_scrolls_back(
    chat: Chat, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, tab(browser) as one:
        for n in range(150):
            await of_ann.says(room, f"message {n}")
        page = one.page
        await at(page, bob, room)
        await expect(settled(page)).to_have_count(60)
        await expect(settled(page).last).to_be_in_viewport()
        async with failing(page, "**/history?*"):
            await page.get_by_role("button", name="Earlier messages").click()
            await expect(page.get_by_role("alert")).to_contain_text("not now")
        await page.locator(".log").evaluate("box => { box.scrollTop = box.scrollHeight }")
        for count in (120, 150):
            first = settled(page).first
            text = await first.inner_text()
            await page.locator(".log").evaluate("box => { box.scrollTop = 0 }")
            await expect(settled(page)).to_have_count(count)
            await expect(page.get_by_text(text, exact=True)).to_be_in_viewport()  # what was looked at stays there
        assert await settled(page).all_text_contents() == [f"message {n}" for n in range(150)]
        await expect(page.get_by_role("alert")).to_be_hidden()
        # Who reads further up is not moved, and told.
        await of_ann.says(room, "news")
        await page.get_by_role("button", name="1 new message").click()
        await expect(settled(page).last).to_be_in_viewport()
        await expect(page.get_by_role("button", name="1 new message")).to_be_hidden()


async def test_the_keyboard_is_enough(chat: Chat, browser: Browser) -> None:
    ann = chat.person("ann")
    async with tab(browser) as one:
        page, keys = one.page, one.page.keyboard

        async def tab_to(name: str) -> None:
            for _ in range(40):
                await keys.press("Tab")
                focused = page.locator(":focus")
                if name in (await focused.inner_text(), await focused.get_attribute("id")):
                    return
            pytest.fail(f"{name!r} is not reached by Tab")

        await at(page, ann)
        await tab_to("New room")
        await keys.press("Enter")
        await expect(page.get_by_label("Name")).to_be_focused()
        await keys.type("By hand")
        await keys.press("Enter")
        await expect(page.get_by_role("heading", name="By hand")).to_be_visible()
        await tab_to("message")
        await keys.type("hello")
        await keys.press("Enter")
        await expect(settled(page)).to_have_text(["hello"])
        await keys.press("Shift+Tab")
        await keys.press("Shift+Tab")
        await keys.press("Enter")  # Edit, before Delete
        await expect(page.get_by_role("textbox", name="Message")).to_have_value("hello")
        await keys.type(" again")
        await keys.press("Enter")
        await expect(settled(page)).to_have_text(["hello again edited"])


@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_by_day_and_by_night(chat: Chat, browser: Browser, size: str) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    await ann.gets("PUT", "me", {"name": "Ann Example"})
    room = await ann.makes("private", bob)
    await bob.gets("POST", "", {"name": "A room with a name that is longer than most of the screens", "key": "long"})
    await bob.gets("PUT", f"direct/{ann.name}")
    async with ann.device() as of_ann, bob.device() as of_bob:
        await of_ann.says(room, "Good morning!\nIs the kettle on?")
        last = await of_bob.says(room, "It is. " + "Tea is a drink of many words. " * 8)
        await of_bob.says(room, "https://example.org/" + "a-link-without-a-space/" * 8)
        await of_bob.does(room, "edit", seq=last["seq"], text="It is, and it whistles.")
        gone = await of_ann.says(room, "oops")
        await of_ann.does(room, "delete", seq=gone["seq"])
        await of_ann.says(room, "Then I am on my way.")
    for colours in COLOURS:
        async with tab(browser, size, colours) as one, ann.device() as of_ann:
            page = one.page
            await page.goto(f"{chat.gateway.url}/chat/")
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            await one.accessible("chat-sign-in")
            await at(page, bob)
            await expect(page.get_by_role("list", name="Your rooms").get_by_role("link")).to_have_count(3)
            await one.accessible("chat-rooms")
            await page.get_by_role("button", name="New room").click()
            await one.accessible("chat-new-room")
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Message somebody").click()
            await one.accessible("chat-write")
            await page.keyboard.press("Escape")
            await page.locator(f"a[href='#rooms/{room}']").click()
            await expect(settled(page)).to_have_count(5)
            await of_ann.watches(room)
            await expect(page.get_by_text("Here: Ann Example")).to_be_visible()

            async def told(page: Page = page) -> bool:
                await ann.gets("POST", f"{room}/typing")
                return await page.get_by_text("Ann Example writes …").is_visible()

            await eventually(told, WITHIN)
            await one.accessible("chat-room")
            await page.locator(".message.own").first.hover()
            await one.accessible("chat-tools")
            await page.get_by_role("button", name="2 members").click()
            await expect(page.get_by_role("list", name="Members").get_by_role("listitem")).to_have_count(2)
            await one.accessible("chat-members")
            await page.keyboard.press("Escape")
            await page.context.set_offline(True)
            await says(page, "Is anybody there?")
            await expect(page.get_by_text("No connection.")).to_be_visible()
            await one.accessible("chat-offline")

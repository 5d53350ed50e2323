"""The chat page as people use it: who comes in, what they say, and what they see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from accounts.app import app as accounts
from tests.chat.talk import Chat, Person, open_chat


@asynccontextmanager
async def people(folder: Path) -> AsyncIterator[Chat]:
    """Run chat beside accounts."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ACCOUNTS_KEYS", str(folder / "keys"))
        environment.setenv("ACCOUNTS_HASH_MIB", "1")
        async with open_chat(folder, beside=[accounts]) as chat:
            yield chat


async def at(page: Page, person: Person, room: str = "") -> None:
    """Come with a token, as by the link of a developer; then into ``room``."""
    chat = person.chat
    await page.goto(f"{chat.gateway.url}/chat/#token={chat.gateway.token(f'user:{person.name}')}")
    await expect(page.get_by_role("heading", name="Rooms")).to_be_visible()
    if room:
        await page.evaluate("room => { location.hash = `rooms/${room}` }", room)
        await expect(page.get_by_role("textbox", name="Message")).to_be_visible()


async def says(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.keyboard.press("Enter")


def said(page: Page) -> Locator:
    return page.locator(".message .text")


def settled(page: Page) -> Locator:
    """What is in the room; what is on its way is not."""
    return page.locator(".message:not(.sending, .sent, .failed) .text")


def line(page: Page, title: str) -> Locator:
    return page.get_by_role("list", name="Your rooms").get_by_role("link", name=title)

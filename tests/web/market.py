"""The shop's page as people use it: who comes in, what they put into the basket, and what their order shows."""

from __future__ import annotations

import re
from typing import Any, Final

from playwright.async_api import Locator, Page, Request, expect

from tests.ecommerce.shop import PASSWORD, Person, Shop

#: A hang guard for what several services do one after another, in ms.
WITHIN: Final = 60_000


async def came(page: Page, shop: Shop, person: Person, view: str = "") -> None:
    """Open the page, and sign in by its form."""
    await page.goto(f"{shop.gateway.url}/shop/{view and '#' + view}")
    await page.get_by_label("Mail address").fill(person.mail)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("banner")).to_contain_text(person.name.title())


async def fills(page: Page, *titles: str) -> None:
    """Put articles into the basket, and go there."""
    for title in titles:
        await page.get_by_role("button", name=f"Add {title} to basket").click()
    await page.get_by_role("navigation").get_by_role("link", name=f"Basket ({len(titles)})").click()
    await expect(page.get_by_role("heading", name="Basket")).to_be_visible()


async def buys(page: Page, *titles: str, card: str = "Pays") -> str:
    """Buy, and return the order's number once its page is there."""
    await fills(page, *titles)
    await page.get_by_role("radio", name=card).check()
    await page.get_by_role("button", name="Place the order").click()
    return await number(page)


async def number(page: Page) -> str:
    """Return the number of the order whose page is shown."""
    await expect(page).to_have_url(re.compile("#orders/"), timeout=WITHIN)
    return page.url.rpartition("/")[2]


def step(page: Page, name: str) -> Locator:
    return page.get_by_role("list", name="Steps").get_by_role("listitem").filter(has_text=name)


async def shows(page: Page, word: str) -> None:
    """Wait until the order's page says ``word`` of it."""
    await expect(page.locator(".heading .badge")).to_have_text(re.compile(word), timeout=WITHIN)


async def stored(page: Page, key: str) -> Any:
    return await page.evaluate("key => JSON.parse(sessionStorage.getItem(`topic-gateway.${key}`))", key)


def asked(page: Page, method: str, path: str) -> list[Request]:
    """Return the list that grows by each request of that kind which the page makes."""
    made: list[Request] = []
    page.on("request", lambda one: made.append(one) if one.method == method and one.url.endswith(path) else None)
    return made

"""The shop's page in a real browser, with every service behind it: bought once, and watched to the end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from ecommerce.inventory.tables import STOCK
from ecommerce.orders.tables import ORDERS
from ecommerce.rows import insert_new
from gateway.adapters.http_pages import FOLDER, read
from tests.ecommerce.shop import Person, Shop, open_shop
from tests.web.browser import COLOURS, SIZES, Colours, built, failing, tab
from tests.web.market import WITHIN, asked, buys, came, fills, number, shows, step

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop")) as one:
        yield one


async def test_the_page_is_small() -> None:
    built()
    found = read(FOLDER)
    scripts = {one for one in re.findall(r"assets/[^\"]+\.js", found["/shop/"].body.decode())}
    assert scripts
    assert sum(len(found[f"/{one}"].zipped) for one in scripts) < 45_000


async def placed(person: Person) -> list[str]:
    return [one["order"] for one in (await person.ask("GET", "/ecommerce/orders/")).json()["items"]]


async def test_somebody_buys_and_watches_the_order_to_its_end(shop: Shop, browser: Browser) -> None:
    ann = await shop.person("ann")
    await shop.sells("TEA", 1290, stock=50)
    await shop.sells("CUP", 450, stock=4)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, ann)
        cup = page.get_by_role("listitem").filter(has_text="Some CUP")
        await expect(cup).to_contain_text("only 4 left")
        await expect(page.get_by_role("listitem").filter(has_text="Some TEA")).to_contain_text("in stock")
        await fills(page, "Some TEA", "Some CUP")
        await page.get_by_label("How many of Some TEA").fill("2")
        await page.keyboard.press("Enter")
        # Enter in a field of the basket buys nothing.
        await expect(page.locator(".total")).to_contain_text("€30.30")
        # A price that changes meanwhile is shown, and is what is paid.
        await shop.sells("CUP", 500)
        await expect(page.locator(".total")).to_contain_text("€30.80")
        await page.get_by_role("button", name="Place the order").click()
        order = await number(page)
        await shows(page, "completed")
        for name in ("Accepted", "Goods reserved", "Card approved", "Confirmed", "Shipped", "Delivered"):
            await expect(step(page, name).get_by_role("time")).to_be_visible()
        await expect(page.locator(".total")).to_contain_text("€30.80")
        await expect(page.get_by_text("Number of the parcel: TG")).to_be_visible()
        await expect(page.get_by_role("navigation").get_by_role("link", name="Basket")).to_have_text("Basket")
        # All of it is there again after a reload, times too.
        await page.reload()
        await shows(page, "completed")
        await expect(page.locator(".steps time")).to_have_count(6)
        await page.get_by_role("navigation").get_by_role("link", name="Orders").click()
        row = page.get_by_role("row").filter(has_text="2 × Some TEA, 1 × Some CUP")
        await expect(row).to_contain_text("completed")
        await expect(row).to_contain_text("€30.80")
        assert await placed(ann) == [order]
        assert one.complaints == []


async def test_a_declined_card_and_then_another(shop: Shop, browser: Browser) -> None:
    bea = await shop.person("bea")
    await shop.sells("LAMP", stock=1)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, bea)
        await buys(page, "Some LAMP", card="Is declined")
        await expect(page.get_by_text("there is not enough money on it")).to_be_visible(timeout=WITHIN)
        await shows(page, "card declined")
        await page.get_by_role("radio", name="Is declined").check()
        await page.get_by_role("button", name="Pay with this card").click()
        declined = page.get_by_role("button", name="Pay with this card")
        await shop.gateway.events("ecommerce/payments/+/declined", 2, within=60)
        await declined.wait_for()
        async with failing(page, "**/ecommerce/payments/*"):
            await page.reload()
            await expect(page.get_by_text("as soon as payments answers")).to_contain_text("not now", timeout=WITHIN)
        await page.get_by_role("radio", name="Slow bank").check()
        await declined.click()
        await shows(page, "completed")
        assert await shop.available("LAMP") == 0


async def test_articles_that_do_not_come_are_asked_for_again(shop: Shop, browser: Browser) -> None:
    bob = await shop.person("bob")
    await shop.sells("FLUTE", stock=1)
    async with tab(browser) as one:
        page = one.page
        async with failing(page, "**/ecommerce/catalog/*"):
            await came(page, shop, bob)
            await expect(page.get_by_role("banner")).to_contain_text("✓ live")
            await expect(page.get_by_role("alert")).to_contain_text("not now")
        await expect(page.get_by_role("alert")).to_be_hidden(timeout=WITHIN)
        await expect(page.get_by_role("listitem").filter(has_text="Some FLUTE")).to_be_visible()


async def test_what_is_out_of_stock_is_said(shop: Shop, browser: Browser) -> None:
    col = await shop.person("col")
    await shop.sells("RARE", stock=1)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, col)
        await expect(page.get_by_role("listitem").filter(has_text="Some RARE")).to_contain_text("only 1 left")
        await fills(page, "Some RARE")
        await page.get_by_label("How many of Some RARE").fill("2")
        await page.get_by_role("button", name="Place the order").click()
        await shows(page, "out of stock")
        await expect(page.get_by_text("There is not enough of Some RARE. Nothing was charged.")).to_be_visible()
        await expect(page.get_by_role("button", name="Cancel the order")).to_have_count(0)
        assert await shop.available("RARE") == 1


async def test_a_double_click_and_a_lost_answer_are_one_order(shop: Shop, browser: Browser) -> None:
    dan = await shop.person("dan")
    await shop.sells("DESK", stock=9)
    async with tab(browser) as one:
        page = one.page
        tries = asked(page, "POST", "/ecommerce/orders/")

        async def losing(route: Route) -> None:
            if route.request.method == "POST" and len(tries) == 1:
                await route.fetch()  # it was placed, and nobody hears of it
                await route.abort()
            else:
                await route.continue_()

        await page.route("**/ecommerce/orders/", losing)
        await came(page, shop, dan)
        await fills(page, "Some DESK")
        await page.get_by_role("button", name="Place the order").dblclick()
        order = await number(page)
        keys = {await one.header_value("idempotency-key") for one in tries}
        assert (len(tries), len(keys)) == (2, 1)
        assert await placed(dan) == [order]
        await shows(page, "completed")


async def test_a_reload_in_the_middle_is_one_order(shop: Shop, browser: Browser) -> None:
    eli = await shop.person("eli")
    await shop.sells("SOFA", stock=9)
    async with tab(browser) as one:
        page = one.page
        held, answered = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            if route.request.method == "POST" and not held.is_set():
                await route.fetch()
                held.set()
                await answered.wait()
                await route.abort()
            else:
                await route.continue_()

        await page.route("**/ecommerce/orders/", hold)
        await came(page, shop, eli)
        await fills(page, "Some SOFA")
        await page.get_by_role("button", name="Place the order").click()
        await asyncio.wait_for(held.wait(), 60)
        # Meanwhile the basket is what it was, and cannot be changed.
        await expect(page.get_by_text("Your order is on its way")).to_be_visible()
        await expect(page.get_by_label("How many of Some SOFA")).to_be_disabled()
        await one.accessible("shop-on-its-way")
        answered.set()
        await page.goto(f"{shop.gateway.url}/shop/#articles")
        await page.reload()
        order = await number(page)
        assert await placed(eli) == [order]
        await shows(page, "completed")


async def test_an_order_waits_for_a_service_that_rests(shop: Shop, browser: Browser) -> None:
    fay = await shop.person("fay")
    await shop.sells("BOOK", stock=9)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, fay)
        await shop.by_operator("POST", "/groups/ecommerce.inventory/pause")
        try:
            await buys(page, "Some BOOK")
            await expect(page.get_by_text("Your order waits.")).to_be_visible(timeout=WITHIN)
            await expect(page.get_by_text("The stock room has not answered yet.")).to_be_visible()
            await expect(step(page, "Goods reserved")).to_have_attribute("aria-current", "step")
            await one.picture("shop-waits")
        finally:
            await shop.by_operator("POST", "/groups/ecommerce.inventory/resume")
        await shows(page, "completed")
        await expect(page.get_by_text("Your order waits.")).to_be_hidden()


async def test_orders_that_are_not_taken_now_are_taken_once(shop: Shop, browser: Browser) -> None:
    kim = await shop.person("kim")
    await shop.sells("HARP", stock=9)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, kim)
        await fills(page, "Some HARP")
        async with shop.gateway.away("ecommerce.orders"):
            tries = asked(page, "POST", "/ecommerce/orders/")
            await page.get_by_role("button", name="Place the order").click()
            await expect(page.get_by_text("Your order is on its way")).to_be_visible()
            async with page.expect_response(lambda one: one.status == 503):
                pass
        order = await number(page)
        assert len({await one.header_value("idempotency-key") for one in tries}) == 1
        assert await placed(kim) == [order]


async def test_a_bank_that_never_answers_and_a_customer_who_does_not_wait(shop: Shop, browser: Browser) -> None:
    gil = await shop.person("gil")
    await shop.sells("HAT", stock=2)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, gil)
        await buys(page, "Some HAT", card="Never answers")
        await shows(page, "goods reserved")
        page.once("dialog", lambda asked: asked.dismiss())
        await page.get_by_role("button", name="Cancel the order").click()
        await expect(page.get_by_text("The bank has not answered yet.")).to_be_visible(timeout=WITHIN)
        page.once("dialog", lambda asked: asked.accept())
        await page.get_by_role("button", name="Cancel the order").click()
        await shows(page, "cancelled")
        await expect(page.get_by_text("It is cancelled. Nothing was charged.")).to_be_visible()
        assert await shop.available("HAT") == 2


async def test_customers_see_nothing_of_each_other(shop: Shop, browser: Browser) -> None:
    hal, ida = await shop.person("hal"), await shop.person("ida")
    await shop.sells("PEN", stock=9)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, hal)
        order = await buys(page, "Some PEN")
        await shows(page, "completed")
        await page.goto(f"{shop.gateway.url}/shop/#articles")
        await page.get_by_role("button", name="Add Some PEN to basket").click()
        await page.get_by_role("button", name="Sign out").click()
        # In the same tab, where everything of his was.
        await came(page, shop, ida, f"orders/{order}")
        await expect(page.get_by_role("alert").first).to_contain_text("no such order of yours")
        await page.get_by_role("navigation").get_by_role("link", name="Orders").click()
        await expect(page.get_by_text("You ordered nothing yet.")).to_be_visible()
        await expect(page.get_by_role("navigation").get_by_role("link", name="Basket")).to_have_text("Basket")


async def test_an_order_on_its_way_is_never_placed_by_who_comes_next(shop: Shop, browser: Browser) -> None:
    lea, ned = await shop.person("lea"), await shop.person("ned")
    await shop.sells("LAMP", stock=9)
    async with tab(browser) as one:
        page = one.page

        async def hers_is_lost(route: Route) -> None:
            mine = route.request.headers.get("authorization", "").endswith(ned.access)
            await (route.continue_() if mine else route.abort())

        await page.route("**/ecommerce/orders/", hers_is_lost)
        await came(page, shop, lea)
        await fills(page, "Some LAMP")
        async with page.expect_event("requestfailed", lambda one: one.method == "POST"):
            await page.get_by_role("button", name="Place the order").click()
        # Before it is tried again, somebody else is in this tab.
        await page.evaluate("token => { location.hash = `token=${token}` }", ned.access)
        await expect(page.get_by_role("banner")).to_contain_text(ned.user)
        await page.get_by_role("navigation").get_by_role("link", name="Articles").click()
        order = await buys(page, "Some LAMP")
        assert await placed(ned) == [order]
        assert await placed(lea) == []


async def test_a_link_makes_the_page_ask_no_other_path(shop: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        page = one.page
        paths: list[str] = []
        page.on("request", lambda one: paths.append(one.url))
        await came(page, shop, await shop.person("pia"), "orders/..%2F..%2Faccounts%2Fusers%2Fme%3F")
        await expect(page.get_by_text("You ordered nothing yet.")).to_be_visible()
        assert [one for one in paths if one.endswith("?")] == []


async def test_own_orders_come_in_pages_and_live(shop: Shop, browser: Browser) -> None:
    jan = await shop.person("jan")
    await shop.sells("NAIL", 5, stock=99)
    await shop.by_operator("POST", "/groups/ecommerce.shipping/pause")
    order = await jan.buys(("NAIL", 1))
    await shop.status(order, "confirmed")
    # Of former days.
    row = {"user": jan.user, "status": "cancelled", "payment": "none", "fulfilment": "unfulfilled", "ended": 9}
    row |= {"lines": b'[{"sku":"NAIL","quantity":1,"price":5}]', "total": 5, "currency": "EUR"}
    row |= {"reason": "cancelled", "detail": ""}
    async with shop.gateway.database("ecommerce.orders") as db:
        await db.execute(ORDERS.insert(), [{**row, "id": f"0-{n:02}", "placed": n, "changed": n} for n in range(11)])
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, jan, "orders")
        rows = page.get_by_role("row").filter(has_text="Some NAIL")
        await expect(rows).to_have_count(10)
        await page.get_by_role("button", name="Show more").click()
        await expect(rows).to_have_count(12)
        await expect(page.get_by_role("button", name="Show more")).to_have_count(0)
        # What goes on is seen in the list too.
        await expect(rows.first).to_contain_text("confirmed")
        await shop.by_operator("POST", "/groups/ecommerce.shipping/resume")
        await expect(rows.first).to_contain_text("completed", timeout=WITHIN)


async def test_the_keyboard_is_enough(shop: Shop, browser: Browser) -> None:
    lea = await shop.person("lea")
    await shop.sells("ROPE", stock=9)
    async with tab(browser) as one:
        page, keys = one.page, one.page.keyboard
        await came(page, shop, lea)
        await reach(page, "Add Some ROPE to basket")
        await keys.press("Enter")
        await reach(page, "Basket (1)")
        await keys.press("Enter")
        await expect(page.get_by_role("heading", name="Basket")).to_be_visible()
        await reach(page, "Place the order")
        await keys.press("Enter")
        await number(page)
        # The focus is where the news is.
        await expect(page.get_by_role("heading", name="Order")).to_be_focused()
        await shows(page, "completed")
        assert one.complaints == []


async def reach(page: Page, name: str) -> None:
    """Press Tab until something of that name has the focus."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        found = await page.evaluate("document.activeElement === document.body ? '' : document.activeElement.innerText")
        if name in " ".join(str(found).split()):
            return
    pytest.fail(f"{name!r} is not reached by Tab")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", COLOURS)
async def test_axe_finds_nothing(shop: Shop, browser: Browser, size: str, colours: Colours) -> None:
    mia = await shop.person(f"mia-{size}-{colours}")
    for sku, price, stock in (("KETTLE", 4900, 3), ("CARPET", 129_900, 0), ("SPOON", 250, 40)):
        await shop.sells(sku, price, stock=stock)
    async with shop.gateway.database("ecommerce.inventory") as db:
        await insert_new(db, STOCK, {"sku": "CARPET", "on_hand": 0, "reserved": 0})
    await shop.status(await mia.buys(("CARPET", 1)), "out_of_stock")
    async with tab(browser, size, colours) as one:
        page = one.page
        await came(page, shop, mia)
        await expect(page.get_by_role("listitem").filter(has_text="Some CARPET")).to_contain_text("out of")
        await page.get_by_role("button", name="Add Some KETTLE to basket").click()
        await one.accessible("shop-articles")
        await page.get_by_role("button", name="Add Some SPOON to basket").click()
        await page.get_by_role("navigation").get_by_role("link", name="Basket").click()
        await expect(page.get_by_role("button", name="Place the order")).to_be_visible()
        await one.accessible("shop-basket")
        await page.get_by_role("radio", name="Is declined").check()
        await page.get_by_role("button", name="Place the order").click()
        await expect(page.get_by_role("button", name="Pay with this card")).to_be_visible(timeout=WITHIN)
        await one.accessible("shop-declined")
        await page.get_by_role("radio", name="Pays").check()
        await page.get_by_role("button", name="Pay with this card").click()
        await shows(page, "completed")
        await one.accessible("shop-order")
        await page.get_by_role("navigation").get_by_role("link", name="Orders").click()
        await expect(page.get_by_role("row").filter(has_text="out of stock")).to_be_visible()
        await one.accessible("shop-orders")
        await page.get_by_role("row").filter(has_text="out of stock").get_by_role("link").click()
        await shows(page, "out of stock")
        await one.accessible("shop-short")
        assert one.complaints == []

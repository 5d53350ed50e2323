"""Accounts in a real browser: made, signed in with, renewed while the page is live, and left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from accounts import limits
from tests.ecommerce.shop import PASSWORD, Shop, open_shop, until
from tests.web.browser import COLOURS, SIZES, Colours, tab
from tests.web.market import asked, came, stored

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path_factory.mktemp("shop")) as one:
        yield one


async def creates(page: Page, name: str, mail: str, password: str = PASSWORD) -> None:
    await page.get_by_role("button", name="Create account").click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Mail address").fill(mail)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.keyboard.press("Enter")


async def refreshed(shop: Shop, refresh: str) -> httpx.Response:
    return await shop.http.post("/accounts/users/refresh", json={"refresh": refresh})


async def test_an_account_is_made_kept_by_its_tab_and_left(shop: Shop, browser: Browser) -> None:
    async with tab(browser) as one:
        page = one.page
        await page.goto(f"{shop.gateway.url}/shop/")
        await creates(page, "Ann Example", "ann@example.org")
        await expect(page.get_by_role("heading", name="Articles")).to_be_visible()
        await expect(page.get_by_role("banner")).to_contain_text("Ann Example")
        await page.reload()
        await expect(page.get_by_role("banner")).to_contain_text("Ann Example")
        other = await page.context.new_page()
        await other.goto(f"{shop.gateway.url}/shop/")
        await expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        refresh = (await stored(page, "account"))["refresh"]
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0

        async def over() -> bool:
            return (await refreshed(shop, refresh)).status_code == 401

        await until(over)
        # By the same address again: the old account, where the password is its own.
        await creates(page, "Somebody", "ann@example.org")
        await expect(page.get_by_role("banner")).to_contain_text("Ann Example")
        assert one.complaints == []


async def test_what_is_wrong_is_said_at_its_field(shop: Shop, browser: Browser) -> None:
    ben = await shop.person("ben")
    async with tab(browser) as one:
        page = one.page
        sent = asked(page, "POST", "/login")
        await page.goto(f"{shop.gateway.url}/shop/")
        mail, password = page.get_by_label("Mail address"), page.get_by_label("Password", exact=True)
        assert await mail.get_attribute("autocomplete") == "username"
        assert await password.get_attribute("autocomplete") == "current-password"
        await page.get_by_role("button", name="Sign in").click()
        await expect(mail).to_have_accessible_description("Give an address like ann@example.org.")
        await expect(mail).to_be_focused()
        await mail.fill(ben.mail)
        await password.fill("not the right one")
        await password.press("Enter")
        await expect(password).to_have_accessible_description("The address or the password is wrong.")
        await expect(password).to_be_focused()
        assert len(sent) == 1
        # Made anew: the address is taken, and what accounts wants of a password is said before it is asked.
        await page.get_by_role("button", name="Create account").click()
        await expect(page.get_by_label("Name")).to_be_focused()
        await expect(mail).to_have_value(ben.mail)
        assert await page.get_by_label("Name").get_attribute("autocomplete") == "name"
        assert await password.get_attribute("autocomplete") == "new-password"
        await page.get_by_label("Name").fill("Ben")
        await password.fill("short")
        await password.press("Enter")
        await expect(password).to_have_accessible_description(
            "At least 10 characters. A password has at least 10 characters; this one has 5."
        )
        assert len(sent) == 1
        await password.fill("long enough, and not his")
        await password.press("Enter")
        await expect(mail).to_have_accessible_description(
            "There is an account with this address, and another password. Sign in, or use another address."
        )
        # Accounts has the last word, about what a form cannot know.
        await mail.fill("ben@exam..ple.org")
        await password.press("Enter")
        await expect(mail).to_have_accessible_description("the address is none; mend it.")


async def test_too_many_tries_are_told_with_the_time_to_wait(shop: Shop, browser: Browser) -> None:
    cem = await shop.person("cem")
    async with tab(browser) as one:
        page = one.page
        await page.goto(f"{shop.gateway.url}/shop/")
        await page.get_by_label("Mail address").fill(cem.mail)
        password = page.get_by_label("Password", exact=True)
        await password.fill("a guess of many")
        # Pauses double, and the first of them may be over by now.
        for _ in range(limits.FREE_PAIR + 10):
            async with page.expect_response("**/login") as answered:
                await password.press("Enter")
            await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
            if (await answered.value).status == 429:
                break
        await expect(page.get_by_role("alert")).to_contain_text("Too many tries. Try again in")


async def test_another_kind_of_token_is_told_and_gives_way(shop: Shop, browser: Browser) -> None:
    dee = await shop.person("dee")
    async with tab(browser) as one:
        page = one.page
        await page.goto(f"{shop.gateway.url}/shop/#token={shop.token('root', 'operator')}")
        await expect(page.get_by_role("alert")).to_contain_text(
            "You are signed in as operator root; this page is for customers."
        )
        await page.get_by_label("Mail address").fill(dee.mail)
        await page.get_by_label("Password", exact=True).fill("the wrong one")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The address or the password is wrong.")).to_be_visible()
        await expect(page.get_by_role("banner")).to_contain_text("operator root")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("banner")).to_contain_text(dee.name.title())
        await expect(page.get_by_role("banner")).not_to_contain_text("operator")


async def test_the_token_is_renewed_while_the_page_is_live(
    shop: Shop, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve = await shop.person("eve")
    await shop.sells("CLOCK", 900, stock=3)
    monkeypatch.setattr(limits, "ACCESS_LIFE", 4)
    async with tab(browser) as one:
        page = one.page
        renewals, sockets = asked(page, "POST", "/refresh"), list[str]()
        page.on("websocket", lambda socket: sockets.append(socket.url))
        await came(page, shop, eve)
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        await until(lambda: len(renewals) >= 2)
        # The same connection all the while, and each refresh token was used once.
        await shop.sells("CLOCK", 950)
        await expect(page.get_by_role("listitem").filter(has_text="Some CLOCK")).to_contain_text("€9.50")
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        assert len(sockets) == 1
        bodies = [str(renewal.post_data) for renewal in renewals]
        assert len(set(bodies)) == len(bodies)
        assert one.complaints == []


async def test_nobody_is_signed_out_because_accounts_is_away(
    shop: Shop, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    hugo = await shop.person("hugo")
    await shop.sells("GLOBE", 900, stock=3)
    monkeypatch.setattr(limits, "ACCESS_LIFE", 4)
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, hugo)
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        async with shop.gateway.away("accounts.users"):
            async with page.expect_response(lambda one: one.url.endswith("/refresh") and one.status == 503):
                pass
            await expect(page.get_by_role("banner")).to_contain_text(hugo.name.title())
        async with page.expect_response(lambda one: one.url.endswith("/refresh") and one.status == 200):
            pass
        await shop.sells("GLOBE", 950)
        await expect(page.get_by_role("listitem").filter(has_text="Some GLOBE")).to_contain_text("€9.50")


async def test_a_session_that_was_ended_elsewhere_says_so(shop: Shop, browser: Browser) -> None:
    fay = await shop.person("fay")
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, fay)
        await expect(page.get_by_role("banner")).to_contain_text("✓ live")
        for_good = {"code": 4600, "reason": "closing time"}  # as an application of somebody's may say
        await shop.by_operator("POST", "/api/disconnect", {"user": fay.user, "disconnect": for_good})
        await expect(page.get_by_role("alert")).to_contain_text("The connection was ended: closing time")
        await came(page, shop, fay)
        account = await stored(page, "account")
        assert (await shop.http.post("/accounts/users/logout", json={"refresh": account["refresh"]})).is_success
        # Its token is good for minutes yet; when it is to be renewed, that is refused.
        await page.evaluate(
            "one => sessionStorage.setItem('topic-gateway.account', JSON.stringify({...one, due: 0}))", account
        )
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("Your session is over")
        assert await page.evaluate("sessionStorage.length") == 0


async def test_a_tab_that_was_duplicated_shares_what_is_renewed_and_left(shop: Shop, browser: Browser) -> None:
    gus = await shop.person("gus")
    async with tab(browser) as one:
        page = one.page
        await came(page, shop, gus)
        async with page.context.expect_page() as opened:
            await page.evaluate("void window.open(location.href)")
        twin = await opened.value
        await expect(twin.get_by_role("banner")).to_contain_text(gus.name.title())
        before = await stored(twin, "account")
        assert before == await stored(page, "account")
        await page.evaluate(
            "one => sessionStorage.setItem('topic-gateway.account', JSON.stringify({...one, due: 0}))", before
        )
        await page.reload()

        async def same() -> bool:
            ours, theirs = await stored(page, "account"), await stored(twin, "account")
            return bool(ours["refresh"] == theirs["refresh"] != before["refresh"])

        await until(same)
        await page.get_by_role("button", name="Sign out").click()
        await expect(twin.get_by_role("alert")).to_contain_text("You signed out in another tab.")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", COLOURS)
async def test_axe_finds_nothing_in_the_form(shop: Shop, browser: Browser, size: str, colours: Colours) -> None:
    async with tab(browser, size, colours) as one:
        page = one.page
        await page.goto(f"{shop.gateway.url}/shop/#token={shop.token('root', 'operator')}")
        await expect(page.get_by_role("alert")).to_be_visible()
        await one.accessible("account-instead")
        await page.get_by_role("button", name="Sign out").click()
        await one.accessible("account")
        await page.get_by_role("button", name="Create account").click()
        await page.get_by_role("button", name="Create account").click()
        await expect(page.get_by_text("Say how you want to be called.")).to_be_visible()
        await one.accessible("account-wrong")

"""Customers with accounts who buy through the edge, and ask again with the same key until they are answered."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import httpx

from tests.servers import eventually
from tests.whole.stage import WITHIN, Whole, asked

#: Article → price, and how many come in: one is scarce.
GOODS: Final = {"TEA": (1290, 10_000), "CUP": (1450, 10_000), "KETTLE": (4900, 25)}
CARDS: Final = ("card_ok",) * 6 + ("card_slow", "card_twice", "card_late_twice", "card_declined", "card_stolen")
PASSWORD: Final = "correct horse"
#: Seconds between two orders of one customer, and that a login is used: far less than it lasts.
EVERY: Final = 2.0
LOGIN_KEPT: Final = 240.0


class Account:
    """Somebody who is registered, and logs in again before the token ends."""

    def __init__(self, http: httpx.AsyncClient, name: str) -> None:
        self.http, self.mail, self.user = http, f"{name}@example.org", ""
        self._token, self._at = "", 0.0

    async def register(self) -> None:
        new = {"mail": self.mail, "password": PASSWORD, "name": "Some Body"}
        assert (await asked(self.http, "POST", "/accounts/users/register", new, {})).status_code == httpx.codes.ACCEPTED
        await self.token()

    async def token(self) -> str:
        if not self._token or time.monotonic() - self._at > LOGIN_KEPT:
            proof = {"mail": self.mail, "password": PASSWORD}
            entered = await asked(self.http, "POST", "/accounts/users/login", proof, {})
            assert entered.is_success, entered.text
            self.user, self._token, self._at = entered.json()["user"], entered.json()["access"], time.monotonic()
        return self._token

    async def asks(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await asked(
            self.http, method, path, body, {"authorization": f"Bearer {await self.token()}", **(headers or {})}
        )


class Customer:
    """Buys until told to stop; every order's key, and what it was answered, is kept."""

    def __init__(self, account: Account, seed: int) -> None:
        self.account, self._dice = account, random.Random(f"{seed} {account.mail}")
        #: Key → what was asked, and the order that it became.
        self.baskets: dict[str, object] = {}
        self.orders: dict[str, str] = {}

    async def shops(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.buys()
            await asyncio.sleep(EVERY * (0.5 + self._dice.random()))

    async def buys(self) -> None:
        key = f"{self.account.user}-{len(self.baskets)}"
        skus = self._dice.sample(sorted(GOODS), self._dice.randint(1, 2))
        card = self._dice.choice(CARDS)
        lines = [{"sku": sku, "quantity": self._dice.randint(1, 2)} for sku in skus]
        self.baskets[key] = {"lines": lines, "method": card}
        answer = await self.asks_for(key)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        order = self.orders[key] = str(answer.json()["order"])
        if self._dice.random() < 0.1:  # in time or too late: both are answers
            said = await self.account.asks("POST", f"/ecommerce/orders/{order}/cancel")
            assert said.status_code in (httpx.codes.ACCEPTED, httpx.codes.CONFLICT), said.text
        elif card == "card_declined":
            await self._pays_otherwise(order)

    async def asks_for(self, key: str) -> httpx.Response:
        return await self.account.asks("POST", "/ecommerce/orders/", self.baskets[key], {"idempotency-key": key})

    async def _pays_otherwise(self, order: str) -> None:
        """Wait until the card is declined, and try another; or it was out of stock before that."""
        while True:
            seen = (await self.account.asks("GET", f"/ecommerce/orders/{order}")).json()
            if seen["ended"] is not None:
                return
            if seen["payment"] == "declined":
                other = {"method": "card_ok"}
                said = await self.account.asks("POST", f"/ecommerce/payments/{order}/attempts", other)
                # The same answer came before, and was lost on its way: then it is charged already.
                assert said.status_code in (httpx.codes.ACCEPTED, httpx.codes.CONFLICT), said.text
                return
            await asyncio.sleep(0.5)


async def stocked(stage: Whole) -> None:
    """Put the goods into the catalog and on the shelf."""
    for sku, (price, many) in GOODS.items():
        await stage.ask("PUT", f"/ecommerce/catalog/{sku}", {"title": sku.title(), "price": price, "currency": "EUR"})
        await stage.ask("PUT", f"/ecommerce/inventory/receipts/first-{sku}", {"sku": sku, "quantity": many})


async def open_shop(customer: Customer) -> None:
    """Wait until orders knows all prices: the first order is taken."""
    basket = {"lines": [{"sku": sku} for sku in sorted(GOODS)], "method": "card_ok"}
    key = f"{customer.account.user}-first"
    customer.baskets[key] = basket

    async def taken() -> bool:
        answer = await customer.asks_for(key)
        if answer.status_code == httpx.codes.ACCEPTED:
            customer.orders[key] = str(answer.json()["order"])
        return key in customer.orders

    await eventually(taken, WITHIN)

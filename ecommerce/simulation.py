"""A day in the shop: goods that come in, customers who buy at once, and each order followed to its end."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Final

import httpx
import msgspec

from ecommerce.orders.rules import ENDS

#: Number → title, price, and how many of it there are for a hundred orders: one runs out.
GOODS: Final = {
    "TEA-GREEN": ("Green tea, 100 g", 1290, 300),
    "TEA-BLACK": ("Black tea, 100 g", 990, 300),
    "CUP": ("Cup with a handle", 1450, 300),
    "KETTLE": ("Kettle that whistles", 4900, 20),
}
#: Cards, the likelier ones more often.
CARDS: Final = ("card_ok",) * 14 + ("card_slow", "card_slow", "card_twice", "card_twice", "card_stolen", "card_stolen")
#: Customers who ask at one time, and seconds between two looks at an order.
AT_ONCE: Final = 20
LOOK_EVERY: Final = 0.5
#: Seconds between two tries.
PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 4.0)


class Result(msgspec.Struct, frozen=True):
    """How a simulated day went."""

    #: How orders ended; ``open`` did not in time.
    ends: dict[str, int]
    #: Milliseconds from the request to the 202: the median, and what one in a hundred exceeds.
    p50: float
    p99: float


async def stock_up(http: httpx.AsyncClient, operator: str, orders: int) -> None:
    """Put the goods into the catalog and on the shelf."""
    for sku, (title, price, many) in GOODS.items():
        offer = {"title": title, "price": price, "currency": "EUR"}
        await _asked(http, "PUT", f"/ecommerce/catalog/{sku}", operator, offer)
        came = {"sku": sku, "quantity": max(1, many * orders // 100)}
        await _asked(http, "PUT", f"/ecommerce/inventory/receipts/{uuid.uuid4()}", operator, came)


async def customer(http: httpx.AsyncClient) -> str:
    """Register somebody who never was, and return their access token."""
    mail, password = f"{uuid.uuid4()}@example.org", str(uuid.uuid4())
    await _asked(
        http, "POST", "/accounts/users/register", "", {"mail": mail, "password": password, "name": "Some Body"}
    )
    entered = await _asked(http, "POST", "/accounts/users/login", "", {"mail": mail, "password": password})
    return str(entered.json()["access"])


async def run(
    http: httpx.AsyncClient,
    customers: Sequence[str],
    orders: int,
    *,
    within: float = 120.0,
    seed: int = 1,
    progress: Callable[[int, Counter[str]], object] = lambda placed, ends: None,
) -> Result:
    """Place ``orders`` as ``customers`` (tokens), and follow them; ``progress`` hears how many, and how they ended."""
    dice, gate = random.Random(seed), asyncio.Semaphore(AT_ONCE)  # noqa: S311 - a simulation that can be repeated
    baskets = [(dice.choice(customers), _basket(dice)) for _ in range(orders)]
    took, ends, placed = list[float](), Counter[str](), 0

    async def one(token: str, basket: dict[str, object]) -> None:
        nonlocal placed
        async with gate:
            began = time.perf_counter()
            answer = await _asked(http, "POST", "/ecommerce/orders/", token, basket, key=str(uuid.uuid4()))
            took.append((time.perf_counter() - began) * 1000)
        placed += 1
        progress(placed, ends)
        ends[await _end(http, gate, token, answer.json()["order"], time.monotonic() + within)] += 1
        progress(placed, ends)

    async with asyncio.TaskGroup() as tasks:
        for n, (token, basket) in enumerate(baskets):
            tasks.create_task(one(token, basket), name=f"order {n}")
    cuts = quantiles(took, n=100) if len(took) > 1 else took * 100
    return Result(dict(ends), cuts[49], cuts[98])


async def _end(http: httpx.AsyncClient, gate: asyncio.Semaphore, token: str, order: str, give_up: float) -> str:
    while time.monotonic() < give_up:
        await asyncio.sleep(LOOK_EVERY)
        async with gate:
            seen = (await _asked(http, "GET", f"/ecommerce/orders/{order}", token)).json()
        if seen["status"] in ENDS:
            return str(seen["status"])
    return "open"


async def _asked(
    http: httpx.AsyncClient, method: str, path: str, token: str, body: object = None, *, key: str = ""
) -> httpx.Response:
    """Return a good answer. What may be asked again is, with the same key; 422 too: orders may not know a price yet."""
    headers = ({"authorization": f"Bearer {token}"} if token else {}) | ({"idempotency-key": key} if key else {})
    for pause in PAUSES:
        answer = await http.request(method, path, json=body, headers=headers)
        if answer.status_code not in ((422, 429, 503) if key else (429, 503)):
            return answer.raise_for_status()
        await asyncio.sleep(pause)
    return (await http.request(method, path, json=body, headers=headers)).raise_for_status()


def _basket(dice: random.Random) -> dict[str, object]:
    skus = dice.sample(sorted(GOODS), dice.randint(1, 2))
    return {"lines": [{"sku": sku, "quantity": dice.randint(1, 2)} for sku in skus], "method": dice.choice(CARDS)}

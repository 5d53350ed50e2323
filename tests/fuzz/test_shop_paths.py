"""accounts and ecommerce by their own document: it is valid and whole, and every route answers what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import requests
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from accounts.app import app as accounts
from ecommerce.app import app as ecommerce
from ecommerce.orders.tables import ORDERS
from ecommerce.payments.tables import PAYMENTS
from gateway.adapters.http_operation import operations
from tests.ecommerce.shop import Shop, open_shop
from tests.fuzz.test_http_paths import asked, bearing


def test_every_route_says_what_it_is() -> None:
    for app in (accounts, ecommerce):
        for service in app.services:
            for one in operations(f"{app.name}.{service.name}", service):
                assert one.summary.endswith("."), one.id
                assert one.grants, one.id
                # What succeeds has a type: none of these answers nothing.
                assert any(status < 300 and answer.body for status, answer in one.answers.items()), one.id
                assert one.method in ("GET", "DELETE") or one.body or one.path.endswith(BODILESS), one.id


#: Where the path says it all.
BODILESS = ("/cancel", "/void", "/capture", "/consent", "/{token}")


@pytest.mark.parametrize("kind", ["user", "operator"])
async def test_every_route_answers_what_it_says(tmp_path: Path, kind: str) -> None:
    async with open_shop(tmp_path) as shop:
        await there(shop)
        who = bearing(shop.token("alice", kind))
        reader = shop.token("root", "operator")
        document = await asyncio.to_thread(requests.get, f"{shop.gateway.url}/openapi.json", headers=bearing(reader))
        assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document.json())] == []
        place = document.json()["paths"]["/ecommerce/orders"]["post"]
        (key,) = (one for one in place["parameters"] if one["in"] == "header")
        assert (key["name"], key["required"], key["schema"]["minLength"]) == ("Idempotency-Key", True, 1)
        assert "Location" in place["responses"]["202"]["headers"]
        for below in ("/accounts/", "/ecommerce/"):
            await asyncio.to_thread(asked, shop.gateway.url, reader, who, below)


async def there(shop: Shop) -> None:
    """Let the fuzzer fall upon an article and an order of its own."""
    await shop.sells("CUP", stock=5)
    alice = {"user": "alice", "currency": "EUR"}
    async with shop.gateway.database("ecommerce.orders") as db:
        row = {"id": "0-0", "lines": b"[]", "total": 5, "status": "accepted", "payment": "none", **alice}
        row |= {"fulfilment": "unfulfilled", "reason": "", "detail": "", "placed": 1, "changed": 1}
        await db.execute(ORDERS.insert(), row)
    async with shop.gateway.database("ecommerce.payments") as db:
        await db.execute(PAYMENTS.insert(), {"order": "0-0", "status": "declined", "attempt": 1, "amount": 5, **alice})

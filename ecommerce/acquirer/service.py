"""The service ``ecommerce.acquirer``: stands in for a bank; it tells the shop by signed webhooks, until heard."""

from __future__ import annotations

import time

import msgspec

from ecommerce.acquirer.routes import ROUTES, Told
from ecommerce.acquirer.rules import signature
from ecommerce.acquirer.tables import TABLES
from ecommerce.settings import settings
from gateway import Context, Rejected, Service
from gateway.sql import Database
from gateway.web import TurnedDown, ask

service = Service(
    "acquirer",
    database=Database(tables=TABLES, migrations="ecommerce.acquirer.migrations"),
    delays=["ecommerce/acquirer/{order}/told"],
    routes=ROUTES,
    asks=["ecommerce.payments"],
)


@service.on("ecommerce/acquirer/{order}/told")
async def tell(told: Told, context: Context) -> None:
    content = msgspec.json.encode(told)
    headers = {
        "content-type": "application/json",
        "acquirer-signature": signature(settings().webhook_secret, content, int(time.time())),
    }
    try:
        await ask(context, "POST", "/ecommerce/payments/webhooks", content, headers=headers)
    except TurnedDown as error:
        raise Rejected(f"the shop answered {error.answered}") from None

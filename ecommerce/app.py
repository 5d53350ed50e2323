"""The application ``ecommerce``: ``apps = ["accounts.app:app", "ecommerce.app:app"]`` in gateway.toml."""

from __future__ import annotations

from ecommerce.acquirer.service import service as acquirer
from ecommerce.catalog.service import service as catalog
from ecommerce.commands import simulate
from ecommerce.inventory.service import service as inventory
from ecommerce.notifications.service import service as notifications
from ecommerce.orders.checkout import checkout
from ecommerce.orders.service import service as orders
from ecommerce.payments.service import service as payments
from ecommerce.shipping.service import service as shipping
from ecommerce.topics import topics
from gateway import App

app = App(
    "ecommerce",
    topics=[*topics(), *checkout.topics],
    commands=[simulate],
    services=[catalog, orders, inventory, payments, acquirer, shipping, notifications],
)

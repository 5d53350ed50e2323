"""The service ``ecommerce.catalog``: it answers, and tells prices."""

from __future__ import annotations

from ecommerce.catalog.routes import ROUTES
from ecommerce.catalog.tables import TABLES
from gateway import Service
from gateway.sql import Database

service = Service(
    "catalog",
    database=Database(tables=TABLES, migrations="ecommerce.catalog.migrations"),
    emits=["ecommerce/catalog/{sku}/priced"],
    routes=ROUTES,
)

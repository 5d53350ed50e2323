"""The service ``accounts.users``: routes, a database, and two facts that name nobody."""

from __future__ import annotations

from accounts.routes import ROUTES
from accounts.tables import TABLES
from gateway import Service
from gateway.sql import Database

users = Service(
    "users",
    database=Database(tables=TABLES, migrations="accounts.migrations"),
    emits=["accounts/users/{user}/registered", "accounts/users/{user}/erased"],
    routes=ROUTES,
)

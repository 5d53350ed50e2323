"""The door for services with a database: what they keep, and what leaves because of it, in one transaction."""

from __future__ import annotations

from pathlib import Path

import msgspec
from sqlalchemy import MetaData

from gateway.adapters.database import Schema, connect, revise
from gateway.adapters.database.find import find
from gateway.adapters.database.sagas import Saga
from gateway.adapters.database.upsert import upsert
from gateway.adapters.http_service import reading, transaction
from gateway.core.saga import Step
from gateway.store import Reading, Store, Transaction

__all__ = ["Database", "Reading", "Saga", "Step", "Transaction", "find", "reading", "transaction", "upsert"]


class Database(msgspec.Struct, frozen=True):
    """The database of one service: ``Service(…, database=Database(tables=METADATA))``.

    Where it is, the operator says: ``[services."app.service"] database``, a ``postgresql://`` or ``sqlite:///`` URL; by
    default a file in the data folder. Its tables are made or brought up to date when a process of the service starts,
    the gateway's own (``gateway_inbox``, ``gateway_outbox``, ``gateway_relay``) among them. Services share no database.
    """

    #: What is absent is made; nothing is changed. For a service whose tables change, ``migrations`` says how.
    tables: MetaData | None = None
    #: A package or a folder of Alembic revisions, such as ``ecommerce.orders.migrations``.
    migrations: str = ""

    async def open(self, url: str) -> Store:
        """Connect, and bring the tables up to date; raises `Misconfigured`, or `Unavailable` (call again)."""
        return await connect(url, Schema(self.tables, self.migrations))

    async def bring_up(self, url: str, new: str = "") -> Path | None:
        """Bring the tables up to date; or write the revision ``new`` with what they lack, and return its file."""
        return await revise(url, Schema(self.tables, self.migrations), new)

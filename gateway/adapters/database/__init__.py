"""Services' databases: SQLite in a file, PostgreSQL by a URL, one promise."""

from pathlib import Path

from gateway.adapters.database.migrate import Schema
from gateway.adapters.database.postgres import PostgresStore
from gateway.adapters.database.sqlite import SqliteStore
from gateway.errors import Misconfigured

__all__ = ["Schema", "connect", "revise"]


async def connect(url: str, schema: Schema) -> SqliteStore | PostgresStore:
    """Open the database at ``url`` and bring its tables up to date; raises `Misconfigured` or `Unavailable`."""
    if url.startswith("sqlite:///"):
        return await SqliteStore.open(url, schema)
    if url.startswith("postgresql://"):
        return await PostgresStore.open(url, schema)
    raise Misconfigured(f"a database's URL begins with {url.partition(':')[0]!r}", "use sqlite:/// or postgresql://")


async def revise(url: str, schema: Schema, new: str) -> Path | None:
    """Bring the tables up to date, then write the revision ``new`` with what they lack; returns its file."""
    store = await connect(url, schema)
    try:
        return await store.run(lambda connection: schema.write(connection, new)) if new else None
    finally:
        await store.close()

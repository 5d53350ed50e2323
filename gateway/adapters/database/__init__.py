"""Services' databases: SQLite in a file, PostgreSQL by a URL, one promise."""

from pathlib import Path

from sqlalchemy.exc import OperationalError, ProgrammingError

from gateway.adapters.database.migrate import Schema
from gateway.adapters.database.postgres import PostgresStore
from gateway.adapters.database.sqlite import SqliteStore
from gateway.errors import Misconfigured

__all__ = ["Schema", "attach", "connect", "revise"]


async def connect(url: str, schema: Schema) -> SqliteStore | PostgresStore:
    """Open the database at ``url`` and bring its tables up to date; raises `Misconfigured` or `Unavailable`."""
    if url.startswith("sqlite:///"):
        return await SqliteStore.open(url, schema)
    if url.startswith("postgresql://"):
        return await PostgresStore.open(url, schema)
    raise Misconfigured(f"a database's URL begins with {url.partition(':')[0]!r}", "use sqlite:/// or postgresql://")


async def attach(url: str) -> SqliteStore | PostgresStore:
    """Open it as `connect` does, and change nothing; raises `NotAvailable` where no worker ever made it, too."""
    kind = SqliteStore if url.startswith("sqlite:///") else PostgresStore
    store: SqliteStore | PostgresStore = kind.attach(url)
    try:
        await store.outbox_age()
    except (OperationalError, ProgrammingError) as error:
        await store.close()
        raise Misconfigured("it lacks the gateway's tables, or they are older than this program") from error
    except BaseException:
        await store.close()
        raise
    return store


async def revise(url: str, schema: Schema, new: str) -> Path | None:
    """Bring the tables up to date, then write the revision ``new`` with what they lack; returns its file."""
    store = await connect(url, schema)
    try:
        return await store.run(lambda connection: schema.write(connection, new)) if new else None
    finally:
        await store.close()

"""A service's database: where it is, its opening, and ``gateway migrate``, which brings its tables up to date."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway import limits
from gateway.cli.configuration import Config, Configuration, gather, known_service
from gateway.cli.process import Waiting
from gateway.errors import GatewayError, Misconfigured, Unavailable
from gateway.settings import ServiceTable, redacted
from gateway.store import Store

_logger = logging.getLogger("gateway.process")


def run(
    service: Annotated[str, typer.Argument(metavar="APP.SERVICE", help="Whose tables.")],
    new: Annotated[str, typer.Option("--new", metavar="WHAT", help="Write a revision with what the tables lack.")] = "",
    config: Config = None,
) -> None:
    """Bring a service's tables up to date, as its workers do when they start; with --new, write the next revision."""
    found = gather(config)
    database = known_service(found, service).database
    if database is None:
        raise Misconfigured(f"service {service!r} has no database", "Service(…, database=Database(…)), of gateway.sql")
    url = url_of(found, service)
    try:
        written = asyncio.run(database.bring_up(url, new))
    except Unavailable as error:
        raise GatewayError(str(error)) from None
    print(f"wrote {written}" if written else f"{redacted(url)} is up to date")


def url_of(found: Configuration, group: str) -> str:
    """Return where the database of a service is: by its variable, by gateway.toml, else a file in the data folder.

    The folder of a file is made.
    """
    table = found.settings.services.get(group) or ServiceTable()
    data = Path(found.settings.gateway.data).resolve()
    url = os.environ.get("GATEWAY_DATABASE_URL") or table.database or f"sqlite:///{data / group}.db"
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return url


async def open_store(found: Configuration, group: str, stop: asyncio.Event, waiting: Waiting) -> Store | None:
    """Return the database of a service, however long its server takes to come; None where it has none, or ``stop``.

    Raises :class:`Misconfigured` for what no waiting mends.
    """
    database = found.services[group].database
    if database is None:
        return None
    url = url_of(found, group)
    while not stop.is_set():
        try:
            return await database.open(url)
        except Unavailable as error:
            if waiting.why != str(error):
                _logger.warning("waiting for the database: %s", error)
            waiting.why = str(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), limits.AWAY_PAUSE)
    return None

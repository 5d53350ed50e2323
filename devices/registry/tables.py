"""The tables of the registry."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, MetaData, String, Table

TABLES = MetaData()
DEVICES = Table(
    "devices",
    TABLES,
    Column("device", String(64), primary_key=True),
    # See `rules.State`. Who was deleted stays, so that the broker is told for certain.
    Column("state", String(10), nullable=False),
    Column("label", String(200), nullable=False),
    #: Of the password, as the broker keeps it.
    Column("hashed", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
)
#: Also of devices that only the broker knows.
PRESENCE = Table(
    "presence",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("boot", String(64), nullable=False),
    Column("since", BigInteger, nullable=False),
)
#: When the broker's file is compared next, by itself, in ms, and why the broker has not read it yet: one row.
TIMER = Table(
    "timer",
    TABLES,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("due", BigInteger, nullable=False),
    Column("untold", String(500), nullable=False, server_default=""),
)
#: When the last message of a device came, by our clock, in ms.
SEEN = Table(
    "seen",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("seen", BigInteger, nullable=False),
)

"""The tables of alerting."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, LargeBinary, MetaData, String, Table

TABLES = MetaData()
RULES = Table(
    "rules",
    TABLES,
    Column("rule", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    #: A `rules.Rule`, as JSON.
    Column("said", LargeBinary, nullable=False),
    #: Its alerts are being ended.
    Column("retired", Boolean, nullable=False),
)
ALERTS = Table(
    "alerts",
    TABLES,
    Column("rule", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    # See `rules.Condition`.
    Column("state", String(8), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("value", Float),
    Column("acknowledged", String(80), nullable=False),
    Column("comment", String(500), nullable=False),
)
Index("alerts_of_a_device", ALERTS.c.device)
FLEET = Table(
    "fleet",
    TABLES,
    Column("device", String(64), primary_key=True),
    #: When something of it came last, by our clock, in ms.
    Column("seen", BigInteger, nullable=False, index=True),
    Column("active", Boolean, nullable=False),
)

"""The tables of storage."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, MetaData, String, Table

from devices.arrivals import arrivals

TABLES = MetaData()
ARRIVALS = arrivals(TABLES)
POINTS = Table(
    "points",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("ts", BigInteger, primary_key=True),
    Column("boot", String(160), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("value", Float, nullable=False),
    sqlite_with_rowid=False,
)
ROLLUPS = Table(
    "rollups",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    #: In ms, as ``start``.
    Column("size", BigInteger, primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("total", Float, nullable=False),
    Column("least", Float, nullable=False),
    Column("most", Float, nullable=False),
    sqlite_with_rowid=False,
)
LATEST = Table(
    "latest",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("ts", BigInteger, nullable=False),
    Column("value", Float, nullable=False),
    sqlite_with_rowid=False,
)
#: What came of each start of a device, and what came twice.
RUNS = Table(
    "runs",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("boot", String(160), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("doubled", BigInteger, nullable=False),
    Column("ts", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

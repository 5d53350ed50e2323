"""The tables of analytics."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

from devices.arrivals import arrivals

TABLES = MetaData()
ARRIVALS = arrivals(TABLES)
WINDOWS = Table(
    "windows",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    # See `windows.Span`.
    Column("count", BigInteger, nullable=False),
    Column("total", Float, nullable=False),
    Column("least", Float, nullable=False),
    Column("most", Float, nullable=False),
    Column("sketch", LargeBinary, nullable=False),
    #: Of what is told next.
    Column("revision", Integer, nullable=False),
    #: Something of it is not told yet.
    Column("untold", Boolean, nullable=False),
)
Index("windows_untold", WINDOWS.c.device, WINDOWS.c.untold, WINDOWS.c.start)
#: How far each device is, and what came too late to count.
MARKS = Table(
    "marks",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("newest", BigInteger, nullable=False),
    Column("late", BigInteger, nullable=False),
)
#: The means of the last windows of a series, by start, as JSON.
HISTORY = Table(
    "history",
    TABLES,
    Column("device", String(64), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("means", LargeBinary, nullable=False),
)

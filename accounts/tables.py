"""What accounts keeps: people, what they logged in by, and who failed to. Times in milliseconds since 1970."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table

TABLES = MetaData()
USERS = Table(
    "users",
    TABLES,
    Column("id", String(32), primary_key=True),
    # Gone once the account is erased. The row stays, so that its id is nobody else's.
    Column("mail", String(254), unique=True),
    Column("name", String(100), nullable=False),
    Column("phone", String(16), nullable=False),
    Column("password", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("erased", BigInteger),
)
#: One per login.
FAMILIES = Table(
    "families",
    TABLES,
    Column("id", String(32), primary_key=True),
    Column("user", String(32), ForeignKey("users.id"), nullable=False, index=True),
    #: When its newest refresh token ends.
    Column("expires", BigInteger, nullable=False, index=True),
    Column("ended", BigInteger),
)
#: Refresh tokens, by their SHA-256.
REFRESHES = Table(
    "refreshes",
    TABLES,
    Column("hash", String(64), primary_key=True),
    Column("family", String(32), ForeignKey("families.id"), nullable=False, index=True),
    # The token that it was given for; none has the first of a login.
    Column("parent", String(64), index=True),
    Column("used", BigInteger),
    Column("expires", BigInteger, nullable=False, index=True),
)
FAILURES = Table(
    "failures",
    TABLES,
    Column("counter", String(80), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last", BigInteger, nullable=False, index=True),
)

"""Two people at one row of accounts at one moment, on each database: one is first, and nobody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from accounts import limits
from accounts.app import app
from accounts.tables import FAILURES, USERS
from accounts.throttle import counters
from gateway.testing import Gateway, running
from tests.accounts.test_accounts import ANN, post
from tests.databases import KINDS, NewDatabase
from tests.servers import eventually

LOGIN = {"mail": ANN["mail"], "password": ANN["password"]}


@pytest.fixture(scope="module", params=sorted(KINDS))
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    with KINDS[request.param](tmp_path_factory.mktemp("accounts") / request.param) as new:
        yield new


@pytest.fixture
async def gateway(new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    monkeypatch.setenv("ACCOUNTS_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("ACCOUNTS_HASH_MIB", "1")
    async with running(app, edge=True, databases={"accounts.users": new_database("users")}) as gateway:
        yield gateway


async def test_one_address_is_registered_once(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(post(gateway, "/register", ANN) for _ in range(8)))
    assert {(one.status_code, one.text) for one in answers} == {(202, '{"accepted":true}')}
    async with gateway.database("accounts.users") as db:
        assert len((await db.execute(USERS.select())).all()) == 1
    await gateway.at_rest()
    assert len(await gateway.events("accounts/users/+/registered")) == 1


async def test_first_tries_at_one_moment_are_all_counted(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(post(gateway, "/login", LOGIN) for _ in range(8)))
    said = [one.status_code for one in answers]
    assert set(said) <= {401, 429}
    assert said.count(401) >= limits.FREE_PAIR
    async with gateway.database("accounts.users") as db:
        assert {row.failures for row in (await db.execute(FAILURES.select())).all()} == {said.count(401)}


@pytest.mark.parametrize("new_database", ["postgresql"], indirect=True)  # on SQLite, transactions take turns
async def test_who_comes_second_does_not_learn_it(gateway: Gateway) -> None:
    """As above without chance: the first has not committed yet when the second is at the row."""
    row = {"id": "u1", "mail": "ann@example.org", "name": "", "phone": "", "password": "", "role": "customer"}
    said = await _behind(gateway, USERS, [row | {"created": 1}], "/register", ANN)
    assert (said.status_code, said.text) == (202, '{"accepted":true}')
    tried = [{"counter": name, "failures": 1, "last": 1} for name in counters("ann@example.org", "127.0.0.1")]
    assert (await _behind(gateway, FAILURES, tried, "/login", LOGIN)).status_code == 401


async def _behind(gateway: Gateway, table: sa.Table, rows: list[dict[str, Any]], path: str, body: Any) -> Any:
    """Ask while ``rows`` are being written; commit once the one who asks waits for them."""

    async def waits() -> bool:
        return bool(await db.scalar(sa.select(sa.text("count(*) FROM pg_locks WHERE NOT granted"))))

    async with gateway.database("accounts.users") as db:
        await db.execute(table.insert(), rows)
        asked = asyncio.create_task(post(gateway, path, body), name="second")
        await eventually(waits)
    return await asked

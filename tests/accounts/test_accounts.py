"""Accounts as people meet them: over HTTP, on a real database, and at the gateway's own key ring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from accounts import limits
from accounts.app import app
from accounts.keys import keys
from accounts.passwords import PASSWORDS
from accounts.tables import FAILURES, FAMILIES, REFRESHES, USERS
from gateway.adapters.tokens import Verifier
from gateway.errors import BadToken
from gateway.settings import KeyTable, Settings, TokensTable
from gateway.testing import Gateway, running

ANN = {"mail": "Ann@example.org", "password": "correct horse", "name": "Ann Smith", "phone": "+491511"}
USERS_PATH = "/accounts/users"


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    monkeypatch.setenv("ACCOUNTS_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("ACCOUNTS_HASH_MIB", "1")
    async with running(app, edge=True) as gateway:
        yield gateway


async def post(gateway: Gateway, path: str, body: dict[str, Any], by: str = "") -> httpx.Response:
    async with gateway.client(by) as http:
        return await http.post(USERS_PATH + path, json=body)


async def logged_in(gateway: Gateway, who: dict[str, str] = ANN) -> dict[str, Any]:
    assert (await post(gateway, "/register", who)).status_code == 202
    answer = await post(gateway, "/login", {"mail": who["mail"], "password": who["password"]})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def verifier(gateway: Gateway, tmp_path: Path) -> Verifier:
    """The gateway's key ring, as ``[[tokens.keys]] jwks`` sets it up."""
    key = KeyTable(
        id="accounts",
        algorithm="EdDSA",
        jwks=f"{gateway.url}{USERS_PATH}/.well-known/jwks.json",
        issuer="accounts",
        audience="topic-gateway",
        roles=("user", "viewer", "operator"),
    )
    return Verifier(Settings(tokens=TokensTable(development=False, keys=(key,), api_keys_file=str(tmp_path / "none"))))


async def test_the_gateway_believes_whom_accounts_let_in(gateway: Gateway, tmp_path: Path) -> None:
    first = await logged_in(gateway)
    # The application itself says where its keys are: nobody configured any.
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        found = await http.get(f"{USERS_PATH}/me", headers={"authorization": f"Bearer {first['access']}"})
        assert found.json()["user"] == first["user"]
        theirs = await http.get("/openapi.json", headers={"authorization": f"Bearer {first['access']}"})
        assert theirs.status_code == 200
    ring = verifier(gateway, tmp_path)
    for one in ring.ring.sets:
        await one.fetch()
    grant = ring.verify(first["access"], time.time())
    assert str(grant.principal) == f"user:{first['user']}"
    assert grant.expires is not None
    assert 300 < grant.expires - time.time() <= 600  # ten minutes: nothing takes it back sooner
    now = first
    for role, kind in (("viewer", "viewer"), ("operator", "operator"), ("admin", "operator"), ("customer", "user")):
        given = await _put(gateway, f"/people/{first['user']}/role", {"role": role}, "operator:root")
        assert given.status_code == 200
        now = (await post(gateway, "/refresh", {"refresh": now["refresh"]})).json()
        assert str(ring.verify(now["access"], time.time()).principal) == f"{kind}:{first['user']}"
        assert now["role"] == role
        # By whatever role, it is her own account that she sees.
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            found = await http.get(f"{USERS_PATH}/me", headers={"authorization": f"Bearer {now['access']}"})
        assert (found.status_code, found.json().get("role")) == (200, role)


async def test_a_password_is_kept_as_argon2id(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await logged_in(gateway)
    async with gateway.database("accounts.users") as db:
        kept = (await db.execute(USERS.select())).one().password
    assert kept.startswith("$argon2id$v=19$m=1024,t=3,p=4$")
    # Where nobody sets the memory: RFC 9106's second recommendation.
    monkeypatch.delenv("ACCOUNTS_HASH_MIB")
    assert (await PASSWORDS.hash(ANN["password"])).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_a_new_key_signs_and_the_old_one_is_still_published(gateway: Gateway, tmp_path: Path) -> None:
    first = await logged_in(gateway)
    folder = tmp_path / "keys"
    assert oct((folder / "1.pem").stat().st_mode)[-3:] == "600"
    other = tmp_path / "other"
    assert len(keys(other)) == 1
    (other / "1.pem").rename(folder / "2.pem")
    second = (await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})).json()
    ring = verifier(gateway, tmp_path)
    for one in ring.ring.sets:
        await one.fetch()
    for token in (first["access"], second["access"]):
        assert ring.verify(token, time.time()).principal.name == first["user"]
    (folder / "1.pem").unlink()
    for one in ring.ring.sets:
        await one.fetch()
    with pytest.raises(BadToken):
        ring.verify(first["access"], time.time())


async def test_nobody_learns_who_has_an_account(gateway: Gateway) -> None:
    answers = [
        await post(gateway, "/register", ANN | {"password": password}) for password in ("correct horse", "guess" * 3)
    ]
    assert [(one.status_code, one.json()) for one in answers] == [(202, {"accepted": True})] * 2
    wrong = [
        await post(gateway, "/login", {"mail": mail, "password": "wrong horse"})
        for mail in ("ann@example.org", "bob@example.org", "no address")
    ]
    assert len({(one.status_code, one.text) for one in wrong}) == 1
    assert wrong[0].status_code == 401
    # The second registration changed nothing: her password is the first.
    assert (await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})).status_code == 200
    assert len(await gateway.events("accounts/users/+/registered", 1)) == 1


async def test_guessing_gets_slow_and_the_owner_elsewhere_is_not_locked_out(gateway: Gateway) -> None:
    await post(gateway, "/register", ANN)
    guess = {"mail": ANN["mail"], "password": "a wrong guess"}
    tries = [(await post(gateway, "/login", guess)).status_code for _ in range(limits.FREE_PAIR)]
    assert tries == [401] * limits.FREE_PAIR
    async with gateway.database("accounts.users") as db:  # as if the last had been a moment ago, on any machine
        await db.execute(FAILURES.update().values(last=FAILURES.c.last + 60_000))
    late = await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) >= 1
    # Elsewhere she is counted anew, and others are not counted with her.
    async with gateway.database("accounts.users") as db:
        await db.execute(FAILURES.delete().where(FAILURES.c.counter.startswith("pair:")))
    assert (await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})).status_code == 200


async def test_a_refresh_token_that_comes_twice_ends_its_family(gateway: Gateway) -> None:
    first = await logged_in(gateway)
    second = (await post(gateway, "/refresh", {"refresh": first["refresh"]})).json()
    assert second["refresh"] != first["refresh"]
    async with gateway.database("accounts.users") as db:  # as if a minute had passed
        await db.execute(REFRESHES.update().values(used=REFRESHES.c.used - limits.REUSE_WITHIN * 1000 - 1))
    stolen = await post(gateway, "/refresh", {"refresh": first["refresh"]})
    assert stolen.status_code == 401
    assert (await post(gateway, "/refresh", {"refresh": second["refresh"]})).status_code == 401
    # Another login is another family.
    other = (await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})).json()
    assert (await post(gateway, "/refresh", {"refresh": other["refresh"]})).status_code == 200
    await post(gateway, "/logout", {"refresh": other["refresh"]})
    assert (await post(gateway, "/refresh", {"refresh": other["refresh"]})).status_code == 401
    async with gateway.database("accounts.users") as db:
        assert first["refresh"] not in str((await db.execute(REFRESHES.select())).all())


async def test_two_tabs_of_one_session_stay_logged_in(gateway: Gateway) -> None:
    first = await logged_in(gateway)
    both = await asyncio.gather(*(post(gateway, "/refresh", {"refresh": first["refresh"]}) for _ in range(2)))
    assert [one.status_code for one in both] == [200, 200]
    tabs = [one.json()["refresh"] for one in both]
    assert len({*tabs, first["refresh"]}) == 3
    for _ in range(2):  # each goes its own way from here
        answers = [await post(gateway, "/refresh", {"refresh": tab}) for tab in tabs]
        assert [one.status_code for one in answers] == [200, 200]
        tabs = [one.json()["refresh"] for one in answers]
    # By now both have what the first was good for: whoever brings it is a third.
    assert (await post(gateway, "/refresh", {"refresh": first["refresh"]})).status_code == 401
    assert [(await post(gateway, "/refresh", {"refresh": tab})).status_code for tab in tabs] == [401, 401]


async def test_tokens_that_are_over_are_removed(gateway: Gateway) -> None:
    await logged_in(gateway)
    async with gateway.database("accounts.users") as db:
        await db.execute(REFRESHES.update().values(expires=1))
        await db.execute(FAMILIES.update().values(expires=1))
    await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})
    async with gateway.database("accounts.users") as db:
        assert len((await db.execute(REFRESHES.select())).all()) == 1
        assert len((await db.execute(FAMILIES.select())).all()) == 1


async def test_how_to_reach_somebody_is_for_one_service_and_operators(gateway: Gateway) -> None:
    first = await logged_in(gateway)
    path = f"{USERS_PATH}/people/{first['user']}/contact"
    for by in ("operator:root", "service:ecommerce.notifications"):
        async with gateway.client(by) as http:
            assert (await http.get(path)).json() == {
                "user": first["user"],
                "mail": "ann@example.org",
                "name": "Ann Smith",
                "phone": "+491511",
            }
            assert (await http.get(path.replace(first["user"], "u0"))).status_code == 404
    strangers = (
        "",
        f"user:{first['user']}",
        "user:eve",
        "viewer:eve",
        "service:ecommerce.orders",
        "service:chat.rooms",
    )
    for by in strangers:
        async with gateway.client(by) as http:
            assert (await http.get(path)).status_code in (401, 403)
    async with gateway.client(f"user:{first['user']}") as http:
        assert (await http.get(f"{USERS_PATH}/me")).json()["role"] == "customer"
    async with gateway.client(f"service:{first['user']}") as http:
        assert (await http.get(f"{USERS_PATH}/me")).status_code == 403


async def test_erased_is_nobody_and_the_log_never_knew(gateway: Gateway) -> None:
    first = await logged_in(gateway)
    by = f"user:{first['user']}"
    assert (await post(gateway, "/me/erase", {"password": "wrong horse"}, by)).status_code == 401
    assert (await post(gateway, "/me/erase", {"password": ANN["password"]}, by)).status_code == 200
    await gateway.event(f"accounts/users/{first['user']}/erased")
    assert (await post(gateway, "/refresh", {"refresh": first["refresh"]})).status_code == 401
    assert (await post(gateway, "/login", {"mail": ANN["mail"], "password": ANN["password"]})).status_code == 401
    async with gateway.database("accounts.users") as db:
        row = (await db.execute(USERS.select())).one()
    assert (row.mail, row.name, row.phone, row.password) == (None, "", "", "")
    told = b"".join(event.data + event.topic.encode() for event in await gateway.events("accounts/#", 2)).lower()
    assert b"ann" not in told
    assert b"491511" not in told
    # The address is free again, for another id.
    assert (await logged_in(gateway))["user"] != first["user"]


@pytest.mark.parametrize("body", [{**ANN, "mail": "none"}, {**ANN, "password": "short"}, {**ANN, "role": "admin"}])
async def test_what_is_no_account_is_refused(gateway: Gateway, body: dict[str, str]) -> None:
    refused = await post(gateway, "/register", body)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


async def test_roles_are_given_by_operators(gateway: Gateway) -> None:
    first = await logged_in(gateway)
    for by, status in (("", 401), (f"user:{first['user']}", 403), ("viewer:eve", 403), ("operator:root", 200)):
        given = await _put(gateway, f"/people/{first['user']}/role", {"role": "viewer"}, by)
        assert given.status_code == status
    assert (await _put(gateway, "/people/u0/role", {"role": "viewer"}, "operator:root")).status_code == 404


async def _put(gateway: Gateway, path: str, body: dict[str, Any], by: str) -> httpx.Response:
    async with gateway.client(by) as http:
        return await http.put(USERS_PATH + path, json=body)

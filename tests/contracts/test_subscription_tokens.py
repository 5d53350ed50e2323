"""Tokens of single subscriptions: what they open, for whom, how long, and what becomes of those that end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import limits
from gateway.adapters.tokens import Verifier, issue
from gateway.core.access import Principal
from gateway.core.declared import Topic
from gateway.edge.revocations import revoke
from gateway.settings import Settings, TokensTable
from tests.contracts.sockets import Socket, command, socket
from tests.gateways import SECRET, Running, running_edge, token

SHUT = "shut/1"
OPEN = "open/1"
TOPICS = (
    Topic(pattern="shut/{n}", write=("operator",), read=("service",), presence=True),
    Topic(pattern="closed/{n}", write=("operator",), read=("service",)),
    Topic(pattern="open/{n}", write=("operator",), read=("user",)),
)


def permit(channel: str = SHUT, sub: str = "alice", seconds: int = 3600, *, kind: str = "user", **more: str) -> str:
    return issue(SECRET, Principal(kind, sub), seconds, time.time(), channel=channel, **more)


def over(channel: str = SHUT) -> str:
    return issue(SECRET, Principal("user", "alice"), 60, time.time() - 3_600, channel=channel)


@pytest.fixture
async def edge(log_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    verify = Verifier(Settings(tokens=TokensTable(hs256_secret_file=str(secret), opens=("shut/#",))))
    async with running_edge(log_url, TOPICS, verify=verify) as one:
        yield one


async def subscribe(one: Socket, channel: str, jwt: str, **more: Any) -> dict[str, Any]:
    return await one.ask(command(2, "subscribe", channel=channel, token=jwt, **more))


async def pushed(one: Socket) -> dict[str, Any]:
    push: dict[str, Any] = (await one.hear())["push"]
    return push


async def test_it_opens_a_topic_that_no_grant_does(edge: Running) -> None:
    async with socket(edge) as one:
        assert (await one.ask(command(2, "subscribe", channel=SHUT)))["error"]["code"] == 103
        result = (await subscribe(one, SHUT, permit(seconds=900), join_leave=True))["subscribe"]
        assert result["expires"] is True
        assert 800 < result["ttl"] <= 900
        assert (await pushed(one))["join"]["info"]["user"] == "alice"


async def test_what_its_key_does_not_open_it_does_not(edge: Running) -> None:
    async with socket(edge) as one:
        for channel in ("closed/1", "shut/+", "shut/#", "#"):
            reply = await subscribe(one, channel, permit(channel))
            assert reply["error"]["code"] == 103, channel
        assert (await subscribe(one, "nowhere/1", permit("nowhere/1")))["error"]["code"] == 102
        # Where a grant lets the client in, the token only says for how long.
        assert (await subscribe(one, OPEN, permit(OPEN, seconds=60)))["subscribe"]["ttl"] <= 60


async def test_without_a_setting_no_key_opens_anything(log_url: str) -> None:
    async with running_edge(log_url, TOPICS) as edge, socket(edge) as one:
        assert (await subscribe(one, SHUT, permit()))["error"]["code"] == 103


@pytest.mark.parametrize(
    "other", [permit("shut/2"), permit(sub="mallory"), permit(kind="operator")], ids=["channel", "user", "kind"]
)
@pytest.mark.parametrize("method", ["subscribe", "sub_refresh"])
async def test_anothers_token_ends_the_connection(edge: Running, other: str, method: str) -> None:
    async with socket(edge) as one:
        if method == "sub_refresh":
            assert "subscribe" in await subscribe(one, SHUT, permit())
        await one.say(command(3, method, channel=SHUT, token=other))
        assert await one.ended() == 3500


@pytest.mark.parametrize("method", ["subscribe", "sub_refresh"])
async def test_a_token_that_is_none_is_told(edge: Running, method: str) -> None:
    good = permit()
    async with socket(edge) as one:
        if method == "sub_refresh":
            assert "subscribe" in await subscribe(one, SHUT, good)
        for jwt, code in (
            ("not.a.token", 101),
            (good[:-4] + "AAAA", 101),
            (issue(b"x" * 40, Principal("user", "alice"), 60, time.time(), channel=SHUT), 101),
            (token(), 101),  # of a connection, not of a subscription
            (over(), 109),
        ):
            assert (await one.ask(command(4, method, channel=SHUT, token=jwt)))["error"]["code"] == code


async def test_nobody_comes_in_with_it(edge: Running) -> None:
    """Who was given one topic may not use the token as all that its bearer may do."""
    async with socket(edge, connected=False) as one:
        await one.say(command(1, "connect", token=permit()))
        assert await one.ended() == 3500
    async with socket(edge) as one:
        await one.say(command(2, "refresh", token=permit()))
        assert await one.ended() == 3500


async def test_what_cannot_be_refreshed(edge: Running) -> None:
    async with socket(edge) as one:
        assert (await one.ask(command(2, "sub_refresh", channel=SHUT, token=permit())))["error"]["code"] == 103
        await one.ask(command(3, "subscribe", channel=OPEN))
        assert (await one.ask(command(4, "sub_refresh", channel=OPEN, token=permit(OPEN))))["error"]["code"] == 108
        assert "subscribe" in await subscribe(one, SHUT, permit())
        assert (await one.ask(command(5, "sub_refresh", channel=SHUT)))["error"]["code"] == 107


async def test_a_newer_token_prolongs_it_and_then_it_ends(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 0.0)
    async with socket(edge) as one:
        assert (await subscribe(one, SHUT, permit(seconds=3)))["subscribe"]["ttl"] in (1, 2, 3)
        began, ends = time.time(), int(time.time()) + 5
        renewed = await one.ask(command(3, "sub_refresh", channel=SHUT, token=permit(seconds=5)))
        assert renewed["sub_refresh"].keys() == {"expires", "ttl"}
        push = await pushed(one)
        assert push == {"channel": SHUT, "unsubscribe": {"code": 2501, "reason": "expired"}}
        assert time.time() >= ends - 0.01 > began
        # The SDK comes back with what it has, hears that it is over, and brings another.
        assert (await subscribe(one, SHUT, over()))["error"]["code"] == 109
        assert "subscribe" in await subscribe(one, SHUT, permit())
        assert (await one.ask(command(6, "rpc", method="explain", data={"topic": SHUT})))["rpc"]


async def test_one_ends_and_the_others_stay(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 0.0)
    async with socket(edge) as one:
        assert "subscribe" in await subscribe(one, "shut/2", permit("shut/2", seconds=3600))
        assert "subscribe" in await subscribe(one, SHUT, permit(seconds=2))
        assert "subscribe" in await one.ask(command(4, "subscribe", channel=OPEN))
        assert (await pushed(one))["channel"] == SHUT
        (mine,) = edge.edge._clients
        assert mine._session.channels == {"shut/2", OPEN}


async def test_a_revoked_token_ends_its_subscription_alone(edge: Running) -> None:
    async with socket(edge) as one:
        assert "subscribe" in await subscribe(one, SHUT, permit(jti="gone"))
        assert "subscribe" in await one.ask(command(3, "subscribe", channel=OPEN))
        await revoke(edge.log.control, "jti", "gone", 60, "a test")
        assert (await pushed(one))["unsubscribe"]["code"] == 2000
        assert (await subscribe(one, SHUT, permit(jti="gone")))["error"]["code"] == 101
        (mine,) = edge.edge._clients
        assert mine._session.channels == {OPEN}


async def test_pings_keep_their_time_whatever_is_renewed(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK that hears no ping for 35 s gives the connection up: renewing must not put the next one off."""
    monkeypatch.setattr(edge.edge, "random", lambda: 0.99)
    monkeypatch.setattr(limits, "PING_EVERY", 300.0)
    async with socket(edge) as one:
        assert "subscribe" in await subscribe(one, SHUT, permit())
        (mine,) = edge.edge._clients
        due = mine._due
        await one.ask(command(3, "sub_refresh", channel=SHUT, token=permit()))
        await one.ask(command(4, "refresh", token=token()))
        assert mine._due == due
        assert mine._timer.when() == pytest.approx(due, abs=1.0)

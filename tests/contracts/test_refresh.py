"""A connection and the life of its token: brought anew in time, of the same bearer, or the connection ends."""

import time
from collections.abc import AsyncIterator

import pytest

from gateway import limits
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.edge.revocations import revoke
from tests.contracts.sockets import ROOM, command, socket
from tests.gateways import SECRET, Running, running_edge, token


@pytest.fixture
async def edge(log_server: str) -> AsyncIterator[Running]:
    async with running_edge(log_server) as one:
        yield one


async def test_a_newer_token_of_the_same_bearer_prolongs_the_connection(
    edge: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 0.0)
    async with socket(edge, connected=False) as one:
        reply = await one.ask(command(1, "connect", token=token(seconds=2)))
        client = reply["connect"]["client"]
        assert (reply["connect"]["expires"], reply["connect"]["ttl"]) == (True, 1)
        renewed = (await one.ask(command(2, "refresh", token=token(seconds=4))))["refresh"]
        assert renewed.keys() == {"client", "version", "expires", "ttl"}
        assert (renewed["client"], renewed["expires"]) == (client, True)
        began = time.time()
        assert (await one.ask(command(3, "subscribe", channel=ROOM)))["subscribe"]
        # It ends with the second token, not with the first.
        assert await one.ended() == 3005
        assert time.time() - began > 2


@pytest.mark.parametrize(
    "other",
    [
        token("mallory"),
        token("alice", kind="operator"),
        "not.a.token",
        issue(b"x" * 40, Principal("user", "alice"), 60, time.time()),
    ],
)
async def test_any_other_token_ends_it(edge: Running, other: str) -> None:
    async with socket(edge) as one:
        await one.say(command(2, "refresh", token=other))
        assert await one.ended() == 3500


async def test_an_expired_token_is_told_and_another_may_follow(edge: Running) -> None:
    async with socket(edge) as one:
        old = issue(SECRET, Principal("user", "alice"), 60, time.time() - 61)
        assert (await one.ask(command(2, "refresh", token=old)))["error"]["code"] == 109
        assert (await one.ask(command(3, "refresh", token=token())))["refresh"]["ttl"] > 3500


async def test_a_revoked_token_prolongs_nothing(edge: Running) -> None:
    async with socket(edge) as one:
        gone = issue(SECRET, Principal("user", "alice"), 60, time.time(), jti="gone")
        await revoke(edge.log.control, "jti", "gone", 60, "a test")
        # The notice and the command may overtake each other; either way the connection ends.
        await one.say(command(2, "refresh", token=gone))
        assert await one.ended() == 3500


async def test_a_connection_outlives_its_token_for_a_while_and_no_longer(
    edge: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 2.0)
    ends = int(time.time()) + 1
    async with socket(edge, connected=False) as one:
        await one.ask(command(1, "connect", token=token(seconds=1)))
        assert await one.ended() == 3005
        assert time.time() >= ends + 2


async def test_pings_stay_in_step_over_a_refresh(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 0.01)
    monkeypatch.setattr(limits, "PONG_WITHIN", 0.5)
    async with socket(edge, connected=False) as one:
        await one.say(command(1, "connect", token=token(seconds=2)))
        await one.say(command(2, "refresh", token=token()))
        assert await one.ended() == 3012  # a pong that does not come is still missed

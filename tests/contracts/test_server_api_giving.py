"""What servers give to users by the server API: subscriptions, and another end of their connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cent
import pytest

from gateway import limits
from gateway.adapters.tokens import Verifier
from gateway.settings import Settings
from tests.contracts.api_edges import LOBBY, TOPICS, with_key
from tests.gateways import Client, Running, client, running_edge, token
from tests.servers import eventually


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Settings, str]:
    return with_key(tmp_path)


@pytest.fixture
async def one(log_url: str, keys: tuple[Settings, str]) -> AsyncIterator[Running]:
    async with running_edge(log_url, TOPICS, anonymous=True, verify=Verifier(keys[0])) as running:
        yield running


@pytest.fixture
async def other(log_url: str, keys: tuple[Settings, str]) -> AsyncIterator[Running]:
    async with running_edge(log_url, TOPICS, anonymous=True, verify=Verifier(keys[0])) as running:
        yield running


@pytest.fixture
async def api(one: Running, keys: tuple[Settings, str]) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(f"{one.http}/api", keys[1]) as asking:
        yield asking


def of(one: Client, what: str) -> list[dict[str, Any]]:
    return [push for push in one.pushes if what in push]


async def test_a_server_subscribes_a_user_wherever_he_is(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with (
        client(one.ws, token("alice")) as here,
        client(other.ws, token("alice")) as there,
        client(other.ws, token("bob")) as bob,
    ):
        first = await api.publish(cent.PublishRequest(channel="files/1", data="MQ=="))
        await api.subscribe(cent.SubscribeRequest(user="alice", channel="files/1"))
        for each in (here, there):
            await eventually(lambda each=each: of(each, "subscribe"))
            (given,) = of(each, "subscribe")
            assert given["channel"] == "files/1"
            assert given["subscribe"] == {
                "recoverable": True, "positioned": True, "epoch": first.epoch, "offset": first.offset,
            }  # fmt: skip
            # A second time it is not subscribed twice, and a client that asks hears that it is.
            assert (await each.ask("subscribe", channel="files/1"))["error"]["code"] == 105
        await api.subscribe(cent.SubscribeRequest(user="alice", channel="files/1"))
        await api.publish(cent.PublishRequest(channel="files/1", data="Mg=="))
        for each in (here, there):
            await eventually(lambda each=each: of(each, "pub"))
            assert len(of(each, "pub")) == len(of(each, "subscribe")) == 1
        await api.unsubscribe(cent.UnsubscribeRequest(user="alice", channel="files/1"))
        await eventually(lambda: of(here, "unsubscribe") and of(there, "unsubscribe"))
        assert bob.pushes == []


async def test_what_came_since_is_sent_first(one: Running, api: cent.AsyncClient) -> None:
    stored = [await api.publish(cent.PublishRequest(channel=LOBBY, data=n)) for n in range(3)]
    async with client(one.ws, token("alice")) as alice:
        since = cent.StreamPosition(offset=stored[0].offset, epoch=stored[0].epoch)
        await api.subscribe(cent.SubscribeRequest(user="alice", channel=LOBBY, recover_since=since))
        await alice.until(3)
        await api.publish(cent.PublishRequest(channel=LOBBY, data=3))
        given, *heard = await alice.until(4)
        assert given["subscribe"]["offset"] == stored[0].offset
        assert [push["pub"]["data"] for push in heard] == [1, 2, 3]


async def test_a_server_gives_what_it_may_read_and_else_what_they_may(one: Running, api: cent.AsyncClient) -> None:
    """`files/{n}` is for services alone, `hidden/{room}` for users alone: the rights of a topic are never widened."""
    async with client(one.ws, token("alice")) as alice, client(one.ws) as nobody:
        id = (await nobody.ask("connect"))["connect"]["client"]
        await api.subscribe(cent.SubscribeRequest(user="alice", channel="hidden/1"))
        with pytest.raises(cent.CentApiResponseError) as refused:
            await api.subscribe(cent.SubscribeRequest(user="", client=id, channel="hidden/1"))
        assert refused.value.code == 103
        await api.subscribe(cent.SubscribeRequest(user="", client=id, channel="files/1"))
        await eventually(lambda: of(nobody, "subscribe") and of(alice, "subscribe"))
        assert [push["channel"] for push in nobody.pushes + alice.pushes] == ["files/1", "hidden/1"]


async def test_subscriptions_of_servers_are_bounded_too(
    one: Running, api: cent.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SUBSCRIPTIONS", 2)
    async with client(one.ws, token("alice")) as alice:
        for n in range(4):
            await api.subscribe(cent.SubscribeRequest(user="alice", channel=f"files/{n}"))
        await api.disconnect(cent.DisconnectRequest(user="alice"))  # by the same stream, so after them all
        assert await alice.closed() == 3503
        assert len(of(alice, "subscribe")) <= 2


# --- how long they stay ---


async def test_a_server_sets_another_end(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with (
        client(one.ws, token("alice", seconds=60)) as here,
        client(other.ws, token("alice", seconds=60)) as there,
        client(other.ws, token("bob")) as bob,
    ):
        await api.refresh(cent.RefreshRequest(user="alice", expire_at=int(time.time()) + 900))
        for each in (here, there):
            await eventually(lambda each=each: of(each, "refresh"))
            (told,) = of(each, "refresh")
            assert told["refresh"]["expires"] is True
            assert 60 < told["refresh"]["ttl"] <= 900
        await api.refresh(cent.RefreshRequest(user="alice", expired=True))
        assert await here.closed() == 3005
        assert await there.closed() == 3005
        assert (bob.close_code, bob.pushes) == (None, [])


async def test_an_end_that_a_server_set_is_one(
    one: Running, api: cent.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 0.0)
    async with client(one.ws, token("alice")) as alice:
        began = time.time()
        await api.refresh(cent.RefreshRequest(user="alice", expire_at=int(began) + 2))
        assert await alice.closed() == 3005
        assert time.time() >= int(began) + 2
        await api.refresh(cent.RefreshRequest(user="alice", expired=True))  # nobody is there

"""The server API, asked by PyPI's ``cent`` itself and by raw requests, over two edges."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cent
import httpx
import msgspec
import pytest

from gateway import limits
from gateway.adapters.http_api import Node
from gateway.adapters.log import Notice
from gateway.adapters.tokens import Verifier
from gateway.settings import Settings
from tests.contracts.api_edges import LOBBY, TOPICS, with_key
from tests.gateways import Client, Running, client, running_edge, token
from tests.servers import eventually


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Settings, str]:
    return with_key(tmp_path)


@pytest.fixture
def key(keys: tuple[Settings, str]) -> str:
    return keys[1]


@pytest.fixture
async def one(log_url: str, keys: tuple[Settings, str]) -> AsyncIterator[Running]:
    async with running_edge(log_url, TOPICS, anonymous=True, verify=Verifier(keys[0])) as running:
        yield running


@pytest.fixture
async def other(log_url: str, keys: tuple[Settings, str]) -> AsyncIterator[Running]:
    async with running_edge(log_url, TOPICS, anonymous=True, verify=Verifier(keys[0])) as running:
        yield running


@pytest.fixture
async def api(one: Running, key: str) -> AsyncIterator[cent.AsyncClient]:
    async with cent.AsyncClient(f"{one.http}/api", key) as asking:
        yield asking


async def raw(edge: Running, method: str, body: Any, key: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=edge.http) as http:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await http.post(f"/api/{method}", headers={"X-API-Key": key, **headers}, **sent)


async def watching(one: Client) -> Client:
    reply = await one.ask("subscribe", channel=LOBBY, join_leave=True)
    assert "subscribe" in reply, reply
    return one


# --- publishing and looking ---


async def test_publish_and_history(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with client(other.ws, token("bob")) as bob:
        await watching(bob)
        first = await api.publish(cent.PublishRequest(channel=LOBBY, data={"n": 1}, idempotency_key="k"))
        again = await api.publish(cent.PublishRequest(channel=LOBBY, data={"n": 1}, idempotency_key="k"))
        assert first.offset == again.offset > 0
        second = await api.publish(cent.PublishRequest(channel=LOBBY, data=[2]))
        assert (second.epoch, second.offset) == (first.epoch, first.offset + 1)
        await eventually(lambda: [p["pub"]["data"] for p in bob.pushes if "pub" in p] == [{"n": 1}, [2]])
    found = await api.history(cent.HistoryRequest(channel=LOBBY, limit=10))
    assert [p.data for p in found.publications] == [{"n": 1}, [2]]
    assert found.publications[0].tags is not None
    assert found.publications[0].tags["topic"] == LOBBY
    top = await api.history(cent.HistoryRequest(channel=LOBBY))
    assert (top.publications, top.offset) == ([], second.offset)
    since = cent.StreamPosition(offset=first.offset, epoch=first.epoch)
    rest = await api.history(cent.HistoryRequest(channel=LOBBY, limit=-1, since=since))
    assert [p.data for p in rest.publications] == [[2]]
    back = await api.history(cent.HistoryRequest(channel=LOBBY, limit=1, reverse=True))
    assert [p.data for p in back.publications] == [[2]]
    with pytest.raises(cent.CentApiResponseError) as gone:
        await api.history(cent.HistoryRequest(channel=LOBBY, since=cent.StreamPosition(offset=1, epoch="x")))
    assert gone.value.code == 112


async def test_broadcast(api: cent.AsyncClient) -> None:
    asked = cent.BroadcastRequest(channels=[LOBBY, "hidden/1", "passing/1"], data={"n": 1})
    stored, denied, passed = (await api.broadcast(asked)).responses
    assert stored.result is not None
    assert stored.result.offset > 0
    assert denied.error is not None
    assert denied.error.code == 103
    assert passed.result is not None
    assert (passed.result.offset, passed.result.epoch) == (0, "")


async def test_presence_of_all_edges(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with client(one.ws, token("alice")) as alice, client(other.ws, token("bob")) as bob:
        await watching(alice)
        await watching(bob)

        async def both() -> bool:
            there = await api.presence(cent.PresenceRequest(channel=LOBBY))
            return sorted(info.user for info in there.presence.values()) == ["alice", "bob"]

        await eventually(both)
        stats = await api.presence_stats(cent.PresenceStatsRequest(channel=LOBBY))
        assert (stats.num_clients, stats.num_users) == (2, 2)
        with pytest.raises(cent.CentApiResponseError) as refused:
            await api.presence(cent.PresenceRequest(channel="files/1"))
        assert refused.value.code == 108


async def test_channels_of_all_edges(
    one: Running, other: Running, api: cent.AsyncClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(one.ws, token("alice")) as alice, client(other.ws, token("bob")) as bob:
        for who, channels in ((alice, [LOBBY, "lobby/2", "lobby/+"]), (bob, [LOBBY, "hidden/1"])):
            for channel in channels:
                assert "subscribe" in await who.ask("subscribe", channel=channel)

        async def counts(**asked: Any) -> dict[str, int]:
            found = await api.channels(cent.ChannelsRequest(**asked))
            return {channel: of.num_clients for channel, of in found.channels.items()}

        await eventually(lambda: _both_live(api))
        mine = {LOBBY: 2, "lobby/2": 1, "lobby/+": 1}
        # Of a topic that the key may not read it does not hear.
        assert await counts() == await counts(pattern="lobby/+") == await counts(pattern="#") == mine
        assert await counts(pattern="lobby/2") == {"lobby/2": 1, "lobby/+": 1}
        assert await counts(pattern="files/#") == {}
        await bob.ask("unsubscribe", channel=LOBBY)
        assert await counts(pattern=LOBBY) == {LOBBY: 1, "lobby/+": 1}
        for pattern, code in (("lobby/#/1", 107), ("", 107), (7, 107)):
            answered = (await raw(one, "channels", {"pattern": pattern}, key)).json()
            assert answered["error"]["code"] == code, answered
        monkeypatch.setattr(limits, "API_CHANNELS", 2)
        assert (await raw(one, "channels", {}, key)).json()["error"]["code"] == 106


async def _both_live(api: cent.AsyncClient) -> bool:
    return len((await api.info(cent.InfoRequest())).nodes) == 2


async def test_channels_of_an_edge_that_says_nothing_are_not_guessed(
    one: Running, api: cent.AsyncClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SURVEY_WITHIN", 0.2)
    node = Node("silent", "somewhere:1", "0", 0, 0, 0, 0, 0)
    await one.log.edges.tell("silent", msgspec.json.encode(node))
    answered = (await raw(one, "channels", {}, key)).json()
    assert answered["error"]["code"] == 100
    assert "edge somewhere:1 does not say" in answered["error"]["message"]


async def test_info_names_every_edge(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with client(one.ws, token("alice")) as alice:
        await watching(alice)

        async def two() -> bool:
            return len((await api.info(cent.InfoRequest())).nodes) == 2

        await eventually(two)
        nodes = {node.uid: node for node in (await api.info(cent.InfoRequest())).nodes}
        mine = nodes[one.edge.presence.edge]
        assert (mine.num_clients, mine.num_users, mine.num_subs, mine.num_channels) == (1, 1, 1, 1)
        assert mine.version == one.edge.version
        other.stop.set()

        async def alone() -> bool:
            return len((await api.info(cent.InfoRequest())).nodes) == 1

        await eventually(alone)


# --- sending away ---


@pytest.mark.parametrize("method", ["unsubscribe", "disconnect"])
async def test_it_reaches_clients_wherever_they_are(
    one: Running, other: Running, api: cent.AsyncClient, method: str
) -> None:
    async with (
        client(one.ws, token("alice")) as here,
        client(other.ws, token("alice")) as there,
        client(other.ws, token("bob")) as bob,
    ):
        for each in (here, there, bob):
            await watching(each)
        if method == "unsubscribe":
            await api.unsubscribe(cent.UnsubscribeRequest(user="alice", channel=LOBBY))
            for each in (here, there):
                await eventually(lambda each=each: [p for p in each.pushes if "unsubscribe" in p])
                (push,) = [p for p in each.pushes if "unsubscribe" in p]
                assert (push["channel"], push["unsubscribe"]["code"]) == (LOBBY, 2000)
                await watching(each)
            await api.unsubscribe(cent.UnsubscribeRequest(user="alice", channel="lobby/other"))
        else:
            await api.disconnect(cent.DisconnectRequest(user="alice"))
            assert await here.closed() == 3503
            assert await there.closed() == 3503
        await api.publish(cent.PublishRequest(channel=LOBBY, data=1))
        await eventually(lambda: [p for p in bob.pushes if "pub" in p])
        assert bob.close_code is None
        assert not [p for p in bob.pushes if "unsubscribe" in p]


async def test_one_client_of_several(one: Running, other: Running, api: cent.AsyncClient) -> None:
    async with client(one.ws) as first, client(other.ws) as second, client(other.ws) as third:
        ids = [
            (await each.ask("connect", token=token("alice")))["connect"]["client"] for each in (first, second, third)
        ]
        why = cent.Disconnect(code=4_501, reason="enough")
        await api.disconnect(cent.DisconnectRequest(user="alice", client=ids[1], disconnect=why))
        assert await second.closed() == 4_501
        assert second.connection.close_reason == "enough"
        await api.disconnect(cent.DisconnectRequest(user="alice", whitelist=[ids[2]]))
        assert await first.closed() == 3503
        assert "subscribe" in await third.ask("subscribe", channel=LOBBY)


async def test_clients_without_a_user_are_named_by_client(one: Running, key: str) -> None:
    async with client(one.ws) as nobody:
        id = (await nobody.ask("connect"))["connect"]["client"]
        assert (await raw(one, "disconnect", {"user": ""}, key)).json()["error"]["code"] == 107
        assert (await raw(one, "disconnect", {"user": "", "client": id}, key)).json() == {"result": {}}
        assert await nobody.closed() == 3503


async def test_a_subscription_on_its_way_is_ended_too(one: Running) -> None:
    """Its command is answered: an SDK that waits in vain gives the whole connection up."""
    async with client(one.ws, token("alice")) as alice:
        (mine,) = one.edge._clients
        answer = alice._replies[9] = asyncio.get_running_loop().create_future()
        mine.received(b'{"id":9,"subscribe":{"channel":"hidden/1"}}')
        mine.unsubscribed("hidden/1")
        assert (await answer)["error"]["temporary"] is True
        assert len(mine.channels) == 0
        mine.unsubscribed("hidden/1")


async def test_foreign_notices_are_harmless(one: Running, key: str) -> None:
    for kind in ("subscribe", "refresh", "unsubscribe", "disconnect", "channels", "tomorrow"):
        await one.log.control.announce(Notice(kind, b"\xff{"))
        await one.log.control.announce(Notice(kind, b"{}"))
    await one.log._links.own.ask("HSET", "{gateway}:edges", "foreign", "9999999999999 {}", "strange", "what")
    await one.log.edges.tell("newer", b'{"uid":1}')
    assert len((await raw(one, "info", {}, key)).json()["result"]["nodes"]) == 1
    async with client(one.ws, token("alice")) as alice:
        await raw(one, "disconnect", {"user": "alice"}, key)
        assert await alice.closed() == 3503


# --- the form ---


async def test_a_batch(one: Running, key: str, api: cent.AsyncClient) -> None:
    replies = (
        await api.batch(
            cent.BatchRequest(
                requests=[
                    cent.PublishRequest(channel=LOBBY, data=1),
                    cent.HistoryRequest(channel=LOBBY, limit=5),
                    cent.InfoRequest(),
                ]
            )
        )
    ).replies
    assert isinstance(replies[1], cent.HistoryResult)
    assert [p.data for p in replies[1].publications] == [1]
    commands = [
        {"publish": {"channel": "no", "data": 1}},
        {"history_remove": {}},
        {},
        {"a": {}, "b": {}},
        {"batch": {}},
    ]
    answer = (await raw(one, "batch", {"commands": commands}, key)).json()
    assert [reply["error"]["code"] for reply in answer["replies"]] == [102, 108, 107, 107, 108]
    many = await raw(one, "batch", {"commands": [{}] * (limits.API_COMMANDS + 1)}, key)
    assert many.status_code == 400


async def test_bytes_are_published_as_base64(one: Running, key: str) -> None:
    body = {"channel": "files/1", "b64data": base64.b64encode(b"\x00\xff").decode()}
    assert (await raw(one, "publish", body, key)).json()["result"]["offset"] > 0
    found = (await raw(one, "history", {"channel": "files/1", "limit": 1}, key)).json()["result"]
    assert base64.b64decode(found["publications"][0]["data"]) == b"\x00\xff"


REFUSED: dict[str, tuple[str, Any, int]] = {
    "no right": ("publish", {"channel": "hidden/1", "data": 1}, 103),
    "unknown": ("publish", {"channel": "nowhere", "data": 1}, 102),
    "no data": ("publish", {"channel": LOBBY}, 107),
    "data twice": ("publish", {"channel": LOBBY, "data": 1, "b64data": "MQ=="}, 107),
    "no base64": ("publish", {"channel": "files/1", "b64data": "?"}, 107),
    "keys twice in the payload": ("publish", b'{"channel":"lobby/1","data":{"a":1,"a":2}}', 107),
    "no history of its own": ("publish", {"channel": LOBBY, "data": 1, "skip_history": True}, 108),
    "tags of its own": ("publish", {"channel": LOBBY, "data": 1, "tags": {"a": "b"}}, 108),
    "no JSON": ("publish", b"{", 107),
    "no UTF-8": ("publish", b'{"channel":"\xff"}', 107),
    "too deep": ("publish", b'{"channel":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 107),
    "no channel": ("publish", {"data": 1}, 107),
    "too many channels": ("broadcast", {"channels": ["a"] * (limits.API_COMMANDS + 1), "data": 1}, 107),
    "no channel to leave": ("unsubscribe", {"user": "alice", "channel": ""}, 107),
    "nobody to unsubscribe": ("unsubscribe", {"user": "", "channel": LOBBY}, 107),
    "a code of its own": ("disconnect", {"user": "alice", "disconnect": {"code": 1000, "reason": ""}}, 107),
    "a long reason": ("disconnect", {"user": "alice", "disconnect": {"code": 4000, "reason": "é" * 62}}, 107),
    "no position": ("history", {"channel": LOBBY, "since": {"epoch": "?", "offset": 1}}, 112),
    "not offered": ("history_remove", {"channel": LOBBY}, 108),
    "not one session of a user": ("unsubscribe", {"user": "alice", "channel": LOBBY, "session": "s"}, 107),
    "not one session either": ("disconnect", {"user": "alice", "session": "s"}, 107),
    "nobody to subscribe": ("subscribe", {"user": "", "channel": LOBBY}, 107),
    "nothing to subscribe to": ("subscribe", {"user": "alice", "channel": ""}, 107),
    "an unknown topic": ("subscribe", {"user": "alice", "channel": "nowhere"}, 102),
    "what neither may read": ("subscribe", {"user": "service:other", "channel": "hidden/1"}, 103),
    "a position of nobody": ("subscribe", {"user": "a", "channel": LOBBY, "recover_since": {"epoch": "?"}}, 112),
    "options of its own": ("subscribe", {"user": "alice", "channel": LOBBY, "override": {}}, 107),
    "nobody to refresh": ("refresh", {"user": "", "expired": True}, 107),
    "no end": ("refresh", {"user": "alice"}, 107),
    "two ends": ("refresh", {"user": "alice", "expired": True, "expire_at": 2_000_000_000}, 107),
    "an end too late": ("refresh", {"user": "alice", "expire_at": 4_000_000_000}, 107),
    "an end before all time": ("refresh", {"user": "alice", "expire_at": -1}, 107),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_command_that_is_refused(one: Running, key: str, name: str) -> None:
    method, body, code = REFUSED[name]
    answer = await raw(one, method, body, key)
    assert answer.status_code == 200, "as clients of this form expect"
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


async def test_who_may_ask(one: Running, key: str) -> None:
    assert (await raw(one, "info", b"", key)).status_code == 200
    assert (await raw(one, "nonsense", {}, key)).status_code == 404
    async with httpx.AsyncClient(base_url=one.http) as http:
        for headers, status in (
            ({}, 401),
            ({"X-API-Key": "gwk_wrong"}, 401),
            ({"X-API-Key": "wrong"}, 401),
            ({"Authorization": f"apikey {key}"}, 200),
            ({"Authorization": f"Bearer {token('root', kind='operator')}"}, 200),
            ({"Authorization": f"Bearer {token('alice')}"}, 403),
            ({"X-API-Key": key, "Origin": "https://evil.example"}, 403),
        ):
            answer = await http.post("/api/info", json={}, headers=headers)
            assert answer.status_code == status, headers
        large = await http.post("/api/publish", content=b" " * (limits.API_BODY_BYTES + 1), headers={"X-API-Key": key})
        assert large.status_code == 413
    async with cent.AsyncClient(f"{one.http}/api", "gwk_wrong") as asking:
        with pytest.raises(cent.CentUnauthorizedError):
            await asking.info(cent.InfoRequest())

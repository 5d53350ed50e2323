"""Clients on the WebSocket edge: what they publish reaches who may read it, and who was away misses nothing."""

from __future__ import annotations

import asyncio

import httpx

from gateway import limits
from gateway.core.event import Draft, Event, Meta
from tests.gateways import Running, client, running_edge, token
from tests.servers import eventually


async def test_a_publish_reaches_a_subscriber(log_server: str) -> None:
    async with running_edge(log_server) as edge, client(edge.ws, token("alice")) as alice:
        async with client(edge.ws, token("bob")) as bob:
            assert "subscribe" in await alice.ask("subscribe", channel="rooms/1/messages")
            assert await bob.ask("publish", channel="rooms/1/messages", data={"text": "hello"}) == {
                "id": 2,
                "publish": {},
            }
            (push,) = await alice.until(1)
            assert push["channel"] == "rooms/1/messages"
            assert push["pub"]["data"] == {"text": "hello"}
            assert push["pub"]["tags"]["topic"] == "rooms/1/messages"


async def test_a_wildcard_names_the_concrete_topic(log_server: str) -> None:
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice:
        reply = await alice.ask("subscribe", channel="rooms/+/messages")
        assert reply["subscribe"].get("recoverable", False) is False
        for room in ("1", "2", "3"):
            await alice.ask("publish", channel=f"rooms/{room}/messages", data=room)
        pushes = await alice.until(3)
        assert {p["channel"] for p in pushes} == {"rooms/+/messages"}
        assert [p["pub"]["tags"]["topic"] for p in pushes] == [f"rooms/{r}/messages" for r in ("1", "2", "3")]


async def publish(edge: Running, topic: str, data: object, sub: str = "root") -> httpx.Response:
    async with httpx.AsyncClient() as http:
        headers = {"Authorization": f"Bearer {token(sub, kind='operator')}"}
        return await http.post(f"{edge.http}/topics/{topic}", json=data, headers=headers)


async def test_who_was_away_misses_nothing(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        async with client(edge.ws, token()) as alice:
            first = (await alice.ask("subscribe", channel="devices/7/telemetry"))["subscribe"]
            assert first["recoverable"] is True
        for n in range(5):
            assert (await publish(edge, "devices/7/telemetry", n)).status_code == 201
        async with client(edge.ws, token()) as alice:
            back = (
                await alice.ask(
                    "subscribe",
                    channel="devices/7/telemetry",
                    recover=True,
                    epoch=first["epoch"],
                    offset=first.get("offset", 0),
                )
            )["subscribe"]
            assert back["recovered"] is True
            assert back["was_recovering"] is True
            assert [p["data"] for p in back["publications"]] == [0, 1, 2, 3, 4]
            await publish(edge, "devices/7/telemetry", 5)
            (push,) = await alice.until(1)
            assert push["pub"]["data"] == 5
            assert push["pub"]["offset"] > back["publications"][-1]["offset"]


async def test_a_large_recovery_comes_in_pages(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        async with client(edge.ws, token()) as alice:
            first = (await alice.ask("subscribe", channel="devices/7/telemetry"))["subscribe"]
        async with client(edge.ws, token("7", kind="operator")) as device:
            for start in range(0, 600, 50):
                await asyncio.gather(
                    *(
                        device.ask("publish", channel="devices/7/telemetry", data={"n": n, "pad": "x" * 400})
                        for n in range(start, start + 50)
                    )
                )
        async with client(edge.ws, token()) as alice:
            position = {"epoch": first["epoch"], "offset": first.get("offset", 0)}
            back = (await alice.ask("subscribe", channel="devices/7/telemetry", recover=True, **position))["subscribe"]
            assert back["recovered"] is True
            inside = [p["data"]["n"] for p in back["publications"]]
            pushes = await alice.until(600 - len(inside))
            assert inside + [p["pub"]["data"]["n"] for p in pushes] == list(range(600))


async def test_one_frame_for_a_thousand_watchers(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        watchers = 1_000
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(_watch_one(edge), name=f"watcher-{n}") for n in range(watchers)]
            await eventually(lambda: len(edge.edge.fanout) == 1, within=60)
            await eventually(lambda: _watchers(edge) == watchers, within=60)
            before = edge.edge.fanout.encoded
            await publish(edge, "devices/7/telemetry", {"temp": 21.5})
        assert [task.result() for task in seen] == [{"temp": 21.5}] * watchers
        assert edge.edge.fanout.encoded - before == 1


def _watchers(edge: Running) -> int:
    return sum(len(list(interest)) for interest in edge.edge.fanout.of(_partition(edge)))


def _partition(edge: Running) -> str:
    return edge.edge.declared.find("devices/7/telemetry").partition


async def _watch_one(edge: Running) -> object:
    async with client(edge.ws, token()) as one:
        await one.ask("subscribe", channel="devices/7/telemetry")
        (push,) = await one.until(1)
        return push["pub"]["data"]


async def test_a_burst_larger_than_a_queue_closes_nobody_who_reads(log_server: str) -> None:
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice:
        await alice.ask("subscribe", channel="devices/7/telemetry")
        found = edge.edge.declared.find("devices/7/telemetry")
        pad = b"x" * (limits.SEND_BYTES // 10)
        count = 60
        events = [
            Event("devices/7/telemetry", b'{"n":%d,"pad":"%s"}' % (n, pad), f"burst-{n}", Meta()) for n in range(count)
        ]
        await edge.log.append(found.partition, [Draft(event, found.key) for event in events])
        pushes = await alice.until(count)
        assert [push["pub"]["data"]["n"] for push in pushes] == list(range(count))
        assert alice.close_code is None

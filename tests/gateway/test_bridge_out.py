"""What leaves by MQTT against a broker that follows a script, and what a bridge says of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import mqtt5
import pytest

from gateway import limits
from gateway.adapters.embedded import free_port
from gateway.adapters.log import Log
from gateway.adapters.mqtt import Message, Options
from gateway.bridge import Bridge
from gateway.bridge.process import lease_name
from gateway.bridge.sent import Sent, outgoing
from gateway.cli.process import Probe, Waiting, probed
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event, Meta
from tests.bridges import COMMANDS, GROUP, buried, running_bridge
from tests.gateway.test_mqtt_client import Peer, peer
from tests.servers import eventually

TOPICS = (COMMANDS,)
TOPIC = "devices/pump-7/commands/open"
PLACE = Declared(TOPICS).find(TOPIC)


@asynccontextmanager
async def bridged(log_url: str, script: Peer) -> AsyncIterator[Bridge]:
    options = Options(f"mqtt://127.0.0.1:{script.port}", "bridge")
    async with running_bridge(log_url, options, TOPICS) as bridge:
        # Ready: every cursor has begun, so that what is published now leaves.
        assert GROUP in await bridge.log.groups.names(PLACE.partition)
        yield bridge


async def append(log: Log, *payloads: bytes) -> None:
    drafts = [Draft(Event(TOPIC, data, f"{time.time_ns()}-{n}"), PLACE.key) for n, data in enumerate(payloads)]
    await log.append(PLACE.partition, drafts, patient=True)


def published(script: Peer) -> list[mqtt5.PublishPacket]:
    return [packet for packet in script.read if isinstance(packet, mqtt5.PublishPacket)]


def answer(script: Peer, packet: mqtt5.PublishPacket, code: int = 0) -> None:
    assert packet.packet_id is not None
    script.write(b"\x40\x04" + packet.packet_id.to_bytes(2, "big") + bytes([code, 0]))


async def cursor(log: Log) -> int:
    return (await log.groups.ask(PLACE.partition, GROUP)).cursor


async def test_no_more_is_out_than_the_broker_takes(log_server: str) -> None:
    async with peer(mqtt5.ConnAckPacket(receive_max=3)) as script, bridged(log_server, script) as bridge:
        start = await cursor(bridge.log)
        await append(bridge.log, *(b"%d" % n for n in range(10)))
        for n in range(10):
            await eventually(lambda n=n: len(published(script)) >= min(10, n + 3))
            assert len(published(script)) == min(10, n + 3)
            answer(script, published(script)[n])

        async def everything() -> bool:
            return await cursor(bridge.log) == start + 10

        await eventually(everything)
        assert [packet.payload for packet in published(script)] == [b"%d" % n for n in range(10)]


async def test_the_cursor_waits_for_the_first_that_is_not_answered(log_server: str) -> None:
    async with peer() as script, bridged(log_server, script) as bridge:
        start = await cursor(bridge.log)
        await append(bridge.log, b"0", b"1", b"2")
        await eventually(lambda: len(published(script)) == 3)
        answer(script, published(script)[0])
        answer(script, published(script)[2])

        async def one() -> bool:
            return await cursor(bridge.log) == start + 1

        await eventually(one)
        script.writers[-1].close()
        # 2 was answered, and does not go again.
        await eventually(lambda: len(published(script)) == 4)
        assert published(script)[3].payload == b"1"
        answer(script, published(script)[3])

        async def three() -> bool:
            return await cursor(bridge.log) == start + 3

        await eventually(three)
        assert len(published(script)) == 4


async def test_a_broker_that_asks_for_patience_gets_it_again(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MQTT_OUT_AGAIN", 0.05)
    async with peer() as script, bridged(log_server, script) as bridge:
        start = await cursor(bridge.log)
        await append(bridge.log, b"0")
        for n, code in enumerate((0x97, 0x97, 0x00)):
            await eventually(lambda n=n: len(published(script)) == n + 1)
            answer(script, published(script)[n], code)

        async def moved() -> bool:
            return await cursor(bridge.log) == start + 1

        await eventually(moved)
        assert await buried(bridge.log, PLACE.partition) == []


async def test_what_the_broker_never_takes_is_a_dead_letter(log_server: str) -> None:
    async with peer(mqtt5.ConnAckPacket(max_packet_size=200)) as script, bridged(log_server, script) as bridge:
        await append(bridge.log, b"0", b"1" * 300, b"2", b"3")
        await eventually(lambda: len(published(script)) == 3)
        for packet, code in zip(published(script), (0x10, 0x99, 0x00), strict=True):
            answer(script, packet, code)

        async def letters() -> bool:
            return len(await buried(bridge.log, PLACE.partition)) == 2

        await eventually(letters)
        large, refused = await buried(bridge.log, PLACE.partition)
        assert (large.reason, large.data, large.group) == ("too_large", b"1" * 300, GROUP)
        assert (refused.reason, refused.data) == ("refused_by_broker", b"2")
        assert "0x99" in refused.error
        assert bridge.metrics.registry.get_sample_value("gateway_mqtt_unheard_total") == 1
        assert bridge.metrics.registry.get_sample_value("gateway_mqtt_published_total") == 2


async def test_a_paused_way_out_rests_and_goes_on(log_server: str) -> None:
    async with peer() as script, bridged(log_server, script) as bridge:
        await bridge.log.groups.pause(PLACE.partition, GROUP)

        async def rests() -> bool:
            return (await bridge.log.groups.ask(PLACE.partition, GROUP)).holder == ""

        await eventually(rests)
        await append(bridge.log, b"0")
        await bridge.log.groups.resume(PLACE.partition, GROUP)
        await eventually(lambda: len(published(script)) == 1)
        answer(script, published(script)[0])


# --- what leaves, and what comes back -------------------------------------------------------------------------------


def test_what_waits_at_a_door_of_ours_is_no_topic() -> None:
    for reply_to in ("", "#gateway", "a/+", "a/#"):
        assert outgoing(Event("t", b"", "1", Meta(reply_to=reply_to, correlation=b"x"))).response_topic is None
    there = outgoing(Event("t", b"", "1", Meta(reply_to="a/b", type="text/plain", headers={"GW-ID": "x", "b": "c"})))
    assert (there.response_topic, there.correlation, there.content_type) == ("a/b", None, "text/plain")
    assert there.properties == [("b", "c"), ("gw-id", "1")]


def _message(payload: bytes, *properties: tuple[str, str]) -> Message:
    return Message("t", payload, 1, False, False, 1, 1, 1, None, None, None, properties)


def test_an_echo_is_what_left_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MQTT_SENT_KNOWN", 2)
    sent = Sent()
    for n in range(3):
        sent.remember(Event("t", b"%d" % n, f"e{n}"))
    assert sent.echo(_message(b"2", ("a", "b"), ("gw-id", "e2")))
    assert not sent.echo(_message(b"other", ("gw-id", "e2")))
    assert not sent.echo(_message(b"2"))
    assert not sent.echo(_message(b"0", ("gw-id", "e0")))  # forgotten


def test_a_lease_is_named_after_the_client_id() -> None:
    assert lease_name("gateway-bridge") == "gateway-bridge"
    assert lease_name("a b") != lease_name("a:b")
    assert lease_name("a b").isalnum()


# --- readiness ------------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    return free_port()


async def test_a_standby_is_ready_and_says_so(port: int) -> None:
    probe, reasons = Probe(Waiting()), list[str]()
    async with probed(probe, "127.0.0.1", port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await asyncio.sleep(0)

        async def asked() -> bool:
            try:
                return (await http.get("/readyz")).status_code == 503
            except httpx.ConnectError:
                return False

        await eventually(asked)
        probe.become(lambda: reasons, lambda: (b"", "text/plain"), lambda: "standby: a:1 serves the broker")
        there = await http.get("/readyz")
        assert (there.status_code, there.text) == (200, "standby: a:1 serves the broker\n")
        reasons.append("log: away")
        there = await http.get("/readyz")
        assert (there.status_code, there.text) == (503, "log: away\n")

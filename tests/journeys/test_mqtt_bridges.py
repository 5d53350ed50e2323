"""Several bridges: one serves a broker and the others stand by; and how long the log waits for a broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.log import AppLog
from gateway.core.declared import Declared
from tests.bridges import GROUP, buried, device, options, partition, running_bridge, through, value
from tests.gateways import app_logs
from tests.journeys.commands import COMMAND, OUT, append, begun
from tests.journeys.steps import step
from tests.servers import Relay, eventually

Start = Callable[..., Server]
#: A guard against hanging.
HANG = 30.0


async def test_a_second_bridge_stands_by_and_takes_over(
    mosquitto: Start, log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BRIDGE_LEASE", 10 * HANG)
    broker = mosquitto()
    async with running_bridge(log_server, options(broker), OUT, wait=False) as second:
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            await eventually(lambda: begun(second.log))
            async with running_bridge(log_server, options(broker), OUT, wait=False) as third:
                await eventually(lambda: bool(third.stands_by_for))
                assert (third.unready(), third.client) == ([], None)
                assert third.standing.startswith("standby: ")
                assert "serves the broker" in third.standing
                assert value(third, "gateway_bridge_active") == 0
                assert value(second, "gateway_bridge_active") == 1
                assert second.standing == "ok"
                step(f"the second one is ready, and says: {third.standing}")
                await append(third.log, COMMAND, b"1")
                await pump.until(1)
            await append(second.log, COMMAND, b"2")
            await pump.until(2)
    async with running_bridge(log_server, options(broker), OUT, wait=False) as first:
        step("a bridge that ends hands over at once: the next one does not wait for a lease to expire")
        await eventually(lambda: value(first, "gateway_bridge_active") == 1, within=HANG)
        assert first.client is not None
        await first.client.ready()


async def test_bridges_of_two_brokers_serve_both(mosquitto: Start, log_server: str) -> None:
    here, there = mosquitto(), mosquitto()
    async with (
        running_bridge(log_server, options(here), OUT) as first,
        running_bridge(log_server, options(there, client_id="the other: bridge"), OUT) as second,
    ):
        await eventually(lambda: begun(first.log))

        async def both() -> bool:
            return all([len(await first.log.groups.names(p)) == 2 for p in Declared(OUT).partitions("devices")])

        await eventually(both)
        assert second.standing == first.standing == "ok"
        with device(here) as mine, device(there) as other:
            for one in (mine, other):
                await one.subscribe("devices/+/commands/#")
            await append(first.log, COMMAND, b"1")
            for one in (mine, other):
                assert [message.payload for message in await one.until(1)] == [b"1"]


async def test_trimming_waits_for_the_broker_up_to_a_bound(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    logs = [AppLog(log.app, retention=0.1, keep=0, unfinished=50) for log in app_logs(OUT)]
    async with (
        Relay(int(broker.url.rpartition(":")[2])) as relay,
        running_bridge(log_server, options(broker, **through(relay)), OUT, logs=logs) as bridge,
    ):
        await eventually(lambda: begun(bridge.log))
        port, relay._target = relay._target, 1
        relay.cut()
        await eventually(lambda: bridge.unready())
        where = partition(COMMAND, OUT)
        await append(bridge.log, COMMAND, *(b"%d" % n for n in range(40)))

        async def overtaken() -> bool:
            await bridge.log.trim()
            return bool(await buried(bridge.log, where))

        for _ in range(20):
            assert not await overtaken()
        step("40 commands wait for the broker, and trimming for them")
        await append(bridge.log, COMMAND, *(b"%d" % n for n in range(40, 60)))
        await eventually(overtaken)
        letters = await buried(bridge.log, where)
        assert {(letter.reason, letter.group) for letter in letters} == {("retention", GROUP)}
        assert [int(letter.data) for letter in letters] == list(range(len(letters)))
        step(f"beyond the bound the oldest {len(letters)} are dead letters")
        with device(broker) as pump:
            await pump.subscribe("devices/+/commands/#")
            relay._target = port
            await eventually(lambda: bool(pump.got) and pump.got[-1].payload == b"59", within=30)
            got = [int(message.payload) for message in pump.got]
            assert got == sorted(set(got))
            assert set(got) >= set(range(len(letters), 60))

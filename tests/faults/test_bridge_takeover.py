"""Two bridges and one broker: one serves it, the other takes over, and one that wakes up late does nothing any more."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import mqtt5

from gateway.adapters.child import Server
from tests.faults.bridge_checker import complaints, doubles, returns
from tests.faults.bridge_load import Commands, Load, between, packets, reading, story
from tests.faults.bridge_process import BridgeProcess
from tests.servers import eventually

Start = Callable[..., Server]

#: From the end of the one to the first message of the other, in seconds: what is promised.
WITHIN = 5.0


async def test_a_killed_bridge_is_replaced_with_nothing_lost(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    async with (
        reading(log_server) as log,
        BridgeProcess(log_server, broker.url) as first,
        BridgeProcess(log_server, broker.url) as second,
        Load(broker) as load,
        Commands(broker, log) as commands,
    ):
        await eventually(commands.begun)
        load.pour()
        commands.pour()
        loop, serving, waiting, took = asyncio.get_running_loop(), first, second, []
        for _ in range(3):
            await commands.arrived(50)
            await serving.kill()
            there, began = len(commands.got), loop.time()
            # What the broker still has of the dead one arrives first: its last second, at most.
            await commands.arrived(len(commands.sent) - there + 10)
            took.append(loop.time() - began)
            await serving.start()
            serving, waiting = waiting, serving
        assert complaints(await commands.story(returns=3)) == set()
        told = await story(log, load)
        assert (complaints(told), doubles(told.stored)) == (set(), 0)
        print("taken over after", [round(seconds, 2) for seconds in took])  # noqa: T201  a figure of the guarantees
        assert max(took) < WITHIN


async def test_a_frozen_bridge_wakes_up_and_does_nothing(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    async with (
        reading(log_server) as log,
        between(broker) as line,
        BridgeProcess(log_server, line.url) as frozen,
        BridgeProcess(log_server, broker.url),
        Load(broker) as load,
        Commands(broker, log) as commands,
    ):
        await eventually(commands.begun)
        load.pour()
        commands.pour()
        await commands.arrived(100)
        os.kill(frozen.pid, signal.SIGSTOP)
        # Both directions go on by the other one.
        await commands.arrived(len(commands.sent) - len(commands.got) + 100)
        said = [len(there) for there, _ in line.said]
        os.kill(frozen.pid, signal.SIGCONT)
        await commands.arrived(500)  # seconds, in which it could do harm
        assert complaints(await commands.story(returns=1)) == set()
        told = await story(log, load)
        assert (complaints(told), doubles(told.stored)) == (set(), 0)
        late = [packet for (there, _), n in zip(line.said, said, strict=False) for packet in packets(there[n:])]
        assert not [packet for packet in late if isinstance(packet, mqtt5.PublishPacket | mqtt5.PubAckPacket)]
        assert len(line.said) == len(said)  # it never came back to the broker


async def test_a_bridge_that_never_yields_is_found(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    async with (
        reading(log_server) as log,
        between(broker) as line,
        BridgeProcess(log_server, line.url, "NeverYields") as frozen,
        BridgeProcess(log_server, broker.url),
        Commands(broker, log) as commands,
    ):
        await eventually(commands.begun)
        commands.pour()
        await commands.arrived(100)
        os.kill(frozen.pid, signal.SIGSTOP)
        await commands.arrived(len(commands.sent) - len(commands.got) + 100)
        said = len(line.said)
        os.kill(frozen.pid, signal.SIGCONT)
        await eventually(lambda: len(line.said) > said, within=30)  # it takes the session back


async def test_two_bridges_without_a_lease_are_found(mosquitto: Start, log_server: str) -> None:
    broker = mosquitto()
    async with (
        reading(log_server) as log,
        BridgeProcess(log_server, broker.url, "Unfenced"),
        BridgeProcess(log_server, broker.url, "Unfenced"),
        Commands(broker, log) as commands,
    ):
        await eventually(commands.begun)
        commands.pour()
        await commands.arrived(500)
        told = await commands.story(returns=1)
        assert "sent again and again" in complaints(told)
        assert max(returns(told.stored).values()) > 10

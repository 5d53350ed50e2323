"""Ingest: QoS 1 as fast as the broker takes it, through the bridge into the log, nothing lost."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import msgspec

from benchmarks import loads, machine
from benchmarks.results import Row, Section
from benchmarks.stage import Stage, stage
from benchmarks.topics import PREFIX
from gateway.adapters import embedded
from gateway.adapters.child import Server

_METHOD = (
    "{count:,} messages of 128 bytes on 100 topics, QoS 1, from one publisher with 500 in flight, through Mosquitto. "
    "Broker and publisher have one core, bridge and log server (Valkey, Unix socket, `appendfsync always`) the other. "
    "From the first publish to the last entry of the log; the run fails unless the log has as many new entries as "
    "messages were sent. Peer: `mosquitto_sub -q 1` with a session that lasts, a client in C that stores nothing, on "
    "the same load. Broker busy: its CPU time by the clock. Its goal is missed on two cores: bridge and log server "
    "share one, take about three times the broker's CPU per message, and wait for the disk, so theirs is full first. "
    "With a core for each the bridge's would be full with the broker's at half: Mosquitto spends less on a reader that "
    "takes many packets at once, which is what saves the bridge its time."
)


class Flow(msgspec.Struct, frozen=True):
    """One repetition: messages per second, and microseconds of CPU per message of each process."""

    rate: float
    client_us: float
    broker_us: float
    broker_busy: float
    log_us: float = 0.0


def _publish(broker: Server, count: int, seconds: float) -> loads.Load:
    return loads.publisher(broker.port, PREFIX, count=count, seconds=seconds, topics=100)


def _ours(on: Stage, broker: Server, bridge: Server, count: int, within: float) -> Flow:
    servers = (bridge.pid, broker.pid, on.log.pid)
    before, cpu = on.stored(), [machine.cpu_seconds(pid) for pid in servers]
    began = time.monotonic()
    with _publish(broker, count, within) as load:
        ended = on.until_stored(before + count, within)
        sent = load.result(loads.Sent)
    bridge_s, broker_s, log_s = (machine.cpu_seconds(pid) - was for pid, was in zip(servers, cpu, strict=True))
    assert sent.acked == count, sent
    lasted, each = ended - began, 1e6 / count
    more = on.stored() - before - count
    # A redelivery would be a duplicate; without a cut there is none to come.
    assert not more, f"{more} more entries than messages"
    return Flow(count / lasted, bridge_s * each, broker_s * each, broker_s / lasted, log_s * each)


def _theirs(folder: Path, count: int, within: float) -> Flow:
    # A broker of its own: the bridge's would keep each message for the bridge as well.
    with embedded.mosquitto(folder, users={}) as broker:
        machine.pin(broker.pid, machine.GENERATOR_CORE)
        filter_ = f"{PREFIX.rpartition('/')[0]}/#"
        argv = ["mosquitto_sub", "-p", str(broker.port), "-q", "1", "-c", "-i", "peer", "-t", filter_]
        # Subscribed before, so that the session is there when the load begins.
        subprocess.run([*argv, "-E"], check=True, timeout=30, stdout=subprocess.DEVNULL)
        cpu, began = machine.cpu_seconds(broker.pid), time.monotonic()
        with (
            subprocess.Popen([*argv, "-C", str(count), "-W", str(round(within))], stdout=subprocess.DEVNULL) as child,
            _publish(broker, count, within) as load,
        ):
            machine.pin(child.pid, machine.SERVER_CORE)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            lasted = time.monotonic() - began
            load.result(loads.Sent)
        assert child.returncode == 0, "mosquitto_sub did not get everything"
        broker_s = machine.cpu_seconds(broker.pid) - cpu
    each = 1e6 / count
    return Flow(count / lasted, (used.ru_utime + used.ru_stime) * each, broker_s * each, broker_s / lasted)


def run(folder: Path, quick: bool) -> Section:
    # Mosquitto queues 100,000 messages for a client (max_queued_messages): no more may ever wait for the peer.
    count, rounds = (10_000, 1) if quick else (100_000, 3)
    ours: list[Flow] = []
    theirs: list[Flow] = []
    with stage(folder / "ingest") as on:
        broker = on.broker(machine.GENERATOR_CORE)
        bridge = on.bridge()
        for turn in range(rounds):
            theirs.append(_theirs(folder / f"peer-{turn}", count, 60.0))
            ours.append(_ours(on, broker, bridge, count, 60.0))
    sub = "`mosquitto_sub`, stores nothing"

    def row(figure: str, unit: str, field: str, *, beside: bool = True, goal: str = "") -> Row:
        values = tuple(getattr(flow, field) for flow in ours)
        peers = tuple(getattr(flow, field) for flow in theirs) if beside else ()
        return Row(figure, unit, values, sub if beside else "", peers, goal)

    rows = (
        row("messages", "/s", "rate"),
        row("bridge, CPU per message", "µs", "client_us", goal="at most 20 µs, better 12"),
        row("broker, CPU per message", "µs", "broker_us"),
        row("log server, CPU per message", "µs", "log_us", beside=False),
        row("broker busy", "of its core", "broker_busy", goal="at least 0.95"),
    )
    return Section("Ingest", _METHOD.format(count=count), rows)

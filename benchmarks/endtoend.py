"""End to end: MQTT in, log, WebSocket out, every server on one core."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import loads, machine
from benchmarks.results import Row, Section
from benchmarks.stage import Stage, stage
from benchmarks.topics import PREFIX
from gateway.adapters.child import Server

_METHOD = (
    "Publisher, Mosquitto, bridge, Valkey (`appendfsync always`), edge and 10 watchers; all servers share one core. "
    "Latency: {rate:,} events/s at QoS 1, from the publisher's clock in the payload to the watcher's; the "
    "C floor sends the same to as many watchers straight from its loop. Throughput: rates of {rates} are offered for "
    "{seconds:g} s each, up to three times; the highest counts at which nobody is closed as slow and the last "
    "watcher has the last event at most {behind} s after its publish, from the first publish to that event."
)
_WATCHERS = 10
_RATE = 1_000
#: The payload's own time is a number. That of our tags is in quotes and is not read.
_TIME = '"ts":'
#: Seconds that the last delivery may come after the last publish.
_BEHIND = 0.5
#: Events per second that are offered, one rate after another.
_RATES = (5_000, 10_000, 15_000, 15_100, 15_500, 16_000, 17_000, 18_000, 20_000, 25_000, 30_000, 40_000)
#: One of so many tries is enough: what else the machine does for a moment is not ours.
_TRIES = 3


def _floor(folder: Path, seconds: float) -> loads.Latency:
    with (
        loads.floor(folder, _WATCHERS, 1, _RATE) as (_, port),
        loads.watchers(port, loads.Counting(_TIME, warm_up=1.3, timed=True), _WATCHERS, seconds) as load,
    ):
        return _latency(load)


def _latency(load: loads.Load) -> loads.Latency:
    received = load.result(loads.Received)
    assert received.lost_conns == 0, received
    assert received.lat_us is not None, "nothing arrived"
    return received.lat_us


def _paced(on: Stage, broker: Server, seconds: float) -> loads.Latency:
    lasting = seconds + 2.0
    with (
        on.watchers(loads.Counting(_TIME, warm_up=1.0, timed=True), _WATCHERS, seconds) as watching,
        loads.publisher(broker.port, PREFIX, count=0, seconds=lasting, rate=_RATE) as publishing,
    ):
        latency = _latency(watching)
        sent = publishing.result(loads.Sent)
        assert sent.acked == sent.sent, sent
    return latency


def _sustained(on: Stage, broker: Server, rate: int, seconds: float) -> tuple[float, float] | None:
    """Return events per second in and deliveries per second out at an offered ``rate``; None where it is too much.

    Too much is: a watcher closed as slow, or the last delivery later than `_BEHIND` after the last publish.
    """
    count = round(rate * seconds)
    before = on.stored()
    how = loads.Counting('"tags"', warm_up=0.0, most=count * _WATCHERS)
    with on.watchers(how, _WATCHERS, seconds + 4 * _BEHIND) as watching:
        # Open is not subscribed: the tail of the log is loaded first.
        watching.ready()
        time.sleep(1.0)
        began = time.monotonic()
        with loads.publisher(broker.port, PREFIX, count=count, seconds=2 * seconds, rate=rate) as publishing:
            sent = publishing.result(loads.Sent)
            ended = time.monotonic()
            stored = on.until_stored(before + count, 60.0)
        assert sent.acked == count, sent
        received = watching.result(loads.Received, strict=False)
        out = time.monotonic()
    if received.lost_conns or received.msgs < count * _WATCHERS or out - ended > _BEHIND:
        return None
    return count / (stored - began), count * _WATCHERS / (out - began)


def _most(on: Stage, broker: Server, seconds: float, rates: Sequence[int]) -> tuple[float, float]:
    """Return what came in and out at the highest of ``rates`` that was sustained."""
    best = (0.0, 0.0)
    for rate in rates:
        tries = (_sustained(on, broker, rate, seconds) for _ in range(_TRIES))
        found = next((one for one in tries if one is not None), None)
        if found is None:
            break
        best = found
    return best


def run(folder: Path, quick: bool) -> Section:
    seconds, rounds, rates = (1.0, 1, _RATES[:1]) if quick else (5.0, 3, _RATES)
    floors, ours = [], []
    with stage(folder / "endtoend") as on:
        broker = on.broker(machine.SERVER_CORE)
        on.bridge()
        on.edge()
        with machine.warm():
            for _ in range(rounds):
                floors.append(_floor(on.folder, seconds))
                ours.append(_paced(on, broker, seconds))
        into, out = _most(on, broker, min(seconds, 3.0), rates)
    rows = [
        Row(
            f"latency {name} at {_RATE:,} events/s × {_WATCHERS}",
            "ms",
            tuple(getattr(latency, name) / 1000 for latency in ours),
            "C loop of `send()`",
            tuple(getattr(latency, name) / 1000 for latency in floors),
            goal,
        )
        for name, goal in (("p50", "at most 1 ms"), ("p99", "at most 5 ms"))
    ]
    rows.append(Row("throughput, events in", "/s", (into,), goal="at least 15,000/s"))
    rows.append(Row("throughput, deliveries out", "/s", (out,), goal="at least 150,000/s"))
    offered = ", ".join(f"{rate:,}" for rate in rates)
    method = _METHOD.format(rate=_RATE, rates=f"{offered} events/s", seconds=min(seconds, 3.0), behind=_BEHIND)
    return Section("End to end", method, tuple(rows))

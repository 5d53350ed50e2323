"""Fan-out: one topic, everybody watches; deliveries per second of the edge's CPU against a loop of ``send()`` in C."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from benchmarks import fanout_peers, loads, machine
from benchmarks.results import Row, Section
from benchmarks.stage import Stage, stage
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.embedded import free_port

_METHOD = (
    "Deliveries per second of server CPU. Clients have a verified token; events come from the log with offset, id and "
    "tags. C floor, ours, C floor in turn: ours against the mean of the floors beside it. A payload has 128 "
    "bytes; an event of ours, its id and tags around it, is a frame of {bytes} bytes, and so are the floor's; neither "
    "pings its clients. Of the "
    "edge's time with 1,000 watchers four fifths are the kernel's (perf), as nearly all of the floor's. One per "
    "write: the rate is low enough that events do not meet. Ten per write: ten events of one append. "
    "`websockets.broadcast` joins nothing. The other peers are servers whose clients speak their protocol; each is "
    "given the same payloads, one or ten at once, at a rate that leaves it room to spare, those on Node by a timer of "
    "their own, the others by a publisher on the generators' core, and joins what it joins."
)
#: Watchers, events joined, writes per second: what one core can do with room to spare, in C and here.
_CASES = ((100, 1, 800), (1000, 1, 80), (100, 10, 400), (1000, 10, 40))
#: Watchers of the peers that are servers of their own.
_CROWD = 1000
_GOALS = {(1000, 1): "at least 0.65 of the floor, better 0.75", (1000, 10): "at least 0.8 of the floor"}

#: Once in each event: in our push, and in the payload as the floor and the peer send it.
_OURS, _PLAIN = '"tags"', '"data"'


def _floor(folder: Path, count: int, batch: int, rate: float, seconds: float, size: int) -> float:
    with loads.floor(folder, count, batch, rate, size) as (server, port):
        # It begins a second after its last client came.
        how = loads.Counting(marker=_PLAIN, warm_up=1.3, servers=(server.pid,))
        with loads.watchers(port, how, count, seconds) as load:
            return _whole(load.result(loads.Received)).msgs_per_cpu_s


def _broadcast(folder: Path, count: int, rate: float, seconds: float) -> float:
    port = free_port()
    argv = (sys.executable, "-m", "benchmarks.broadcast", str(port), str(rate))
    door = Door(f"ws://127.0.0.1:{port}", port=port)
    with Server(Plan("broadcast", argv, folder, (door,))) as server:
        machine.pin(server.pid, machine.SERVER_CORE)
        how = loads.Counting(marker=_PLAIN, warm_up=1.0, servers=(server.pid,))
        with loads.watchers(port, how, count, seconds) as load:
            return _whole(load.result(loads.Received)).msgs_per_cpu_s


def _ours(on: Stage, edge: Server, count: int, batch: int, rate: float, seconds: float) -> loads.Received:
    lasting = seconds + 30
    argv = (sys.executable, "-m", "benchmarks.source", on.log.url, *map(str, (rate, batch, lasting)))
    with Server(Plan("source", argv, on.folder, ())) as source:
        machine.pin(source.pid, machine.GENERATOR_CORE)
        how = loads.Counting(marker=_OURS, warm_up=1.0, servers=(edge.pid,))
        with on.watchers(how, count, seconds) as load:
            return _whole(load.result(loads.Received))


def _whole(received: loads.Received) -> loads.Received:
    assert received.lost_conns == 0, received
    assert received.msgs, received
    # A generator that cannot follow lets events meet in the sockets.
    assert received.gen_cpu_s < 0.9 * received.wall_s, f"the generator is the bottleneck: {received}"
    return received


def run(folder: Path, quick: bool) -> Section:
    seconds, rounds, more = (0.7, 1, 0) if quick else (3.0, 3, 4)
    rows: list[Row] = []
    with stage(folder / "fanout") as on:
        # The log server is no part of what fan-out costs.
        machine.pin(on.log.pid, machine.GENERATOR_CORE)
        edge = on.edge(pings=False)
        few = _ours(on, edge, 10, 1, 100, 0.5)
        size = round(few.bytes / few.msgs)
        for count, batch, rate in _CASES[::3] if quick else _CASES:
            floors = [_floor(folder, count, batch, rate, seconds, size)]
            ours, peers = [], []
            others = fanout_peers.Beside(on.folder / "peer", count, batch, seconds)
            # The floor has its goals with the crowd, and varies most.
            for turn in range(rounds + (more if count == _CROWD else 0)):
                ours.append(_ours(on, edge, count, batch, rate, seconds).msgs_per_cpu_s)
                if batch == 1 and turn < rounds:
                    peers.append(_broadcast(folder, count, rate, seconds))
                if count == _CROWD and turn < rounds:
                    others.again()
                floors.append(_floor(folder, count, batch, rate, seconds, size))
            beside = tuple((a + b) / 2 for a, b in itertools.pairwise(floors))
            each = "one event per write" if batch == 1 else "ten events per write"
            name, goal = f"{count:,} watchers, {each}", _GOALS.get((count, batch), "")
            rows.append(Row(name, "/CPU s", tuple(ours), "C loop of `send()`", beside, goal))
            if peers:
                rows.append(
                    Row(name, "/CPU s", tuple(ours[:rounds]), "`websockets.broadcast`, uvloop", tuple(peers), "ahead")
                )
            if count == _CROWD:
                rows += others.rows(name, ours[:rounds])
    return Section("Fan-out", _METHOD.format(bytes=size), tuple(rows))

"""Idle connections: what one costs in memory, with a token, a topic of its own and an answered ping."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fanout_peers, loads, machine
from benchmarks.fanout_peers import mosquitto
from benchmarks.results import Row, Section
from benchmarks.stage import stage
from benchmarks.topics import PREFIX
from gateway import limits
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.embedded import free_port
from gateway.edge.process import WEBSOCKET_PATH

_METHOD = (
    "Memory that the server holds more with {count:,} connections than with none (VmRSS), by their number; what the "
    "kernel holds for a socket is not in it. Each of ours came with a token of its own user, is subscribed to a topic "
    "of its own and has answered a ping. Mosquitto's are subscribed to a topic of their own and were answered a ping; "
    "those of `websockets` (uvloop, no compression) have answered a ping, and wait."
)
#: Descriptors that a server and the generator need beside their clients' sockets.
_SPARE = 500
_OURS = ('text:{"id":1,"connect":{"token":"{t}"}}', 'text:{"id":2,"subscribe":{"channel":"' + PREFIX + '{i}"}}')
#: CONNECT with its number as client id, SUBSCRIBE to a topic of its number, PINGREQ.
_MQTT = (
    r"bin:\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05{i}",
    r"bin:\x82\x10\x00\x01\x00\x0bbench/{i}\x00",
    r"bin:\xc0\x00",
)


def _each(held: loads.Held, *, pinged: bool) -> float:
    assert held.lost_conns == 0, held
    assert not pinged or held.pinged == held.conns, held
    return (held.rss_kb - held.rss0_kb) * 1024 / held.conns


def _roomy(server: Server) -> Server:
    """Let ``server`` have as many descriptors as this machine gives anybody."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
    machine.pin(server.pid, machine.SERVER_CORE)
    return server


def _ours(folder: Path, count: int, quick: bool) -> float:
    with stage(folder) as on:
        machine.pin(on.log.pid, machine.GENERATOR_CORE)
        edge = _roomy(on.edge())
        tokens = folder / "tokens"
        tokens.write_text("".join(f"{on.token(f'user-{n}')}\n" for n in range(count)))
        # The first ping comes at a random moment within PING_EVERY.
        most = 1.0 if quick else limits.PING_EVERY + 2
        more = ("-R", "{}", "-T", str(tokens))
        held = loads.idle(edge, on.edge_port, count, most, path=WEBSOCKET_PATH, first=_OURS, more=more)
        return _each(held, pinged=not quick)


def _peer(argv: Sequence[str], folder: Path, port: int, count: int) -> Server:
    return Server(Plan("idle", tuple(argv), folder, (Door(f"tcp://127.0.0.1:{port}", port=port),)))


def _mosquitto(folder: Path, count: int) -> float:
    folder.mkdir()
    hall = mosquitto.hall("", folder, free_port(), free_port(), 0.0, 0)
    with _peer(hall.argv, folder, hall.port, count) as server:
        more = ("-P", hall.subprotocol)
        return _each(
            loads.idle(_roomy(server), hall.port, count, 2.0, path=hall.path, first=_MQTT, more=more), pinged=False
        )


def _websockets(folder: Path, count: int, quick: bool) -> float:
    port = free_port()
    with _peer((sys.executable, "-m", "benchmarks.broadcast", str(port), "0"), folder, port, count) as server:
        held = loads.idle(_roomy(server), port, count, 1.0 if quick else 25.0, path="/", first=())
        return _each(held, pinged=not quick)


def run(folder: Path, quick: bool) -> Section:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = 200 if quick else min(10_000, most - _SPARE)
    ours = (_ours(folder / "idle", count, quick),)
    peers = {"`websockets`, uvloop": _websockets(folder, count, quick)}
    try:
        mosquitto.check("")
    except fanout_peers.Absent as why:
        peers[f"Mosquitto: {why}"] = 0.0
    else:
        peers["Mosquitto, WebSocket listener"] = _mosquitto(folder / "mosquitto-idle", count)
    rows = [
        Row("memory of an idle connection", "bytes", ours, name, (theirs,) if theirs else (), "at most 6 KB")
        for name, theirs in peers.items()
    ]
    return Section("Idle connections", _METHOD.format(count=count), tuple(rows))

"""Mosquitto: MQTT 3.1.1 over its WebSocket listener, QoS 0, published by MQTT over TCP."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.fanout_peers import Hall, program, said

_TOPIC = b"bench"
_CONNECT = b"\x10%c\x00\x04MQTT\x04\x02\x00\x00\x00%c%b"
#: Of a watcher: CONNECT with its number as client id, and SUBSCRIBE.
_FIRST = (
    r"bin:\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05{i}",
    r"bin:\x82\x0a\x00\x01\x00\x05bench\x00",
)

HELLO = _CONNECT % (16, 4, b"feed")


def published(payloads: list[bytes]) -> bytes:
    """Return a PUBLISH for each."""
    return b"".join(_publish(payload) for payload in payloads)


def _publish(payload: bytes) -> bytes:
    body = b"\x00%c%b" % (len(_TOPIC), _TOPIC) + payload
    # Its length in seven bits a byte (MQTT 5, 1.5.5).
    return b"\x30%c%c" % (len(body) % 128 | 128, len(body) // 128) + body


def check(_: str) -> None:
    program("mosquitto")


def version(_: str) -> str:
    return said(program("mosquitto"), "-h").partition("\n")[0]


def hall(_: str, folder: Path, port: int, feed: int, rate: float, batch: int) -> Hall:
    root = "user root\n" if os.geteuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(
        f"{root}listener {port} 127.0.0.1\nprotocol websockets\nlistener {feed} 127.0.0.1\n"
        "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nlog_type error\n"
    )
    argv = (program("mosquitto"), "-c", str(folder / "mosquitto.conf"))
    return Hall(argv, port, feed, path="/mqtt", subprotocol="mqtt", first=_FIRST)

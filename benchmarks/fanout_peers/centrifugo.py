"""Centrifugo: the protocol that we speak too, in memory, published by its HTTP API."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from benchmarks.fanout_peers import Hall, program, said

HELLO = b""
_FIRST = ('text:{"id":1,"connect":{}}', 'text:{"id":2,"subscribe":{"channel":"bench"}}')


def published(payloads: list[bytes]) -> bytes:
    """Return a request of the API for all of them."""
    commands = [{"publish": {"channel": "bench", "data": msgspec.Raw(payload)}} for payload in payloads]
    body = msgspec.json.encode({"commands": commands})
    head = (
        f"POST /api/batch HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"\r\n" + body


def check(_: str) -> None:
    program("centrifugo")


def version(_: str) -> str:
    return said(program("centrifugo"), "version")


def hall(_: str, folder: Path, port: int, feed: int, rate: float, batch: int) -> Hall:
    settings = {
        "client": {"insecure": True},
        "http_api": {"insecure": True},
        "http_server": {
            "address": "127.0.0.1",
            "port": port,
            "internal_address": "127.0.0.1",
            "internal_port": str(feed),
        },
        "log": {"level": "error"},
    }
    (folder / "centrifugo.json").write_text(json.dumps(settings))
    argv = (program("centrifugo"), "--config", str(folder / "centrifugo.json"))
    return Hall(argv, port, feed, path="/connection/websocket", first=_FIRST)

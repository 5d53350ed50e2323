"""NATS: its WebSocket listener, published by its text protocol over TCP."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fanout_peers import Hall, program, said

HELLO = b'CONNECT {"verbose":false,"pedantic":false,"lang":"c","version":"0"}\r\n'


def published(payloads: list[bytes]) -> bytes:
    """Return a PUB for each."""
    return b"".join(b"PUB bench %d\r\n%b\r\n" % (len(payload), payload) for payload in payloads)


def check(_: str) -> None:
    program("nats-server")


def version(_: str) -> str:
    return said(program("nats-server"), "--version")


def hall(_: str, folder: Path, port: int, feed: int, rate: float, batch: int) -> Hall:
    (folder / "nats.conf").write_text(
        f'host: "127.0.0.1"\nport: {feed}\nwebsocket {{ host: "127.0.0.1", port: {port}, no_tls: true }}\n'
    )
    first = (f"text:{HELLO.decode().strip()}\\r\\n", "text:SUB bench 1\\r\\n")
    return Hall((program("nats-server"), "-c", str(folder / "nats.conf")), port, feed, first=first)

"""Events for a broker, published at a rate: ``python -m benchmarks.fanout_peers.feed MODULE PORT RATE BATCH``."""

from __future__ import annotations

import importlib
import socket
import sys
import time
from typing import Any

from benchmarks.topics import payload


def _publish(peer: Any, port: int, rate: float, batch: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(peer.HELLO)
        due, sequence = time.monotonic(), 0
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            # A late batch is left out, not made up for: two at once would be joined into one write.
            due = max(due + 1 / rate, time.monotonic())
            broker.sendall(peer.published([payload(n) for n in range(sequence, sequence + batch)]))
            sequence += batch
            _read_away(broker)


def _read_away(broker: socket.socket) -> None:
    try:
        while broker.recv(65536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return
    sys.exit("the broker hung up")


if __name__ == "__main__":
    _publish(importlib.import_module(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

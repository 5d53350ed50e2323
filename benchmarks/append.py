"""Append: events per second into the log, in batches, beside plain XADD."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import redis

from benchmarks import orders
from benchmarks.orders import Task
from benchmarks.results import Row, Section
from benchmarks.services import ring
from gateway.app import Durability

_METHOD = (
    "{count:,} orders of 128 bytes and {keys:,} keys in batches of {batch}, 8 partitions side by side, by one process "
    "on a core of its own; Valkey (Unix socket) has the other. The events exist before; the first tenth is not "
    "measured. `disk`: `appendfsync always`; `fast`: `everysec`. The run fails unless the log has as many entries. "
    "Peer: redis-py, a pipeline of as many XADD of the same fields, to as many streams, one pipeline after another; "
    "its fields are packed before, and it keeps no chain of a key and no epoch."
)
_BATCH: Final = 250
_FSYNC: Final[dict[Durability, str]] = {"fast": "everysec", "disk": "always"}


def _append(folder: Path, kind: str, count: int, durability: Durability) -> float:
    with ring(folder, f"appendfsync {_FSYNC[durability]}") as on:
        rate = on.run(Task(kind, on.url, "append", count, count // 10, batch=_BATCH, durability=durability)).rate
        stored = orders.stored(on.log) - orders.EPOCHS if kind == "append" else _plain(on.log)
        assert stored == count, f"{stored} entries of {count}"
    return rate


def _plain(log: redis.Redis) -> int:
    return sum(int(log.xlen(orders.plain(partition))) for partition in orders.PARTITIONS)


def run(folder: Path, quick: bool) -> Section:
    folder, rounds, count = folder / "append", 1 if quick else 3, 10_000 if quick else 40_000
    folder.mkdir()
    rows = []
    goals: dict[Durability, str] = {"fast": "at least 80,000/s", "disk": ""}
    for durability, goal in goals.items():
        ours, theirs = [], []
        for turn in range(rounds):
            theirs.append(_append(folder / f"peer-{durability}-{turn}", "redis-py append", count, durability))
            ours.append(_append(folder / f"{durability}-{turn}", "append", count, durability))
        rows.append(Row(f"durability `{durability}`", "/s", tuple(ours), "pipeline of XADD", tuple(theirs), goal))
    return Section("Append", _METHOD.format(count=count, keys=orders.KEYS, batch=_BATCH), tuple(rows))

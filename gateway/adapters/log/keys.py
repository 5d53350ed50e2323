"""What an application's log promises, and the names of its keys: all of one partition in one slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from gateway import limits
from gateway.core.event import Partition

#: Offsets from here on number replays of dead letters: copies, and no entries of the log. Exact as a double (Lua).
REPLAYS: Final = 2**52


class AppLog(msgspec.Struct, frozen=True):
    """What one application asks of its log."""

    app: str
    #: ``fast``: acknowledged from memory. ``disk``: after fsync. ``replica``: after a replica confirmed it.
    durability: Literal["fast", "disk", "replica"] = "disk"
    #: Seconds that events are kept, and how many of a partition are kept whatever their age.
    retention: float = limits.RETENTION
    keep: int = limits.KEEP
    #: Entries of a partition that wait for the slowest group, whatever their age; beyond, they become dead letters.
    unfinished: int = limits.UNFINISHED

    def partitions(self, count: int) -> tuple[Partition, ...]:
        return tuple(f"{self.app}.{index}" for index in range(count))


class Counters:
    """What happened in this process's log since it was opened; the process exports them."""

    __slots__ = (
        "appended",
        "away",
        "batches",
        "buried",
        "corrupt",
        "duplicates",
        "epoch_changes",
        "fenced",
        "overtaken",
        "reconnects",
        "replayed",
        "retries",
        "settles",
        "trimmed",
    )

    def __init__(self) -> None:
        self.appended = 0
        #: Partitions that nothing can be appended to now.
        self.away: Callable[[], int] = int
        self.batches = 0
        self.buried = 0
        self.corrupt = 0
        self.duplicates = 0
        self.epoch_changes = 0
        #: Leases that were lost while their holder still worked.
        self.fenced = 0
        #: Unfinished entries that trimming made dead letters of.
        self.overtaken = 0
        #: Connections that ended without us wanting it.
        self.reconnects = 0
        self.replayed = 0
        self.retries = 0
        self.settles = 0
        self.trimmed = 0


def log_key(partition: Partition) -> str:
    # The braces are the cluster's hash tag: what stands in them alone chooses the slot.
    return f"{{{partition}}}"


def part(partition: Partition, name: str) -> str:
    """The key of one of a partition's parts: epochs, heads, last, idem, marks, trimmer, live, dead or groups."""
    return f"{{{partition}}}:{name}"


def parts(partition: Partition, *names: str) -> tuple[str, ...]:
    return (log_key(partition), *(part(partition, name) for name in names))


def group_part(partition: Partition, group: str, name: str = "") -> str:
    """The key of a group's state in a partition, or of one of its parts: parked, crashes or replays."""
    return f"{{{partition}}}:group:{group}:{name}" if name else f"{{{partition}}}:group:{group}"

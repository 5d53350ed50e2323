"""Which history of a partition is being written: an epoch per life of the log server, opened before anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from gateway.adapters.log.keys import Counters, part, parts
from gateway.adapters.log.link import EPOCH, good, missing_script
from gateway.adapters.log.resp import Reply, Wire, pack
from gateway.core.event import Partition
from gateway.core.resume import Epochs


async def keep(wire: Wire, partitions: Sequence[Partition], counters: Counters) -> None:
    """Open an epoch in each partition whose newest belongs to another life of the server; one call for all.

    Any number of processes may do it at once: ``epoch.lua`` is the compare-and-set. Raises the typed error of the
    first refusal.
    """
    calls = [EPOCH.call(parts(partition, "epochs", "marks")) for partition in partitions]
    replies = await wire.call(*calls)
    if any(missing_script(reply) for reply in replies):
        replies = (await wire.call(EPOCH.load, *calls))[1:]
    for reply in replies:
        counters.epoch_changes += cast("list[int]", good(reply))[1]


def table(stored: Reply) -> Epochs:
    """Read ``HGETALL {p}:epochs``."""
    flat = cast("list[bytes]", stored)
    return Epochs({int(name): int(first) for name, first in zip(flat[::2], flat[1::2], strict=True) if name.isdigit()})


def ask(partition: Partition) -> bytes:
    return pack("HGETALL", part(partition, "epochs"))

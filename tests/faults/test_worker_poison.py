"""Poison among the events of a service: buried with its reason, bystanders unharmed, nothing stalled."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway import limits
from gateway.adapters.child import Server
from tests.faults.worker_checker import complaints
from tests.faults.worker_load import Fleet, fleet
from tests.servers import eventually

HUGE = 10 * 1024 * 1024


async def _buried(workers: Fleet) -> bool:
    letters = [one for p in workers.log.partitions() for _, one in await workers.log.dead(p)]
    return {letter.id for letter in letters} >= workers.poison.keys()


async def test_poison_of_every_kind_is_buried_and_bystanders_are_not(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour(4)
        await workers.more(50)
        for does, data, reason in (
            (["", ""], b'{"n":"x"}', "schema"),
            (["never"] * 3, b"", "gave_up"),
            (["hang"] * 2, b"", "gave_up"),
            (["kill"], b"", "crash_loop"),
        ):
            await workers.send(does, data, reason)
        await workers.more(300)
        await eventually(lambda: _buried(workers), within=90)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


@pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process had is read from /proc")
async def test_poison_of_ten_megabytes_is_buried_and_costs_nobody_else(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path) as workers:
        await workers.add()
        workers.pour()
        await workers.more(200)
        before = workers.workers[0].most_memory
        for _ in range(8):
            # Past every door of ours, which refuse it; the last size that they take is no poison.
            await workers.smuggle(HUGE, "too_large")
            await workers.smuggle(limits.PAYLOAD_BYTES + 1, "too_large")
            await workers.send([""], size=limits.PAYLOAD_BYTES)
            await workers.more(50)
        await eventually(lambda: _buried(workers), within=60)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)
        letters = [one for p in workers.log.partitions() for _, one in await workers.log.dead(p)]
        # The beginning, to know it by; the whole stands in the log, where the letter says.
        assert all(len(one.data) == limits.PAYLOAD_BYTES and one.at for one in letters)
        # A few of them at a time: on the wire, as a reply, as an event.
        assert workers.workers[0].most_memory - before < 8 * HUGE


async def test_entries_that_nobody_can_read_stall_nothing(valkey: Server, tmp_path: Path) -> None:
    async with fleet(valkey.url, tmp_path) as workers:
        await workers.add()
        workers.pour()
        for _ in range(3):
            await workers.more(100)
            await _unreadable(workers)
        await workers.more(100)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)
        # Nothing comes after these.
        await _unreadable(workers)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


async def _unreadable(workers: Fleet) -> None:
    def ours_but_for(data: bytes, meta: bytes) -> tuple[bytes | str | int, ...]:
        return ("topic", "shop/orders/o1/placed", "id", "x", "data", data, "prev", 0, "meta", meta)

    for partition in workers.log.partitions():
        await workers.scribble(partition, "hello", "world")
        await workers.scribble(partition, *ours_but_for(b"{}", b"\xff"))
    await workers.scribble(partition, *ours_but_for(b"\0" * HUGE, b"\x80"))

"""Workers that are broken on purpose, each in one way; and how the settles of any worker are seen."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.adapters.identity import new_id
from gateway.adapters.log import Lease, group, group_lease
from gateway.adapters.log.link import Script, backoff
from gateway.adapters.log.resp import Reply, pack
from gateway.core.delivery import ACK, Verdict
from gateway.core.lanes import Item
from gateway.errors import Unavailable
from gateway.worker import job
from gateway.worker.holding import Holding

#: After the fence and the serial, before anything is written: who settles, who holds, the cursor moved, what.
_TRACE = """redis.call('RPUSH', KEYS[2] .. ':trace', ARGV[1] .. ' ' .. group[1] .. ' ' .. ARGV[2] .. ' '
  .. redis.call('HGET', KEYS[2], 'cursor') .. ' ' .. ARGV[3] .. ' '
  .. (ARGV[3] ~= '' and redis.sha1hex(table.concat(ARGV, ' ', 3)) or ''))
"""


def traced() -> None:
    """Let ``settle.lua`` write down what it takes, in the order in which the server takes it."""
    _rewrite(group_lease.SETTLE, "local clock = ", _TRACE + "local clock = ")


def _rewrite(script: Script, old: str, new: str) -> None:
    text = script.text.decode()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} does not stand once in {text[:200]!r}")
    script.text = text.replace(old, new).encode()
    script.sha = hashlib.sha1(script.text, usedforsecurity=False).hexdigest()
    script.load = pack("SCRIPT", "LOAD", script.text)


class SettlesEarly(Holding):
    """Says that an event is done before its handler ran."""

    async def _hand(self, items: Sequence[Item]) -> None:
        for item in items:
            self.lanes.settle(item, ACK, 0.0)
        await self._tell()
        await super()._hand(items)

    def finish(self, item: Item, verdict: Verdict, error: BaseException | None = None) -> None:
        self.out.pop(item.offset, None)
        self._wake.set()


class HandsOverNothing(Holding):
    """Leaves without saying what is finished behind what is not."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lanes.hand_over = lambda: None  # type: ignore[method-assign]  # broken on purpose, from outside


class TrustsWallClock(Holding):
    """Measures its pauses by the time of day."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._loop = _TimeOfDay(self._loop)  # type: ignore[assignment]  # broken on purpose, from outside
        self._told_at = self._loop.time()

    def look(self, now: float) -> None:
        super().look(self._loop.time())


class _TimeOfDay:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio = loop

    def time(self) -> float:
        return time.time()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asyncio, name)


class _RetriesAnew(Lease):
    """Asks again as if it had never asked: with another serial."""

    async def _insisting(self, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> Reply:
        tries = 0
        while True:
            try:
                return await self._writes.run(group_lease.SETTLE, keys, *arguments)
            except Unavailable:
                await asyncio.sleep(backoff(tries))
                tries += 1
                self._serial += 1
                arguments = (arguments[0], self._serial + 1, *arguments[2:])


def _unfenced() -> None:
    _rewrite(group_lease.SETTLE, "group[1] ~= ARGV[1] or group[2]", "group[2]")


def _trusts_server_clock() -> None:
    _rewrite(group.LEASE, "left > 0 and left <= 2 * tonumber(was[4])", "left > 0")


def _retries_anew() -> None:
    group.Lease = _RetriesAnew  # type: ignore[attr-defined]  # broken on purpose, from outside


def _emits_anew() -> None:
    job.emitted_id = lambda event_id, group, n: new_id()  # type: ignore[attr-defined]  # broken on purpose, from outside


HOLDINGS: dict[str, type[Holding]] = {
    one.__name__: one for one in (Holding, SettlesEarly, HandsOverNothing, TrustsWallClock)
}
BREAKS: dict[str, Callable[[], None]] = {
    "Unfenced": _unfenced,
    "TrustsServerClock": _trusts_server_clock,
    "RetriesAnew": _retries_anew,
    "EmitsAnew": _emits_anew,
}


def made_of(kind: str) -> type[Holding]:
    """What holds partitions in a worker of this ``kind``; the rest of this process is broken to match. ``Holding``: it
    is not broken.
    """
    if kind in BREAKS:
        BREAKS[kind]()
        return Holding
    return HOLDINGS[kind]

"""What lies before a partition's window: read back from the log once, for everybody who missed it.

Thousands come back at once when a process or a line dies, and all of them miss the same stretch. It is read in blocks
of ``limits.LOG_PAGE`` offsets: who needs a block that is being read waits for that read, and what was read is kept for
whoever comes next, by the bounds of a window. One client alone does better by the chain of its key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gateway import limits
from gateway.adapters.log import Log
from gateway.core.event import Partition, Position, Record
from gateway.core.window import Window
from gateway.errors import GatewayError, Unavailable


class Run(msgspec.Struct, frozen=True):
    """What one read brought of some blocks: everything after ``window.floor``, up to ``top``.

    ``top`` lies before the end of the last block where that is the end of the log.
    """

    blocks: range
    window: Window
    top: int


class Backlog:
    """The blocks of one partition that somebody needed lately."""

    def __init__(
        self,
        log: Log,
        partition: Partition,
        window: Window,
        at: Callable[[int], Position],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._log, self._partition, self._window = log, partition, window
        #: The position of an offset, in the epoch that gave it.
        self._at = at
        #: Runs a task that the edge owns: a read goes on when the client that began it is gone.
        self._spawn = spawn
        #: By their first block, the longest unused first; and the runs that blocks are in.
        self._runs: dict[int, Run] = {}
        self._blocks: dict[int, Run] = {}
        self._reading: dict[int, asyncio.Future[Run]] = {}
        self._used = 0.0
        #: Clients that went by their key's chain, since when.
        self._alone, self._alone_since = 0, 0.0
        self._top: asyncio.Future[Position] | None = None

    def shared(self, since: int) -> bool:
        """Say whether a client of one key, at offset ``since``, had better read blocks than the chain of its key.

        It had where that reads nothing, or little; or no more often than others of late read chains.
        """
        floor = self._window.floor
        heavy = (floor - since) * self._window.size > limits.WINDOW_BYTES * len(self._window)
        if heavy or floor - since > limits.WINDOW_ENTRIES:
            return False  # it could not be kept for the next one
        missing = self._missing(since // limits.LOG_PAGE, _block_of(floor))
        now = asyncio.get_running_loop().time()
        if now - self._alone_since > limits.BACKLOG_KEPT:
            self._alone, self._alone_since = 0, now
        if not missing or -(-len(missing) // self._at_once(missing[0])) <= max(limits.BACKLOG_READS, self._alone):
            return True
        self._alone += 1
        return False

    async def missed(self, since: int, filter: str) -> tuple[list[Record], int] | None:
        """Return what passes ``filter`` after the offset ``since``, and how far: there the window takes over.

        None where the log lacks something of it, or it is more than one client may have. Raises what reading raises.
        """
        self._used = asyncio.get_running_loop().time()
        kept: list[Record] = []
        weight, at, stalled = 0, since, False
        for _ in range(limits.RECOVERY_PAGES):
            if self._window.covers(at):
                return kept, at
            run = self._kept(at // limits.LOG_PAGE) or await self._read_on(at // limits.LOG_PAGE)
            if run.window.floor > at:
                return None
            if run.top <= at:
                if stalled:
                    return None
                stalled = True  # a read that began before the log had more
                continue
            wanted = run.window.after(at, filter)
            kept += wanted
            weight += sum([len(r.event.data) for r in wanted])
            if len(kept) > limits.RECOVERY_EVENTS or weight > limits.RECOVERY_BYTES:
                return None
            at, stalled = run.top, False
        return (kept, at) if self._window.covers(at) else None

    async def knows(self, offset: int) -> bool:
        """Say whether the log has come to ``offset``; one question for all who ask meanwhile."""
        for _ in range(2):
            asked, mine = self._top, self._top is None
            if asked is None:
                asked = self._top = asyncio.get_running_loop().create_future()
                self._spawn(self._ask(asked), f"top-{self._partition}")
            if (await asyncio.shield(asked)).offset >= offset:
                return True
            if mine:
                return False
        return False

    def forget(self) -> None:
        """The log began a new epoch, or lost something: what was read of it may be of another history."""
        # New ones, for reads under way to end in the old.
        self._runs, self._blocks, self._reading = {}, {}, {}

    def tidy(self) -> None:
        """Forget what nobody needs any more."""
        if self._blocks and asyncio.get_running_loop().time() - self._used > limits.BACKLOG_KEPT:
            self.forget()

    def _missing(self, first: int, last: int) -> list[int]:
        """The blocks that nobody has begun to read."""
        missing: list[int] = []
        n = first
        while n <= last:
            run = self._kept(n)
            if run is None and n not in self._reading:
                missing.append(n)
            n = n + 1 if run is None else run.blocks.stop
        return missing

    def _kept(self, number: int) -> Run | None:
        """The run of a block, unless it ended with a log that has gone on."""
        run = self._blocks.get(number)
        if run is None or (run.top != run.blocks.stop * limits.LOG_PAGE and not self._window.covers(run.top)):
            return None
        self._runs[run.blocks.start] = self._runs.pop(run.blocks.start)
        return run

    async def _read_on(self, number: int) -> Run:
        return await asyncio.shield(self._reading.get(number) or self._begin(number))

    def _at_once(self, number: int) -> int:
        """How many blocks from ``number`` on one read may bring: as many as surely fit, of what we saw pass."""
        if (number + 1) * limits.LOG_PAGE <= self._window.seen:
            return 1
        entries = min(limits.BACKLOG_PAGE, limits.BACKLOG_PAGE_BYTES // (self._window.largest + 1))
        return max(1, entries // limits.LOG_PAGE)

    def _begin(self, number: int) -> asyncio.Future[Run]:
        end = number + 1
        last = min(_block_of(self._window.floor), number + self._at_once(number) - 1)
        while end <= last and end not in self._reading and self._kept(end) is None:
            end += 1
        reading: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._reading.update(dict.fromkeys(range(number, end), reading))
        self._spawn(self._read(range(number, end), reading, self._reading), f"backlog-{self._partition}")
        return reading

    async def _read(self, blocks: range, done: asyncio.Future[Run], reading: dict[int, asyncio.Future[Run]]) -> None:
        begin, end = blocks.start * limits.LOG_PAGE, blocks.stop * limits.LOG_PAGE
        try:
            page = await self._log.read(self._partition, self._at(begin), end - begin)
            window = Window(end - begin, (end - begin) * limits.PAYLOAD_BYTES)
            window.start(min(max(begin, page.floor), end))
            for record in page.records:
                if window.floor < record.offset <= end:  # where much was trimmed, the page goes on
                    window.add(record)
            run = Run(blocks, window, max(begin, min(page.position.offset, end)))
            done.set_result(run)
            if reading is self._reading:
                self._keep(run)
        except GatewayError as error:
            _fail(done, error)
        finally:
            for n in blocks:
                del reading[n]
            _fail(done, Unavailable("the read of the log ended", "subscribe again"))

    def _keep(self, run: Run) -> None:
        for n in run.blocks:
            if n in self._blocks:
                self._drop(self._blocks[n])
        self._runs[run.blocks.start] = run
        self._blocks.update(dict.fromkeys(run.blocks, run))
        while self._runs and self._too_much():
            self._drop(next(iter(self._runs.values())))

    def _too_much(self) -> bool:
        windows = [run.window for run in self._runs.values()]
        entries, size = sum(map(len, windows)), sum(window.size for window in windows)
        return entries > limits.WINDOW_ENTRIES + limits.BACKLOG_PAGE or size > limits.WINDOW_BYTES

    def _drop(self, run: Run) -> None:
        del self._runs[run.blocks.start]
        for n in run.blocks:
            del self._blocks[n]

    async def _ask(self, asked: asyncio.Future[Position]) -> None:
        try:
            asked.set_result(await self._log.top(self._partition))
        except GatewayError as error:
            _fail(asked, error)
        finally:
            self._top = None
            _fail(asked, Unavailable("the read of the log ended", "subscribe again"))


def _block_of(offset: int) -> int:
    """The number of the block that ``offset`` stands in: block n holds what comes after n pages, up to n + 1."""
    return max(0, offset - 1) // limits.LOG_PAGE


def _fail(future: asyncio.Future[Any], error: GatewayError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # all who waited may be gone

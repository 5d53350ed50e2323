"""A term of serving the broker: what may be done while the log server has just confirmed it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import NoReturn

from gateway import limits
from gateway.adapters.log import BridgeLease
from gateway.errors import Unavailable

_logger = logging.getLogger("gateway.bridge")


class Term:
    """From taking the lease to losing it. `keep` renews it and raises `Fenced` when another has it.

    Whoever is about to publish, acknowledge or connect asks `fresh`, or awaits `confirmed`. By this machine's monotonic
    clock, which goes on while a process is stopped: one that wakes up late does nothing before it has asked.
    """

    def __init__(self, lease: BridgeLease) -> None:
        self.lease = lease
        #: When the newest renewal was asked for, and not when its answer came.
        self._told_at = float("-inf")
        self._asked, self._confirmed = asyncio.Event(), asyncio.Event()

    @property
    def fresh(self) -> bool:
        """Whether nobody else can have it yet, by a wide margin."""
        # Not the loop's time: it stands still while one turn of the loop runs, and a stop may fall into that.
        return time.monotonic() - self._told_at < self.lease.ttl / 2

    async def confirmed(self) -> None:
        """Return once it is `fresh`; for ever, and until cancelled, where it is lost."""
        while not self.fresh:
            self._confirmed.clear()
            self._asked.set()
            await self._confirmed.wait()

    def doubt(self) -> None:
        """Ask the log server before anything else is done."""
        self._told_at = float("-inf")

    async def keep(self) -> NoReturn:
        """Renew it until cancelled; raises `Fenced`. While the log server is away nobody can take it, and we wait."""
        away = ""
        while True:
            now = time.monotonic()
            try:
                await self.lease.renew()
            except Unavailable as error:
                if away != error.code:
                    _logger.warning("the bridge holds still: %s", error)
                away = error.code
                await asyncio.sleep(limits.BRIDGE_TRY)
                continue
            away, self._told_at = "", now
            self._confirmed.set()
            self._asked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.BRIDGE_BEAT):
                    await self._asked.wait()

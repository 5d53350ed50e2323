"""What is old enough goes: a page per call, with the heads and keys that pointed to it."""

from __future__ import annotations

import secrets
from typing import cast

from gateway import limits
from gateway.adapters.log.keys import AppLog, Counters, parts
from gateway.adapters.log.link import TRIM, Link
from gateway.core.event import Partition


class Trimmer:
    """Trims the partitions whose lease it holds or can take; others do the rest."""

    def __init__(self, counters: Counters) -> None:
        self._token = secrets.token_hex(16)
        self._counters = counters

    async def trim(self, link: Link, log: AppLog, partition: Partition) -> int:
        """One pass: mark the time if one is due, then trim page by page; returns the entries trimmed.

        What is kept: all since the newest mark that is older than ``log.retention``, and ``log.keep`` entries.
        """
        keys = parts(partition, "epochs", "heads", "idem", "marks", "trimmer")
        # A retention of seconds (tests, demos) needs marks as fine.
        between = min(limits.MARK_EVERY, log.retention / 10)
        arguments = (
            self._token,
            int(limits.TRIM_LEASE * 1000),
            int(log.retention * 1000),
            log.keep,
            int(between * 1000),
            limits.TRIM_PAGE,
        )
        total = 0
        for _ in range(limits.TRIM_PAGES):
            trimmed, more = cast("list[int]", await link.run(TRIM, keys, *arguments))
            total += max(trimmed, 0)
            if not more:
                break
        self._counters.trimmed += total
        return total

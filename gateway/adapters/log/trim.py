"""What is old enough goes: a page per call, with the heads and keys that pointed to it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import cast

from gateway import limits
from gateway.adapters.log.keys import AppLog, Counters, group_part, part, parts
from gateway.adapters.log.link import TRIM, Link
from gateway.core.event import Partition

_logger = logging.getLogger(__name__)

#: What ``trim.lua`` says when a group came or went since it was told their names.
_OTHER_GROUPS = -2


class Trimmer:
    """Trims the partitions whose lease it holds or can take; others do the rest."""

    def __init__(self, counters: Counters) -> None:
        self._token = secrets.token_hex(16)
        self._counters = counters

    async def trim(self, link: Link, log: AppLog, partition: Partition) -> int:
        """One pass: mark the time if one is due, then trim page by page; returns the entries trimmed.

        What is kept: all since the newest mark that is older than ``log.retention``, ``log.keep`` entries, and, of
        the newest ``log.unfinished``, what a group has not finished. Older unfinished ones become its dead letters.
        """
        groups = await self._groups(link, partition)
        # A retention of seconds (tests, demos) needs marks as fine.
        between = min(limits.MARK_EVERY, log.retention / 10)
        settings = (
            self._token,
            int(limits.TRIM_LEASE * 1000),
            int(log.retention * 1000),
            log.keep,
            int(between * 1000),
            limits.TRIM_PAGE,
            log.unfinished,
            limits.DEAD_KEPT,
        )
        total = 0
        for _ in range(limits.TRIM_PAGES):
            reply = await link.run(TRIM, _keys(partition, groups), *settings, *groups)
            trimmed, more, letters = cast("list[int]", reply)
            total += max(trimmed, 0)
            self._overtaken(partition, letters)
            if trimmed == _OTHER_GROUPS:
                groups = await self._groups(link, partition)
            elif not more:
                break
        self._counters.trimmed += total
        return total

    async def _groups(self, link: Link, partition: Partition) -> list[str]:
        names = cast("list[bytes]", await link.ask("SMEMBERS", part(partition, "groups")))
        return [name.decode() for name in names]

    def _overtaken(self, partition: Partition, letters: int) -> None:
        if letters:
            self._counters.overtaken += letters
            _logger.error(
                "trimming %s made dead letters of %d entries that a group had not finished", partition, letters
            )


def _keys(partition: Partition, groups: Sequence[str]) -> tuple[str, ...]:
    names = ("epochs", "heads", "idem", "marks", "trimmer", "groups", "dead")
    of_groups = (group_part(partition, group, name) for group in groups for name in ("", "parked", "crashes"))
    return (*parts(partition, *names), *of_groups)

"""The operators' view of services: how far each is, and a word to let one rest."""

from __future__ import annotations

import logging

from gateway.adapters.log import GroupState, Log
from gateway.edge.desk import Desk
from gateway.errors import GatewayError, NotAvailable

_audit = logging.getLogger("gateway.audit")


class Groups:
    """See ``adapters/http_groups``; who may is the desk's decision."""

    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk = desk
        self._log = log

    def allows(self, origin: str | None, host: str | None) -> bool:
        return self._desk.allows(origin, host)

    def refused(self, error: GatewayError) -> None:
        self._desk.refused(error)

    async def states(self, token: str, whence: str) -> list[GroupState]:
        self._desk.allowed(token, whence, "services", "list")
        return await self._log.groups.states(self._log.partitions())

    async def pause(self, token: str, whence: str, group: str, *, paused: bool) -> list[str]:
        verb = "pause" if paused else "resume"
        who = self._desk.allowed(token, whence, "services", verb)
        begun = await self._log.groups.begun(self._log.partitions(), group)
        if not begun:
            raise NotAvailable(f"no group {group[:80]!r} has begun", "see GET /groups")
        change = self._log.groups.pause if paused else self._log.groups.resume
        for partition in begun:
            await change(partition, group)
        _audit.info("%s: %s %s in %d partitions", who, verb, group, len(begun))
        return begun

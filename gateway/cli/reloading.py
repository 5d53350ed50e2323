"""What an operator declares, read again by a running process on SIGHUP: taken in whole, or refused whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.adapters.log import Log
from gateway.adapters.metrics import Metrics
from gateway.cli.configuration import Configuration, gather
from gateway.errors import GatewayError, Misconfigured

_log = logging.getLogger("gateway.process")
_audit = logging.getLogger("gateway.audit")

#: What a running process takes in: the rest of the file is for its next start.
_LIVE = ("topics", "mqtt.map")


class Reload:
    """The configuration in force. ``declared`` and ``topic_map`` of it are those of the process, and become others."""

    def __init__(self, found: Configuration, config: Path | None) -> None:
        """``config``: the file that was named, if one was."""
        self.found = found
        #: Set by SIGHUP; an edit between the start and `watching` is so not lost.
        self.asked = asyncio.Event()
        #: Why what is in the file now is not in force; empty where it is, as far as anybody asked.
        self.why = ""
        self.loads = self.refusals = 0
        self._config = config
        # `gateway up` adds to its own what its children are to know.
        self._env = dict(os.environ)

    def export(self, metrics: Metrics) -> None:
        """Tell in ``metrics`` whether the file is in force."""
        metrics.counter("gateway_configuration_loads", "Configurations taken in while it runs", lambda: self.loads)
        metrics.counter("gateway_configuration_refusals", "Configurations refused while it runs", lambda: self.refusals)
        metrics.gauge("gateway_configuration_refused", "1: the newest was refused", lambda: float(bool(self.why)))

    @asynccontextmanager
    async def watching(self, log: Log, apply: Callable[[Configuration], Awaitable[str]]) -> AsyncIterator[None]:
        """Take in what is asked for meanwhile. ``apply`` puts it in force, all of it or nothing, and says what it did.

        It may raise :class:`GatewayError`: then the old one is in force.
        """
        _audit.info("start: %s in force: %s", self.found.path or "no file", _size(self.found))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(log, apply), name="reload")
            yield
            watching.cancel()

    async def _watch(self, log: Log, apply: Callable[[Configuration], Awaitable[str]]) -> None:
        while True:
            await self.asked.wait()
            self.asked.clear()
            try:
                new = self.read()
                await log.adopt(new.logs, new.settings.gateway.partitions, new.keys)
                self._opened(new)
                did = await apply(new)
            except GatewayError as error:
                self.refuse(error)
            else:
                self.take(new, did)

    def read(self) -> Configuration:
        """Return what is declared now; raises :class:`Misconfigured`, also for what only a new start can change."""
        new = gather(self._config, self._env)
        problems = list(fixed(self.found, new))
        if problems:
            raise Misconfigured("\n".join(problems), "restart the gateway's processes for it; nothing was applied")
        return new

    def refuse(self, error: GatewayError) -> None:
        """What was read is not in force."""
        self.why = str(error)
        self.refusals += 1
        _log.error("the configuration was refused, and the old one is in force: %s", error)
        _audit.warning("SIGHUP: %s refused", self._config or self.found.path or "the configuration")

    def take(self, new: Configuration, did: str = "") -> None:
        """What was read is in force."""
        self.why = ""
        self.loads += 1
        self._opened(new)
        old = self.found
        self.found = msgspec.structs.replace(new, declared=old.declared, topic_map=old.topic_map, logs=old.logs)
        _audit.warning("SIGHUP: %s in force: %s%s", new.path or "no file", _size(new), did and f"; {did}")

    def _opened(self, new: Configuration) -> None:
        """A log that was opened stays open, with its promise, whether what is declared for it is in force or not."""
        logs = {log.app: log for log in (*new.logs, *self.found.logs)}
        self.found = msgspec.structs.replace(self.found, logs=tuple(logs.values()))

    def standing(self, own: str = "ok") -> str:
        """Return what /readyz says of a process that is ready and says ``own`` of itself."""
        return f"{own}\nconfiguration: refused, the old one is in force: {self.why}" if self.why else own


def _size(found: Configuration) -> str:
    return f"{len(found.declared.topics)} topics, {len(found.topic_map.rules)} mapped from MQTT"


def fixed(old: Configuration, new: Configuration) -> Iterator[str]:
    """Say what differs and cannot change while the gateway runs, each with its place."""
    place = new.settings.place
    for table in ("gateway", "log", "mqtt", "edge", "tokens"):
        before, after = getattr(old.settings, table), getattr(new.settings, table)
        for key in before.__struct_fields__:
            name = f"{table}.{key}"
            if name not in _LIVE and getattr(before, key) != getattr(after, key):
                yield place.say(name, "changed, and is read at the start alone")
    if old.settings.services != new.settings.services:
        yield place.say("services", "changed, and is read at the start alone")
    opened = {log.app: log for log in old.logs}
    for log in new.logs:
        if opened.get(log.app, log) != log:
            yield place.say(f"apps.{log.app}", "promises something else, and a log is opened with its promise")
    for group, service in new.services.items():
        if group in old.services and service.partitions(new.declared) != old.services[group].partitions(old.declared):
            yield place.say("topics", f"puts what the service {group!r} takes elsewhere, and its workers lease by that")

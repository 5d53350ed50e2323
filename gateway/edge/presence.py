"""Who watches which topic, as one edge tells the log and hears from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import Change, Moved
from gateway.adapters.log import Presence as Told
from gateway.core.access import ANONYMOUS, KINDS, Principal
from gateway.core.declared import Declared, Found
from gateway.core.event import Partition
from gateway.core.fanout import Queue
from gateway.core.topic import is_filter
from gateway.core.wire import ClientInfo, Codec
from gateway.errors import GatewayError, NotAvailable, Unavailable

_log = logging.getLogger("gateway.edge")


class Watcher(Protocol):
    """A client that wants to hear who comes and leaves."""

    @property
    def codec(self) -> Codec:
        """The form in which it hears."""
        ...

    @property
    def queue(self) -> Queue:
        """Where frames wait for it."""
        ...


class _Place:
    """What this edge knows of one partition."""

    def __init__(self) -> None:
        #: (topic, client) of this edge → its user.
        self.here: dict[tuple[str, str], str] = {}
        #: Not told yet, oldest first.
        self.untold: list[Change] = []
        #: When it is to be told next, by the loop's clock.
        self.due = 0.0


class Presence:
    """Tells the log who comes and goes here, renews the lease of this edge, and passes on who moved anywhere."""

    def __init__(self, told: Told, declared: Declared, refused: Callable[[int], None]) -> None:
        self._told = told
        self._declared = declared
        #: Told how many clients were too many for their topics.
        self._refused = refused
        #: The lease's name: a new process is a new edge.
        self.edge = new_id()
        self._places: dict[Partition, _Place] = {}
        self._watching: dict[str, dict[Watcher, None]] = {}
        self._news = asyncio.Event()

    # --- clients ---

    def enter(self, met: list[Found], topic: str, client: str, who: Principal) -> None:
        """A client of ours subscribed to ``topic``; filters have no presence."""
        if is_filter(topic) or not met[0].topic.presence:
            return
        place = self._place(met[0].partition)
        if (topic, client) not in place.here:
            place.here[topic, client] = user_of(who)
            self._change(place, Change("enter", topic, client, user_of(who)))

    def leave(self, topic: str, client: str, *, lost: bool) -> None:
        """It unsubscribed; or its subscription was ``lost`` and it may come back."""
        for place in self._places.values():
            user = place.here.pop((topic, client), None)
            if user is not None:
                self._change(place, Change("lost" if lost else "leave", topic, client, user))

    def watch(self, met: list[Found], topic: str, watcher: Watcher) -> None:
        """Let ``watcher`` hear who comes to ``topic`` and who leaves."""
        self._watching.setdefault(topic, {})[watcher] = None
        self._place(met[0].partition)  # edges that died are let go by whoever still looks

    def unwatch(self, topic: str, watcher: Watcher) -> None:
        watchers = self._watching.get(topic, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._watching.pop(topic, None)

    def hear(self, moved: Moved) -> None:
        """The log says that somebody came, or left."""
        frames: dict[str, bytes] = {}
        info = ClientInfo(moved.user, moved.client)
        for watcher in list(self._watching.get(moved.topic, ())):
            codec = watcher.codec
            if codec.NAME not in frames:
                frames[codec.NAME] = codec.frame(codec.push_moved(moved.topic, moved.what, info))
            watcher.queue.share([watcher.queue], frames[codec.NAME])

    # --- who is there ---

    async def there(self, who: Principal, topic: str) -> dict[str, ClientInfo]:
        """Return who is there, by client id; raises what reading does, and :class:`NotAvailable`."""
        (found, *_) = self._declared.readable(who, topic)
        self.check([found], topic)
        clients = await self._told.there(found.partition, topic)
        return {client: ClientInfo(user, client) for client, user in clients}

    def check(self, met: list[Found], topic: str) -> None:
        """Raise :class:`NotAvailable` where ``topic`` has no presence."""
        if is_filter(topic) or not met[0].topic.presence:
            raise NotAvailable(f"{topic!r} has no presence", "leave out join_leave; or declare it: presence = true")

    # --- telling the log ---

    async def run(self) -> None:
        """Tell what changed at once, and that this edge lives every ``limits.PRESENCE_BEAT``: until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(loop.time())):
                    await self._news.wait()
            self._news.clear()
            for partition, place in list(self._places.items()):
                if place.due <= loop.time():
                    await self._tell(partition, place, loop.time())

    def _pause(self, now: float) -> float:
        return max(0.0, min((place.due for place in self._places.values()), default=now + limits.PRESENCE_BEAT) - now)

    async def end(self) -> None:
        """Tell what is untold: an edge that goes down takes nobody with it who is back elsewhere in time."""
        for partition, place in list(self._places.items()):
            while place.untold and await self._tell(partition, place, 0.0):
                pass

    async def _tell(self, partition: Partition, place: _Place, now: float) -> bool:
        """Tell one page of what is untold, if only that we live; return False where the log server is away."""
        page = place.untold[: limits.PRESENCE_CHANGES]
        try:
            there = await self._told.tell(partition, self.edge, page)
        except GatewayError as e:
            if not isinstance(e, Unavailable):
                _log.error("presence of %s cannot be told: %s", partition, e)
            # The same twice is one, so what may have been done is told again.
            place.due = now + limits.LOG_BACKOFF[1]
            return False
        del place.untold[: len(page)]
        self._refused(there.refused)
        if not there.known:
            # New, or the lease ran out while we slept, or the server lost its memory: everybody, again.
            place.untold += [Change("enter", topic, client, user) for (topic, client), user in place.here.items()]
        place.due = now if place.untold else now + limits.PRESENCE_BEAT
        if not (there.left or place.here or place.untold or self._watching):
            del self._places[partition]
        return True

    def _place(self, partition: Partition) -> _Place:
        return self._places.setdefault(partition, _Place())

    def _change(self, place: _Place, change: Change) -> None:
        place.untold.append(change)
        place.due = 0.0
        self._news.set()


def user_of(who: Principal) -> str:
    """Return what SDKs are shown as the user: a user's own name, else its whole principal; empty for nobody."""
    if who.kind == "anonymous":
        return ""
    # ``operator:root`` may also be what a user calls himself.
    return who.name if who.kind == "user" and ":" not in who.name else str(who)


def principal_of(user: str) -> Principal:
    """Return who SDKs are shown as ``user``: the other way round."""
    kind, colon, name = user.partition(":")
    if colon and kind in KINDS:
        return Principal(kind, name)
    return Principal("user", user) if user else ANONYMOUS

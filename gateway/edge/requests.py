"""Requests that wait for a service: each listened for before its event is appended, and answered by its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import Log, Reply, Request
from gateway.core.access import Principal
from gateway.core.delivery import TOLD
from gateway.core.event import ASKED, Appended, Partition, Publication
from gateway.edge.publisher import Publisher
from gateway.errors import Busy, NoReply, Refused, RequestFailed, RequestRejected, Unavailable


class Requests:
    """The requests of one edge's clients. One reader hears of every reply while somebody waits."""

    def __init__(
        self,
        publisher: Publisher,
        log: Log,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._publisher, self._log, self._spawn = publisher, log, spawn
        self._waiting: dict[Request, list[asyncio.Future[Reply | None]]] = {}
        self._count = 0
        self._reader: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ended = False

    def __len__(self) -> int:
        return self._count

    async def ask(self, who: Principal, asked: Publication, within: float) -> tuple[Appended, bytes]:
        """Publish ``asked`` and return where it stands and the JSON that its service answered, ``within`` seconds.

        Asked again with its idempotency key, at this edge or another, it is not published again: the reply that is
        stored is returned, or waited for. Raises what publishing does (nothing is published then);
        :class:`RequestRejected`, :class:`RequestFailed` as the service answered; :class:`NoReply` (it is published);
        :class:`Busy` beyond ``limits.REQUESTS``. Cancelled, it waits no more; the event may be published.
        """
        found = self._publisher.declared.writable(who, asked.topic)
        if found.topic.ephemeral:
            raise Refused(f"{asked.topic!r} is not kept, so no service hears it", "publish it without waiting")
        if asked.id:
            # Replies are found by it: who named another's event would be given another's reply.
            raise Refused("a request does not choose its event's id", "send an idempotency key instead")
        until = asyncio.get_running_loop().time() + within
        asked = msgspec.structs.replace(asked, id=new_id())
        request, reply = (found.partition, asked.id), None
        with self._registered(request) as told:
            stored = await self._publisher.publish(who, asked, ASKED)
            if stored.id == asked.id:
                reply = await self._told(request, told, until, look=False)
        if stored.id != asked.id:
            request = (found.partition, stored.id)
            with self._registered(request) as told:
                reply = await self._told(request, told, until, look=True)
        if reply is None:
            raise self._unanswered(asked, stored, within)
        return stored, _good(reply, stored)

    def end(self) -> None:
        """The edge goes down: who waits is told so, and nobody else may."""
        self._ended = True
        if self._idle is not None:
            self._idle.cancel()
        for waiting in self._waiting.values():
            for told in waiting:
                if not told.done():
                    told.set_result(None)

    async def _told(
        self, request: Request, told: asyncio.Future[Reply | None], until: float, *, look: bool
    ) -> Reply | None:
        if look:
            until = max(until, asyncio.get_running_loop().time() + limits.LOOK_WITHIN)
        try:
            async with asyncio.timeout_at(until):
                if look:
                    await self._look([request])
                return await told
        except TimeoutError:
            return None

    def _unanswered(self, asked: Publication, stored: Appended, within: float) -> NoReply:
        why = "this edge is going down" if self._ended else f"no service answered within {within:g} s"
        again = "ask again with the same idempotency key, and it is not done twice"
        if not asked.idempotency:
            again = "send an idempotency key, and you can ask again without its being done twice"
        return NoReply(
            f"{why}; the request is taken: event {stored.id} at {stored.position} of {asked.topic!r}",
            f"{again}; if that never helps, no service handles this topic, or its first request did not wait",
            stored.id,
        )

    # --- who waits ---

    @contextmanager
    def _registered(self, request: Request) -> Iterator[asyncio.Future[Reply | None]]:
        if self._ended:
            raise Unavailable("this edge is going down", "ask again: another one is up")
        if self._count >= limits.REQUESTS:
            raise Busy(f"{limits.REQUESTS} requests wait for a reply at this edge", "ask again later")
        told: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request, []).append(told)
        self._count += 1
        self._listen()
        try:
            yield told
        finally:
            self._waiting[request].remove(told)
            if not self._waiting[request]:
                del self._waiting[request]
            self._count -= 1
            if not self._count and not self._ended:
                self._idle = asyncio.get_running_loop().call_later(limits.REPLIES_IDLE, self._rest)

    def _listen(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._reader is None or self._reader.done():
            self._reader = self._spawn(self._read(), "replies")

    def _rest(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _read(self) -> None:
        tail = self._log.replies.tail()
        try:
            async for news in tail:
                # A new connection, or a hole: what was announced meanwhile is stored.
                await self._look(list(self._waiting) if news.lost else news.requests)
        finally:
            await tail.close()

    async def _look(self, requests: Sequence[Request]) -> None:
        """Tell who waits for ``requests`` what is stored; a log server that is away is waited for, by itself."""
        try:
            await self._tell(requests)
        except Unavailable:
            where: dict[Partition, list[Request]] = {}
            for request in requests:
                where.setdefault(request[0], []).append(request)
            for some in where.values():
                self._spawn(self._look_on(some), "replies that wait")

    async def _look_on(self, requests: Sequence[Request]) -> None:
        while any(request in self._waiting for request in requests):
            with suppress(Unavailable):
                await self._tell(requests)
                return
            await asyncio.sleep(limits.LOG_BACKOFF[1])

    async def _tell(self, requests: Sequence[Request]) -> None:
        left = [request for request in requests if request in self._waiting]
        for start in range(0, len(left), limits.LOG_PAGE):
            page = left[start : start + limits.LOG_PAGE]
            for request, reply in zip(page, await self._log.replies.stored_many(page), strict=True):
                for told in self._waiting.get(request, ()) if reply is not None else ():
                    if not told.done():
                        told.set_result(reply)


def _good(reply: Reply, stored: Appended) -> bytes:
    """Return the JSON of ``reply``; raises what it says."""
    if not reply.code:
        return reply.data
    if reply.code in TOLD:
        raise RequestRejected(
            f"{reply.code}: {reply.error}", "send it anew, mended, with another idempotency key", stored.id, reply.code
        )
    raise RequestFailed(
        f"the service could not do it: {reply.code}",
        f"its operator finds event {stored.id} among the dead letters, and can replay it",
        stored.id,
        reply.code,
    )

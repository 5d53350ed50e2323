"""Surveys: one question to every edge that lives, and what each of the others answers within a moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from gateway import limits
from gateway.adapters.http_api import Node
from gateway.adapters.identity import new_id
from gateway.adapters.log import Notice
from gateway.edge.shared import Shared
from gateway.errors import Busy, GatewayError

_log = logging.getLogger("gateway.edge")


class _Survey(msgspec.Struct, frozen=True):
    """The question, as edges are told of it."""

    id: str
    #: The edge that asks.
    by: str
    #: JSON.
    asked: msgspec.Raw


class Surveying:
    """Asks the others, and answers them."""

    def __init__(self, edge: Shared, nodes: Callable[[], Awaitable[list[Node]]]) -> None:
        """``nodes`` returns the edges that live."""
        self._edge, self._nodes = edge, nodes
        self._asking = self._answering = 0

    def answer(self, kind: str, said: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Let this edge answer questions of ``kind`` by what ``said`` returns; both are JSON."""
        self._edge.revocations.listeners[kind] = lambda data: self._hear(data, said)

    async def ask(self, kind: str, asked: bytes) -> dict[str, bytes | None]:
        """Return what each of the others says, by its name; None for who says nothing in time.

        Raises :class:`Busy` beyond ``limits.SURVEYS`` at a time, :class:`Unavailable` and :class:`StorageFull`.
        """
        if self._asking >= limits.SURVEYS:
            raise Busy(f"{limits.SURVEYS} such questions are under way here", "let one of them end")
        self._asking += 1
        try:
            own = self._edge.presence.edge
            names = {node.uid: node.name for node in await self._nodes() if node.uid != own}
            return await self._heard(kind, asked, names) if names else {}
        finally:
            self._asking -= 1

    async def _heard(self, kind: str, asked: bytes, names: dict[str, str]) -> dict[str, bytes | None]:
        survey, log, loop = new_id(), self._edge.log, self._edge.loop
        until = loop.time() + limits.SURVEY_WITHIN
        question = _Survey(survey, self._edge.presence.edge, msgspec.Raw(asked))
        await log.control.announce(Notice(kind, msgspec.json.encode(question)))
        said: dict[str, bytes | None] = dict.fromkeys(names.values())
        silent = list(names)
        while silent:
            late = loop.time() >= until
            for edge, word in zip(silent, await log.surveys.take(survey, silent), strict=True):
                said[names[edge]] = word
            silent = [edge for edge in silent if said[names[edge]] is None]
            if late:
                break
            await asyncio.sleep(limits.SURVEY_LOOK)
        return said

    def _hear(self, data: bytes, said: Callable[[bytes], Awaitable[bytes]]) -> None:
        asked = msgspec.json.decode(data, type=_Survey)
        if asked.by != self._edge.presence.edge and self._answering < limits.SURVEY_ANSWERS:
            # Counted here: who was away reads many at once, and none of the tasks has begun.
            self._answering += 1
            self._edge.spawn(self._answer(asked, said), f"survey-{asked.id}")

    async def _answer(self, asked: _Survey, said: Callable[[bytes], Awaitable[bytes]]) -> None:
        try:
            word = await said(bytes(asked.asked))
            await self._edge.log.surveys.answer(asked.id, self._edge.presence.edge, word)
        except GatewayError as e:
            _log.info("this edge could not answer another: %s", e)  # it is named as missing
        finally:
            self._answering -= 1

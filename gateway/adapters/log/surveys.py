"""Surveys: what the edges answer when one of them asks all, kept until it is fetched and not for long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from gateway import limits
from gateway.adapters.log.link import Link, good
from gateway.adapters.log.resp import pack


class Surveys:
    """The surveys of one gateway. `Log.surveys` is one; its methods raise `Unavailable` while the server is away.

    The question goes over the control stream; the answers do not, for every edge would have to read them.
    """

    def __init__(self, link: Link, gateway: str) -> None:
        self._link = link
        self._gateway = gateway

    async def answer(self, survey: str, edge: str, word: bytes) -> None:
        """Keep what ``edge`` says for `limits.SURVEY_KEPT`."""
        await self._link.ask("SET", self._key(survey, edge), word, "PX", int(limits.SURVEY_KEPT * 1000))

    async def take(self, survey: str, edges: Sequence[str]) -> list[bytes | None]:
        """Return what each of ``edges`` said, once; None where it has said nothing."""
        found = await self._link.call(*(pack("GETDEL", self._key(survey, edge)) for edge in edges))
        return [cast("bytes | None", good(one)) for one in found]

    def _key(self, survey: str, edge: str) -> str:
        return f"{{{self._gateway}}}:survey:{survey}:{edge}"

"""The matrix of rights, by ear: SSE streams, by token and by ticket, judged by the events that come out of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from urllib.parse import quote

import httpx

from gateway.adapters.log import Log
from gateway.core.declared import Declared
from gateway.edge.process import Edge
from tests.contracts.rights_matrix import Matrix, headers, seed, some_at_a_time
from tests.contracts.rights_oracle import TOPICS, Who, allowed, filter_allowed, levels_let

SSE, SSE_EVENTS, SSE_WILDCARD, BY_WILDCARD = "SSE", "SSE events", "SSE wildcard", "SSE events by wildcard"
TICKET, REDEEMED, BY_TICKET = "ticket", "ticket redeemed", "events by ticket"
_AT_A_TIME = 6


class Ear:
    """One open stream: whose, of what, and the topics of the events that came out of it."""

    def __init__(self, way: str, who: Who, filter: str, response: httpx.Response) -> None:
        self.way, self.who, self.filter = way, who, filter
        self._blocks = response.aiter_bytes()
        self._came = b""

    def topics(self, word: str) -> set[str]:
        found = [json.loads(line[6:]) for line in self._came.split(b"\n")[:-1] if line.startswith(b"data: {")]
        return {one["tags"]["topic"] for one in found if one.get("data") == word}

    async def joined(self) -> None:
        """Read until it says where it stands: from here on, what comes is live."""
        async with asyncio.timeout(60):
            while b"\nid: " not in self._came:
                self._came += await anext(self._blocks)

    async def hear(self, word: str) -> None:
        """Read until every topic of the filter was heard; who never gets one of them is judged by what came."""
        wanted = {topic for topic in TOPICS if levels_let(self.filter, topic)}
        try:
            async with asyncio.timeout(30):
                while not wanted <= self.topics(word):
                    self._came += await anext(self._blocks)
        except (TimeoutError, StopAsyncIteration):
            return


async def hearing(
    matrix: Matrix,
    edge: Edge,
    log: Log,
    declared: Declared,
    principals: Sequence[Who],
    topics: Sequence[str],
    filters: Sequence[str],
    redeem: Sequence[Who],
) -> None:
    """Open everything as everybody, publish to every topic, and judge what each stream said; ``redeem`` use tickets."""
    # Some at a time: each stream is two sockets of this process, which may have 1,024 files.
    for n in range(0, len(principals), _AT_A_TIME):
        some = principals[n : n + _AT_A_TIME]
        await _hearing(matrix, edge, log, declared, some, topics, filters, redeem, f"heard-{n}")


async def _hearing(
    matrix: Matrix,
    edge: Edge,
    log: Log,
    declared: Declared,
    principals: Sequence[Who],
    topics: Sequence[str],
    filters: Sequence[str],
    redeem: Sequence[Who],
    word: str,
) -> None:
    ears: list[Ear] = []

    async def listen(way: str, http: httpx.AsyncClient, who: Who, filter: str, ticket: str = "") -> bool:
        asked = http.build_request("GET", f"/topics/{quote(filter, safe='')}/events")
        if ticket:
            asked.url = asked.url.copy_merge_params({"ticket": ticket})
            asked.headers.pop("authorization", None)  # a ticket comes alone
        response = await http.send(asked, stream=True)
        stack.push_async_callback(response.aclose)
        assert response.status_code in (200, 403), response.status_code
        if response.status_code == 200:
            ear = Ear(way, who, filter, response)
            await ear.joined()
            ears.append(ear)
        return response.status_code == 200

    async def exactly(http: httpx.AsyncClient, who: Who, topic: str) -> None:
        expected = allowed(who, topic, 0)
        matrix.cell(SSE, who, topic, await listen(SSE_EVENTS, http, who, topic), expected)
        answer = await http.post("/tickets", json={"filter": topic})
        assert answer.status_code in (201, 403, 429), answer.text  # an edge gives so many a second
        matrix.cell(TICKET, who, topic, answer.status_code != 403, expected)
        if answer.status_code == 201 and who in redeem:
            matrix.cell(
                REDEEMED, who, topic, await listen(BY_TICKET, http, who, topic, answer.json()["ticket"]), expected
            )

    async def widely(http: httpx.AsyncClient, who: Who, filter: str) -> None:
        matrix.cell(
            SSE_WILDCARD, who, filter, await listen(BY_WILDCARD, http, who, filter), filter_allowed(who, filter)
        )

    async with AsyncExitStack() as stack:
        work = []
        for who in principals:
            http = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}",
                headers=headers(who),
                timeout=60,
                limits=httpx.Limits(max_connections=None),
            )
            await stack.enter_async_context(http)
            work += [exactly(http, who, topic) for topic in topics] + [widely(http, who, filter) for filter in filters]
        await some_at_a_time(work)
        await seed(log, declared, word)
        await asyncio.gather(*(ear.hear(word) for ear in ears))
        for ear in ears:
            heard = ear.topics(word)
            for topic in TOPICS:
                if levels_let(ear.filter, topic) or topic in heard:
                    matrix.cell(ear.way, ear.who, topic, topic in heard, allowed(ear.who, topic, 0))

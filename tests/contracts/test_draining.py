"""An edge that ends: its clients are told to come back a slice at a time, and nobody new is taken meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
import websockets

from gateway import limits
from tests.contracts.sockets import Socket, socket
from tests.gateways import Running, running_edge

CROWD, SLICES = 207, 20


async def test_a_crowd_is_told_to_come_back_a_slice_at_a_time(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_WITHIN", 4.0)
    pause = limits.DRAIN_WITHIN / SLICES / 2
    async with running_edge(log_url) as edge, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(socket(edge)) for _ in range(CROWD)]
        clock, told = asyncio.get_running_loop().time, list[float]()

        async def leaves(one: Socket) -> int:
            code = await one.ended()
            told.append(clock())
            return code

        leaving = asyncio.gather(*(leaves(one) for one in crowd))
        began = clock()
        edge.stop.set()
        refused = 0
        while not leaving.done():
            refused += await turned_away(edge)
        assert set(await leaving) == {3001}
        assert refused, "somebody came while they left"
    # A slow machine tells late, never early: the nth to hear it cannot have heard it before his slice's turn.
    early = [n for n, at in enumerate(told) if at - began < pause * 0.99 * (n // (CROWD / SLICES + 1))]
    assert early == []


async def turned_away(edge: Running) -> bool:
    """Come as a new client, and be let in by no means; was it the edge's own answer?"""
    try:
        async with websockets.connect(edge.ws, compression=None):
            pytest.fail("an edge that ends took a new client")
    except websockets.InvalidStatus as answer:
        return answer.response.status_code == 503
    except OSError:  # every client has been told: the door is shut
        return False

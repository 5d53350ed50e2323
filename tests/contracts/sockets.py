"""A WebSocket without an SDK: what a test says, to the byte, and what it hears."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from tests.gateways import SECRET, Running, token

ROOM = "rooms/1/messages"

Reply = dict[str, Any]


class Socket:
    """A WebSocket without an SDK: frames as they are."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        #: Objects of all frames so far that were not yet taken.
        self._objects: list[Reply] = []
        self.frames = 0

    async def say(self, frame: str | bytes | dict[str, Any]) -> None:
        await self.connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def hear(self) -> Reply:
        """The next object that is not a ping."""
        async with asyncio.timeout(20):
            while not self._objects:
                text = await self.connection.recv()
                assert isinstance(text, str)
                self.frames += 1
                self._objects += [one for line in text.split("\n") if (one := json.loads(line))]
        return self._objects.pop(0)

    async def ask(self, command: dict[str, Any]) -> Reply:
        await self.say(command)
        return await self.hear()

    async def ended(self) -> int:
        """Read on to the close frame and return its code."""
        with pytest.raises(websockets.ConnectionClosed) as closed:  # noqa: PT012 - what comes before does not matter
            async with asyncio.timeout(20):
                while True:
                    await self.connection.recv()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


@asynccontextmanager
async def socket(edge: Running, *, connected: bool = True, **options: Any) -> AsyncIterator[Socket]:
    async with websockets.connect(edge.ws, compression=None, max_size=None, **options) as connection:
        one = Socket(connection)
        if connected:
            reply = await one.ask({"id": 1, "connect": {"token": token()}})
            assert reply["id"] == 1
        yield one


def command(id: int, method: str, /, **params: Any) -> dict[str, Any]:
    return {"id": id, method: params}


def expired_token() -> str:
    return issue(SECRET, Principal("user", "alice"), 60, time.time() - 3_600)

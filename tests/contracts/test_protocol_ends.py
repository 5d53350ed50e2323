"""What ends a WebSocket connection, and by which code: an SDK decides by it whether to come back. And the handshake."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from typing import Any

import pytest

from gateway import limits
from gateway.edge.process import WEBSOCKET_PATH
from tests.contracts.sockets import ROOM, command, expired_token, socket
from tests.gateways import Running, running_edge, token

# --- what ends the connection ---

CONNECT: dict[str, Any] = {"id": 1, "connect": {"token": "GOOD"}}

#: name: (frames, first of them the first of the connection, close code)
ENDS: dict[str, tuple[list[str | bytes | dict[str, Any]], int]] = {
    "a second connect": ([CONNECT, {"id": 2, "connect": {"token": "GOOD"}}], 3501),
    "no connect first": ([command(1, "subscribe", channel=ROOM)], 3501),
    "a pong before anything": (["{}"], 3501),
    "a pong without a ping": ([CONNECT, "{}"], 3501),
    "an empty frame": ([CONNECT, ""], 3501),
    "an empty line": ([CONNECT, '{"id":2,"rpc":{}}\n\n{"id":3,"rpc":{}}'], 3501),
    "no JSON": ([CONNECT, "hello"], 3501),
    "no number": ([CONNECT, '{"id":2,"publish":{"channel":"try/a","data":NaN}}'], 3501),
    "a lone surrogate": ([CONNECT, '{"id":2,"publish":{"channel":"try/a","data":"\\ud800"}}'], 3501),
    "no object": ([CONNECT, "[1]"], 3501),
    "no id": ([CONNECT, {"publish": {"channel": ROOM, "data": 1}}], 3501),
    "a negative id": ([CONNECT, command(-1, "rpc")], 3501),
    "an id beyond 32 bits": ([CONNECT, command(2**32, "rpc")], 3501),
    "an id in quotes": ([CONNECT, {"id": "2", "rpc": {}}], 3501),
    "two methods": ([CONNECT, {"id": 2, "rpc": {}, "publish": {}}], 3501),
    "an unknown method": ([CONNECT, command(2, "levitate")], 3501),
    "a field of the wrong type": ([CONNECT, command(2, "subscribe", channel=1)], 3501),
    "twins in the envelope": ([CONNECT, '{"id":2,"id":3,"rpc":{}}'], 3501),
    "twins around a payload": (
        [
            CONNECT,
            '{"id":2,"publish":{"channel":"rooms/1/messages","channel":"try/a","data":{"a":1,"a":2}}}',
        ],
        3501,
    ),
    "two payloads": (
        [
            CONNECT,
            '{"id":2,"publish":{"channel":"rooms/1/messages","data":{"a":1,"a":2},"data":{"a":1,"a":2}}}',
        ],
        3501,
    ),
    "a bottomless payload": (
        [
            CONNECT,
            '{"id":2,"publish":{"channel":"try/a","data":' + "[" * 30_000 + "]" * 30_000 + "}}",
        ],
        3501,
    ),
    "a message without an id, which nobody could answer": (
        [CONNECT, {"send": {"data": 1}}],
        3508,
    ),
    "a token that is none": ([command(1, "connect", token="x.y.z")], 3500),
    "a forged token": ([command(1, "connect", token="FORGED")], 3500),
    "no token": ([command(1, "connect")], 3500),
    "a binary frame": ([CONNECT, b"\x03\x08\x01\x22"], 3506),
    "a binary frame first": ([b"\x03\x08\x01\x22"], 3506),
    "a message too large": ([CONNECT, "x" * (limits.MESSAGE_BYTES + 1)], 1009),
}


@pytest.mark.parametrize("name", ENDS)
async def test_ends_with_a_code_that_tells_an_sdk_what_to_do(edge: Running, name: str) -> None:
    frames, code = ENDS[name]
    async with socket(edge, connected=False) as one:
        for frame in frames:
            if isinstance(frame, dict) and "connect" in frame and frame["connect"]:
                given = frame["connect"]["token"]
                tokens = {"GOOD": token(), "FORGED": token()[:-4] + "AAAA"}
                await one.say({"id": frame["id"], "connect": {"token": tokens.get(given, given)}})
                if given == "GOOD" and frame["id"] == 1:
                    assert "connect" in await one.hear()
            else:
                await one.say(frame)
        assert await one.ended() == code
    # The edge is well.
    async with socket(edge) as other:
        assert "subscribe" in await other.ask(command(2, "subscribe", channel=ROOM))


async def test_text_that_is_not_utf8(edge: Running) -> None:
    async with socket(edge) as one:
        await one.connection.send(b'{"id":2,"rpc":{"method":"\xff"}}', text=True)
        assert await one.ended() == 1007


async def test_who_never_connects(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECT_WITHIN", 0.2)
    async with socket(edge, connected=False) as one:
        assert await one.ended() == 3502
    async with socket(edge, connected=False) as one:
        # An expired token stops no clock.
        await one.ask(command(1, "connect", token=expired_token()))
        assert await one.ended() == 3502


async def test_a_token_that_ends_ends_the_connection(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 0.01)
    monkeypatch.setattr(limits, "REFRESH_WITHIN", 0.0)
    monkeypatch.setattr(limits, "PONG_WITHIN", 600.0)  # a ping is out, and its answer may take longer than the token
    async with socket(edge, connected=False) as one:
        assert "connect" in await one.ask(command(1, "connect", token=token(seconds=2)))
        assert await one.ended() == 3005


async def test_pings_go_on_while_they_are_answered(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 1.0)
    monkeypatch.setattr(limits, "PONG_WITHIN", 0.9)
    async with socket(edge) as one, asyncio.timeout(20):
        for _ in range(3):
            assert await one.connection.recv() == "{}"
            await one.say("{}")
        assert await one.connection.recv() == "{}"
        assert await one.ended() == 3012, "the last was not answered"


# --- the handshake ---


async def _handshake(edge: Running, *lines: str, path: str = WEBSOCKET_PATH) -> str:
    """The status line and headers of what a handshake with ``lines`` is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{edge.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
            *lines,
        ]
        writer.write("\r\n".join((*head, "", "")).encode())
        async with asyncio.timeout(20):
            return (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Sec-WebSocket-Protocol: ",),
        ("Sec-WebSocket-Protocol: centrifuge-json",),
        ("Sec-WebSocket-Protocol: centrifuge-json, another",),
        ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",),
    ],
)
async def test_handshakes_of_every_sdk_are_taken(edge: Running, lines: tuple[str, ...]) -> None:
    answer = await _handshake(edge, *lines)
    assert answer.startswith("http/1.1 101 ")
    assert "sec-websocket-extensions" not in answer, "compression reorders an SDK's commands"


async def test_another_path(edge: Running) -> None:
    assert (await _handshake(edge, path="/elsewhere")).startswith("http/1.1 404 ")


async def test_a_foreign_page_is_refused(log_url: str) -> None:
    async with running_edge(log_url, origins=["https://ours.example"]) as edge:
        assert (await _handshake(edge, "Origin: https://evil.example")).startswith("http/1.1 403 ")
        assert (await _handshake(edge, "Origin: null")).startswith("http/1.1 403 ")
        for origin in ("https://ours.example", f"http://127.0.0.1:{edge.port}"):
            assert (await _handshake(edge, f"Origin: {origin}")).startswith("http/1.1 101 ")

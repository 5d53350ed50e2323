"""The Protobuf form on the wire: what is agreed, how frames look, and that each event is packed once for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from centrifuge.protocol import client_pb2
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from gateway import limits
from gateway.core.access import Principal
from gateway.core.event import Publication
from tests.contracts.sockets import ROOM
from tests.gateways import Running, client, running_edge, token
from tests.servers import eventually

PROTOBUF = Subprotocol("centrifuge-protobuf")
ROOT = Principal("operator", "root")


class Packed:
    """A client that packs its commands with the generated classes."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._left: list[Any] = []
        self.pings = 0

    async def say(self, *commands: dict[str, Any]) -> None:
        bodies = [client_pb2.Command(**command).SerializeToString() for command in commands]
        assert all(len(body) < 128 for body in bodies), "lengths of one byte"
        await self.connection.send(b"".join(bytes([len(body)]) + body for body in bodies))

    async def hear(self) -> Any:
        async with asyncio.timeout(20):
            while not self._left:
                data = await self.connection.recv()
                assert isinstance(data, bytes), "binary frames only"
                while data:
                    size = shift = at = 0
                    while True:
                        size |= (data[at] & 0x7F) << shift
                        shift, at = shift + 7, at + 1
                        if data[at - 1] < 0x80:
                            break
                    if size:
                        reply = client_pb2.Reply()
                        reply.ParseFromString(data[at : at + size])
                        self._left.append(reply)
                    else:
                        self.pings += 1
                        await self.connection.send(b"\x00")
                    data = data[at + size :]
        return self._left.pop(0)

    async def ask(self, **command: Any) -> Any:
        await self.say(command)
        return await self.hear()


@asynccontextmanager
async def packed(edge: Running, jwt: str) -> AsyncIterator[Packed]:
    async with websockets.connect(edge.ws, subprotocols=[PROTOBUF], compression=None) as connection:
        one = Packed(connection)
        if jwt:
            # Longer than one byte's length.
            body = client_pb2.Command(id=1, connect={"token": jwt}).SerializeToString()
            await connection.send(bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
            reply = await one.hear()
            assert (reply.id, reply.connect.ping, reply.connect.pong) == (1, 25, True)
            assert reply.connect.client
        yield one


async def test_the_subprotocol_is_agreed(edge: Running) -> None:
    for offered, agreed in (
        ([PROTOBUF], PROTOBUF),
        ([Subprotocol("other"), PROTOBUF], PROTOBUF),
        ([Subprotocol("centrifuge-json"), PROTOBUF], "centrifuge-json"),
        ([Subprotocol("other")], None),
        (None, None),
    ):
        async with websockets.connect(edge.ws, subprotocols=offered, compression=None) as connection:
            assert connection.subprotocol == agreed


@pytest.mark.parametrize(
    ("message", "code"),
    [("{}", 3506), (b"", 3501), (b"\x05\x08", 3501), (b"\x00", 3501), (b"\x02\x08\x01", 3501), (b"\x01\x80", 3501)],
)
async def test_what_ends_a_connection(edge: Running, message: str | bytes, code: int) -> None:
    async with packed(edge, token()) as one:
        await one.connection.send(message)
        await one.connection.wait_closed()
        assert one.connection.close_code == code


async def test_events_and_errors(edge: Running) -> None:
    async with packed(edge, token()) as one:
        await one.say({"id": 3, "subscribe": {"channel": ROOM}}, {"id": 4, "subscribe": {"channel": "nowhere"}})
        replies = {(reply := await one.hear()).id: reply for _ in range(2)}
        assert replies[3].subscribe.recoverable
        assert replies[3].subscribe.epoch.isdigit()
        assert replies[4].error.code == 102
        await one.say({"id": 5, "publish": {"channel": ROOM, "data": b'{"a":1}'}})
        answers = [await one.hear(), await one.hear()]
        push = next(a.push for a in answers if not a.id)
        assert push.pub.data == b'{"a":1}'
        assert push.pub.tags["topic"] == ROOM
        assert next(a for a in answers if a.id).HasField("publish")
        refused = await one.ask(id=6, publish={"channel": ROOM, "data": b"{"})
        assert refused.error.code == 107
        explained = await one.ask(id=7, rpc={"method": "explain", "data": b'{"topic":"rooms/1/messages"}'})
        assert b"may_read" in explained.rpc.data
        history = await one.ask(id=8, history={"channel": ROOM, "limit": 5})
        assert [p.data for p in history.history.publications] == [b'{"a":1}']


async def test_bytes_are_bytes(edge: Running) -> None:
    """What a client of one form publishes, those of the other read as theirs."""
    async with packed(edge, token()) as one, client(edge.ws, token()) as json:
        assert (await one.ask(id=2, subscribe={"channel": "try/1"})).HasField("subscribe")
        await json.ask("subscribe", channel="try/1")
        for data in (b"\x00\xff\n", b""):
            await one.say({"id": 3, "publish": {"channel": "try/1", "data": data}})
            pushed = next(a.push.pub for a in [await one.hear(), await one.hear()] if not a.id)
            assert pushed.data == data
            assert "encoding" not in pushed.tags
        (first, _) = await json.until(2)
        assert (first["pub"]["data"], first["pub"]["tags"]["encoding"]) == ("AP8K", "base64")


async def test_pings(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 0.2)
    monkeypatch.setattr(limits, "PONG_WITHIN", 0.1)
    async with running_edge(log_url) as edge:
        async with websockets.connect(edge.ws, subprotocols=[PROTOBUF], compression=None) as connection:
            body = client_pb2.Command(id=1, connect={"token": token()}).SerializeToString()
            await connection.send(bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body)
            await connection.recv()
            assert await connection.recv() == b"\x00"
            await connection.send(b"\x00")
            assert await connection.recv() == b"\x00"
            await connection.wait_closed()
            assert connection.close_code == 3012


async def test_each_event_is_packed_once_in_each_form(edge: Running) -> None:
    async with packed(edge, token()) as one, packed(edge, token()) as two:
        async with client(edge.ws, token()) as three, client(edge.ws, token()) as four:
            for each in (one, two):
                assert (await each.ask(id=2, subscribe={"channel": ROOM})).HasField("subscribe")
            for other in (three, four):
                await other.ask("subscribe", channel=ROOM)
            before = edge.edge.fanout.encoded
            await edge.edge.publisher.publish(ROOT, Publication(ROOM, b"1", "http"))
            for each in (one, two):
                assert (await each.hear()).push.pub.data == b"1"
            await three.until(1)
            await four.until(1)
            assert edge.edge.fanout.encoded == before + 2
            await eventually(lambda: edge.edge.fanout.offered >= 4)

"""One connection to a broker: bytes to batches of messages, acknowledgements to bytes in the order of receipt."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import mqtt5
import msgspec
from mqtt5 import DisconnectReasonCode, QoS

from gateway import limits
from gateway.errors import BadPacket, BadTopic, Busy, GatewayError, Misconfigured, TooLarge, Unavailable

_Packet = TypeVar("_Packet")
_Answer = mqtt5.SubAckPacket | mqtt5.UnsubAckPacket


class Message(msgspec.Struct, frozen=True, gc=False):
    """One PUBLISH as it came; ``connection`` counts connections, ``arrival`` the messages of one, both from 1.

    ``retain`` is true only for what the broker had kept and sent because we subscribed.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    connection: int
    arrival: int
    content_type: str | None
    response_topic: str | None
    correlation_data: bytes | None
    user_properties: Sequence[tuple[str, str]]


class Connection(asyncio.Protocol):
    """One TCP connection: bytes to batches, acknowledgements to bytes."""

    def __init__(self, number: int, receive_maximum: int, on_messages: Callable[[list[Message]], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.number = number
        self.connack: asyncio.Future[mqtt5.ConnAckPacket] = self._loop.create_future()
        #: What was asked with a packet id, beside publishing, and is not answered.
        self._asked: dict[int, asyncio.Future[_Answer]] = {}
        #: Why the connection ended; a result and not an exception, because nobody may be waiting.
        self._lost: asyncio.Future[GatewayError] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._on_messages = on_messages
        self._rest = b""
        self._reads = 0
        self._arrivals = 0
        self._window = receive_maximum
        #: More is unacknowledged than we asked for: nothing is read before it is less.
        self._paused = False
        #: (arrival, packet id) of what is not acknowledged, in order of receipt; and what was, out of order.
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._early: set[int] = set()
        self._out: list[bytes] = []
        self._last_id = 0
        self._in_flight: dict[int, asyncio.Future[int]] = {}
        self._waiting: deque[tuple[Callable[[int | None], bytes], asyncio.Future[int]]] = deque()

    @property
    def max_packet(self) -> int | None:
        return self.connack.result().max_packet_size if self.connack.done() else None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            # With Nagle on either end a command and its reply take 44 ms more.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        # Mosquitto 2.0 says nothing either when another client takes over our session.
        remedy = "it is opened again"
        if not self.connack.done():
            remedy = "if it stays so, check user name and password: some brokers close instead of refusing"
        self._end(Unavailable(f"the broker closed the connection: {error or 'end of stream'}", remedy))

    def data_received(self, data: bytes) -> None:
        self._reads += 1
        if self._rest:
            data = self._rest + data
        if self._paused:  # a read that was under way
            self._rest = data
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        view, size, at = memoryview(data), len(data), 0
        messages: list[Message] = []
        try:
            while at < size and len(self._unacknowledged) <= self._window:
                packet, length = mqtt5.read(view[at:])
                at += length
                if type(packet) is mqtt5.PublishPacket:
                    messages.append(self._message(packet))
                else:
                    self._take(packet)
        except IndexError:  # the codec's word for "more bytes are needed"
            self._check_partial(view[at:])
        except ValueError as error:
            self._fail(BadPacket(f"the broker sent a malformed packet: {error}"), DisconnectReasonCode.MALFORMED_PACKET)
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":
                raise
            # The codec panics on text that is not UTF-8 (0.8), and a panic is no Exception.
            error = BadPacket("the broker sent text that is not UTF-8")
            self._fail(error, DisconnectReasonCode.MALFORMED_PACKET)
        self._rest = data[at:]
        if len(self._unacknowledged) > self._window and self._transport is not None:
            # Closing with 0x93 (MQTT-3.3.4-9) would bring the same backlog again, and so on for ever.
            self._paused = True
            self._transport.pause_reading()
        if messages:
            self._on_messages(messages)

    def _go_on(self) -> None:
        rest, self._rest, self._paused = self._rest, b"", False
        self._parse(rest)
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- in

    def _message(self, packet: mqtt5.PublishPacket) -> Message:
        self._arrivals += 1
        packet_id = packet.packet_id or 0
        if packet_id:
            self._unacknowledged.append((self._arrivals, packet_id))
        return Message(
            packet.topic,
            packet.payload,
            int(packet.qos),
            packet.retain,
            packet.duplicate,
            packet_id,
            self.number,
            self._arrivals,
            packet.content_type,
            packet.response_topic,
            packet.correlation_data,
            packet.user_properties,
        )

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PubAckPacket(packet_id=packet_id, reason_code=code):
                future = self._in_flight.pop(packet_id, None)
                if future is not None and not future.done():
                    future.set_result(int(code))
                self._send_waiting()
            case mqtt5.ConnAckPacket() if not self.connack.done():
                self.connack.set_result(packet)
            case mqtt5.SubAckPacket() | mqtt5.UnsubAckPacket() if packet.packet_id in self._asked:
                self._asked.pop(packet.packet_id).set_result(packet)
            case mqtt5.DisconnectPacket(reason_code=DisconnectReasonCode.SESSION_TAKEN_OVER):
                # Coming back would throw the other one out, and so on for ever: the newer one stays.
                remedy = "give each bridge a client id of its own"
                self._end(Misconfigured("another client connected with our client id", remedy))
            case mqtt5.DisconnectPacket(reason_code=code):
                self._end(Unavailable(f"the broker ended the connection: {code.name}", "it is opened again"))
            case mqtt5.PingRespPacket():
                pass  # any byte proves that the broker lives
            case _:
                what = type(packet).__name__
                self._fail(BadPacket(f"the broker sent an unasked {what}"), DisconnectReasonCode.PROTOCOL_ERROR)

    def _check_partial(self, rest: memoryview) -> None:
        """A packet is incomplete: bound how much of it we will hold, and see that it is really incomplete."""
        length, at = 0, 1
        while at < len(rest):
            length |= (rest[at] & 0x7F) << 7 * (at - 1)
            at += 1
            if rest[at - 1] < 0x80:
                break
        else:
            return  # the length itself is incomplete; the codec refuses more than four bytes of it
        if at + length > limits.MQTT_PACKET_BYTES:
            error = BadPacket(f"the broker sent a packet of {at + length} bytes, above {limits.MQTT_PACKET_BYTES}")
            self._fail(error, DisconnectReasonCode.PACKET_TOO_LARGE)
        elif len(rest) >= at + length:
            self._fail(BadPacket("a packet's fields are longer than the packet"), DisconnectReasonCode.MALFORMED_PACKET)

    def ack(self, message: Message) -> None:
        waiting = self._unacknowledged
        if not waiting or not message.packet_id or message.arrival < waiting[0][0]:
            return
        self._early.add(message.arrival)
        while waiting and waiting[0][0] in self._early:
            arrival, packet_id = waiting.popleft()
            self._early.remove(arrival)
            self.send(b"\x40\x02" + packet_id.to_bytes(2, "big"))  # PUBACK, success (MQTT 5, 3.4.2.1)
            if self._paused and len(waiting) == self._window // 2:
                self._loop.call_soon(self._go_on)

    # -- out

    def send(self, packet: bytes) -> None:
        """Everything that is sent in one turn of the loop leaves in one write."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packet)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def subscribe(self, filters: Sequence[str]) -> asyncio.Future[_Answer]:
        asked = [
            mqtt5.TopicFilter(
                pattern,
                max_qos=QoS.AT_LEAST_ONCE,
                # Then RETAIN says: sent because you subscribed (MQTT-3.3.1-12, -13), so that a replay is told from a
                # live reading that a device wants kept.
                retain_as_published=False,
                retain_handling=mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
            )
            for pattern in filters
        ]
        return self._ask(lambda id: mqtt5.SubscribePacket(id, asked).write(), bool(asked))

    def unsubscribe(self, filters: Sequence[str]) -> asyncio.Future[_Answer]:
        return self._ask(lambda id: mqtt5.UnsubscribePacket(id, list(filters)).write(), bool(filters))

    def _ask(self, packet: Callable[[int], bytes], anything: bool) -> asyncio.Future[_Answer]:
        future: asyncio.Future[_Answer] = self._loop.create_future()
        if anything:
            id = self._next_id()
            self._asked[id] = future
            self.send(packet(id))
        else:
            future.set_result(mqtt5.SubAckPacket(1, []))
        return future

    def publish(self, packet: Callable[[int | None], bytes], *, acknowledged: bool) -> asyncio.Future[int]:
        if self._lost.done():  # and its owner has not heard of it yet: nobody would end this future
            raise Unavailable("the connection has ended", "try again")
        if self._transport is None or self._transport.get_write_buffer_size() > limits.MQTT_WRITE_BYTES:
            raise Busy("the broker does not read what we send", retry_after=1.0)
        future: asyncio.Future[int] = self._loop.create_future()
        try:
            size, limit = len(packet(1 if acknowledged else None)), self.max_packet
        except ValueError as error:  # wildcards, NUL, nothing at all, lone surrogates
            raise BadTopic(f"the codec refuses to publish this: {error}", "publish to a plain topic name") from error
        if limit is not None and size > limit:
            raise TooLarge(f"a packet of {size} bytes is above the broker's {limit}", "raise its max_packet_size")
        if not acknowledged:
            self.send(packet(None))
            future.set_result(0)
        elif len(self._waiting) >= limits.MQTT_WAITING_PUBLISHES:
            raise Busy("too many publishes wait for the broker", retry_after=1.0)
        else:
            self._waiting.append((packet, future))
            self._send_waiting()
        return future

    def _send_waiting(self) -> None:
        # The broker's Receive Maximum (MQTT-3.3.4-7).
        while self._waiting and len(self._in_flight) < self.connack.result().receive_max:
            packet, future = self._waiting.popleft()
            packet_id = self._next_id()
            self._in_flight[packet_id] = future
            self.send(packet(packet_id))

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._in_flight and self._last_id not in self._asked:
                return self._last_id

    # -- life and end

    async def answer(self, answer: asyncio.Future[_Packet]) -> _Packet:
        await asyncio.wait((answer, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise self._lost.result()

    async def stay(self, keep_alive: int) -> None:
        """Ping at half of the keep-alive, so that a lost one still leaves time; raises why the connection ended."""
        while True:
            await asyncio.wait((self._lost,), timeout=keep_alive / 2 or None)
            if not self._lost.done():
                reads = self._reads
                self.send(mqtt5.PingReqPacket().write())
                within = limits.MQTT_ANSWER_WITHIN
                await asyncio.wait((self._lost,), timeout=within)
                if self._reads == reads and not self._paused:
                    self._end(Unavailable(f"the broker did not answer a ping in {within} s", "it is tried again"))
            if self._lost.done():
                raise self._lost.result()

    def disconnect(self, reason: DisconnectReasonCode) -> None:
        """Send what waits and DISCONNECT, then close; the session lives on for its expiry."""
        if not self._lost.done() and self._transport is not None:
            self._out.append(mqtt5.DisconnectPacket(reason_code=reason).write())
            self._flush()
        self._end(Unavailable("we closed the connection"))

    def abort(self) -> None:
        """Close at once: neither DISCONNECT nor an acknowledgement that waits is sent."""
        self._out.clear()
        self._end(Unavailable("we gave up the connection"))
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: BadPacket, reason: DisconnectReasonCode) -> None:
        if not self._lost.done():
            self._lost.set_result(error)
            self._out.append(mqtt5.DisconnectPacket(reason_code=reason).write())
            self._flush()
        self._end(error)

    def _end(self, error: GatewayError) -> None:
        if not self._lost.done():
            self._lost.set_result(error)
        if self._transport is not None:
            self._transport.close()
        for future in (*self._in_flight.values(), *(future for _, future in self._waiting)):
            if not future.done():
                future.set_exception(
                    Unavailable("the connection ended before PUBACK", "send it again with the same id")
                )
        self._in_flight.clear()
        self._waiting.clear()

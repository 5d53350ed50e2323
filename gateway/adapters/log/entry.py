"""An event as an entry of the stream: flat fields that any reader can take, binary-safe, with a checksum."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

import msgspec

from gateway.adapters.log.resp import Reply
from gateway.core.event import Draft, Event, Meta, Partition, Position, Record

_logger = logging.getLogger(__name__)
_encode_meta = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(Meta).decode

#: Key "crc" and the mark of a 32-bit integer, MessagePack: what stands before the last four bytes of our meta.
_CRC = b"\xa3crc\xce"

Fields: TypeAlias = Sequence[bytes]


class Control(msgspec.Struct, frozen=True, gc=False):
    """An entry for readers, not for watchers: an epoch begins here."""

    at: Position


class Moved(msgspec.Struct, frozen=True, gc=False):
    """An entry of the live stream: a user came to a topic, or has left it."""

    at: Position
    what: Literal["join", "leave"]
    topic: str
    client: str
    user: str


class Corrupt(msgspec.Struct, frozen=True, gc=False):
    """An entry that must not be delivered: its checksum is wrong, or it is not ours."""

    at: Position
    reason: str


def position(text: bytes) -> Position:
    epoch, _, offset = text.partition(b"-")
    return Position(int(epoch), int(offset))


def checked(meta: Meta, topic: bytes, id: bytes, data: bytes) -> bytes:
    """``meta`` as a MessagePack map with ``crc`` (zlib.crc32 over topic, id, data) as its last entry."""
    packed = _encode_meta(meta)
    # Under 16 entries a map is one byte of length and then its entries: one more entry is an addition and an append.
    crc = zlib.crc32(data, zlib.crc32(id, zlib.crc32(topic)))
    return b"%c%b%b%b" % (packed[0] + 1, packed[1:], _CRC, crc.to_bytes(4, "big"))


def packed(draft: Draft) -> bytes:
    """The eight arguments of ``append.lua`` for one event, as RESP."""
    event = draft.event
    topic, id, data = event.topic.encode(), event.id.encode(), event.data
    meta = checked(event.meta, topic, id, data)
    key = b"" if draft.key == event.topic else draft.key.encode()
    retain = (b"R" if draft.replayed else b"r") if draft.retain else b""
    idem = body = b""
    if draft.idempotency:
        idem, body = draft.idempotency.encode(), hashlib.blake2b(data, digest_size=12).hexdigest().encode()
    return (
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
        % (
            len(topic), topic, len(id), id, len(data), data, len(meta), meta,
            len(key), key, len(retain), retain, len(idem), idem, len(body), body,
        )
    )  # fmt: skip


def weight(draft: Draft) -> int:
    """About how many bytes it takes on the way: what queues are bounded by."""
    return len(draft.event.data) + 200


def read(partition: Partition, reply: Reply) -> Record | Control | Moved | Corrupt:
    """An entry as XRANGE and XREAD give it: ``[id, [name, value, …]]``."""
    id, raw = cast("tuple[bytes, list[bytes] | None]", reply)
    at = position(id)
    fields = raw or []
    try:
        if fields[0] == b"ctl":
            return Control(at)
        if fields[0] == b"presence":
            topic, client, user = fields[3].decode(), fields[5].decode(), fields[7].decode()
            return Moved(at, "join" if fields[1] == b"join" else "leave", topic, client, user)
        # Ours have one order, so no dict is needed; another order is another writer.
        if fields[0] != b"topic" or fields[2] != b"id" or fields[4] != b"data" or fields[8] != b"meta":
            return corrupt(at, "foreign")
        event = _event(fields[1], fields[3], fields[5], fields[9])
        if event is None:
            return corrupt(at, "checksum")
        return Record(event, partition, at.epoch, at.offset, int(fields[7]))
    except (IndexError, ValueError, msgspec.MsgspecError) as error:
        return corrupt(at, f"unreadable: {error}")


def read_last(partition: Partition, topic: bytes, value: bytes) -> Record | Corrupt:
    """A last value as ``append.lua`` stores it: ``position #id #meta LF id meta data``."""
    at = Position(0, 0)
    try:
        line, _, rest = value.partition(b"\n")
        place, id_length, meta_length = line.split(b" ")
        at, split = position(place), int(id_length)
        end = split + int(meta_length)
        event = _event(topic, rest[:split], rest[end:], rest[split:end])
    except (ValueError, msgspec.MsgspecError) as error:
        return corrupt(at, f"last value unreadable: {error}")
    if event is None:
        return corrupt(at, "checksum of a last value")
    return Record(event, partition, at.epoch, at.offset)


def _event(topic: bytes, id: bytes, data: bytes, meta: bytes) -> Event | None:
    """The event, or None where the checksum is wrong."""
    if meta[-9:-4] == _CRC:
        crc = int.from_bytes(meta[-4:], "big")
    else:  # another writer may order his map otherwise
        crc = msgspec.msgpack.decode(meta, type=_Crc).crc
    if crc != zlib.crc32(data, zlib.crc32(id, zlib.crc32(topic))):
        return None
    return Event(topic.decode(), data, id.decode(), _decode_meta(meta))


class _Crc(msgspec.Struct):
    crc: int


def corrupt(at: Position, reason: str) -> Corrupt:
    """Say in the log that the entry ``at`` is not delivered, and why."""
    _logger.error("log entry %s is not delivered: %s; run: gateway doctor", at, reason)
    return Corrupt(at, reason)

"""Letters that nobody could deliver: the event as it came, why, and where it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgpack
import msgspec

from gateway import limits
from gateway.adapters.log.keys import part
from gateway.adapters.log.link import Link, good
from gateway.adapters.log.resp import Reply, pack
from gateway.core.event import Meta, Partition


class DeadLetter(msgspec.Struct, frozen=True):
    """One event that was given up, with all that is needed to mend and replay it."""

    #: A stable word: the code of the error, ``retention``, ``crash_loop``, ``lane_full``.
    reason: str
    #: A sentence for people.
    error: str
    topic: str
    data: bytes
    meta: Meta = Meta()
    producer: str = ""
    #: Milliseconds since 1970, when it was given up.
    ts: int = 0
    group: str = ""
    attempts: int = 0
    worker: str = ""
    traceback: str = ""
    #: Of the event, where it had one.
    id: str = ""
    #: Its position in the log, ``epoch-offset``, where it had one.
    at: str = ""
    #: By which its order was kept, where that is not its topic.
    key: str = ""


async def bury(link: Link, partition: Partition, letters: Sequence[DeadLetter], kept: int) -> None:
    """Append ``letters`` to ``{p}:dead`` in order; raises what refused the first of them."""
    key = part(partition, "dead")
    for start in range(0, len(letters), limits.LOG_PAGE):
        page = letters[start : start + limits.LOG_PAGE]
        for reply in await link.call(*(pack("XADD", key, "MAXLEN", "~", kept, "*", *flat(one)) for one in page)):
            good(reply)


async def dead(link: Link, partition: Partition, after: str, count: int) -> list[tuple[str, DeadLetter]]:
    start = after if after == "-" else f"({after}"
    reply = await link.ask("XRANGE", part(partition, "dead"), start, "+", "COUNT", count)
    return _letters(reply)


async def one(link: Link, partition: Partition, id: str) -> DeadLetter | None:
    found = _letters(await link.ask("XRANGE", part(partition, "dead"), id, id))
    return found[0][1] if found else None


async def drop(link: Link, partition: Partition, ids: Sequence[str]) -> int:
    """Forget letters for good; returns how many were there."""
    gone = 0
    for start in range(0, len(ids), limits.LOG_PAGE):
        gone += cast("int", await link.ask("XDEL", part(partition, "dead"), *ids[start : start + limits.LOG_PAGE]))
    return gone


def _letters(reply: Reply) -> list[tuple[str, DeadLetter]]:
    return [
        (id.decode(), _letter(dict(zip(fields[::2], fields[1::2], strict=True))))
        for id, fields in cast("list[tuple[bytes, list[bytes]]]", reply)
    ]


def flat(letter: DeadLetter) -> list[bytes | str | int]:
    """The fields of its entry, names and values."""
    fields: list[bytes | str | int] = []
    for name in letter.__struct_fields__:
        value = getattr(letter, name)
        fields += (name, _packed(value) if isinstance(value, Meta) else value)
    return fields


def _packed(meta: Meta) -> bytes:
    return bytes(msgpack.packb(msgspec.to_builtins(meta, builtin_types=(bytes,))))


def _letter(fields: Mapping[bytes, bytes]) -> DeadLetter:
    """What was stored; letters of another writer may lack fields, and their text may be no UTF-8."""

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode(errors="replace")

    def number(name: bytes) -> int:
        digits = fields.get(name, b"0")
        return int(digits) if digits.isdigit() else 0

    try:
        meta = msgspec.convert(msgpack.unpackb(fields.get(b"meta", b"\x80")), Meta)
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError):
        meta = Meta()
    return DeadLetter(
        reason=text(b"reason"),
        error=text(b"error"),
        topic=text(b"topic"),
        data=fields.get(b"data", b""),
        meta=meta,
        producer=text(b"producer"),
        ts=number(b"ts"),
        group=text(b"group"),
        attempts=number(b"attempts"),
        worker=text(b"worker"),
        traceback=text(b"traceback"),
        id=text(b"id"),
        at=text(b"at"),
        key=text(b"key"),
    )

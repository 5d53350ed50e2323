"""The WebSocket frame: what a server writes, and what it reads from a client's bytes.

RFC 6455, server side, no I/O. Section numbers below are of that RFC. No extension is
ever negotiated, so reserved bits are always a violation. `gateway.core.handshake` comes
before the first frame.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Final

import msgspec

from gateway import limits

#: Opcodes, section 5.2.
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

#: Close codes that this codec gives itself, section 7.4.1.
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005  # never on the wire: stands for a close frame without a code
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009

CONTROL_BYTES: Final = 125  # 5.5: a control frame is never longer
REASON_BYTES: Final = CONTROL_BYTES - 2  # 5.5.1: a close frame begins with its code

_FIN: Final = 0x80
_MASKED: Final = 0x80
_TEXT_IN_ONE_FRAME: Final = _FIN | TEXT
_Utf8: Final = getincrementaldecoder("utf-8")


class Message(msgspec.Struct, frozen=True, gc=False):
    """One whole message or control frame, unmasked; TEXT is known to be UTF-8."""

    opcode: int
    payload: bytes


class ProtocolError(msgspec.Struct, frozen=True, gc=False):
    """The client broke RFC 6455: send a close frame with this code and reason, then hang up.

    The client's fault. The same bytes fail again: only a corrected client may retry.
    """

    close_code: int
    reason: str


def encode(opcode: int, payload: bytes) -> bytes:
    """Build one unfragmented, unmasked frame, ready to be written to any number of clients.

    Sections 5.1 (a server never masks) and 5.2 (the shortest length form). Raises
    ValueError for an opcode that cannot stand alone, or a control payload over 125 bytes.
    """
    if opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
        raise ValueError(f"opcode {opcode} cannot begin a frame; use TEXT, BINARY, CLOSE, PING or PONG")
    size = len(payload)
    if size <= 125:
        return bytes((_FIN | opcode, size)) + payload
    if opcode & 0x8:
        raise ValueError(f"a control frame carries at most {CONTROL_BYTES} bytes, not {size}")
    if size <= 0xFFFF:
        return bytes((_FIN | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def text(payload: bytes) -> bytes:
    """Frame ``payload`` as text; the caller vouches that it is UTF-8 (5.6)."""
    return encode(TEXT, payload)


def binary(payload: bytes) -> bytes:
    """Frame ``payload`` as binary (5.6)."""
    return encode(BINARY, payload)


def ping(payload: bytes = b"") -> bytes:
    """Ask for a pong that echoes ``payload``, at most 125 bytes (5.5.2)."""
    return encode(PING, payload)


def pong(payload: bytes = b"") -> bytes:
    """Answer a ping with the payload it carried (5.5.3)."""
    return encode(PONG, payload)


def close(code: int, reason: str = "") -> bytes:
    """Say goodbye with a code and as much of the reason as fits in 123 bytes, cut between characters.

    Section 5.5.1. Raises ValueError for a code that must not be sent (7.4), 1005 and 1006 among them.
    """
    if not is_close_code(code):
        raise ValueError(f"close code {code} must not be sent; legal: 1000-1003, 1007-1014, 3000-4999")
    cut = reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore")
    return encode(CLOSE, code.to_bytes(2, "big") + cut.encode())


def is_close_code(code: int) -> bool:
    """Whether a close frame may carry ``code``: 7.4 and IANA's registry, which adds 1012-1014."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


def closing(payload: bytes) -> tuple[int, str]:
    """Code and reason in the payload of a CLOSE that `FrameReader` let pass; 1005 when it is empty (7.1.5)."""
    if not payload:
        return NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def _first_byte(first: int) -> ProtocolError | None:
    """What is wrong with the first byte of a frame, if anything."""
    opcode = first & 0x0F
    if first & 0x70:
        return ProtocolError(PROTOCOL_ERROR, "reserved bits must be 0: no extension was negotiated")  # 5.2
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return ProtocolError(PROTOCOL_ERROR, f"unknown opcode {opcode}")  # 5.2
    if opcode & 0x8 and not first & _FIN:
        return ProtocolError(PROTOCOL_ERROR, "a control frame must not be fragmented")  # 5.5
    return None


#: What is wrong with each possible first byte: judged once, here, not once per frame.
_FIRST_BYTE: Final = tuple(_first_byte(first) for first in range(256))
_UNMASKED: Final = ProtocolError(PROTOCOL_ERROR, "a client must mask its frames")  # 5.1
_LONG_CONTROL: Final = ProtocolError(PROTOCOL_ERROR, "a control frame carries at most 125 bytes")  # 5.5
_NOTHING_OPEN: Final = ProtocolError(PROTOCOL_ERROR, "nothing to continue")  # 5.4
_STILL_OPEN: Final = ProtocolError(PROTOCOL_ERROR, "a new message before the last one ended")  # 5.4
_LENGTH_FORM: Final = ProtocolError(PROTOCOL_ERROR, "the length must use the fewest bytes, and at most 63 bits")  # 5.2
_FRAGMENTS: Final = ProtocolError(POLICY_VIOLATION, f"more than {limits.FRAGMENTS} fragments in one message")
_NOT_UTF8: Final = ProtocolError(INVALID_PAYLOAD, "text must be UTF-8")  # 8.1
_REASON_NOT_UTF8: Final = ProtocolError(INVALID_PAYLOAD, "a close reason must be UTF-8")  # 5.5.1
_SHORT_CLOSE: Final = ProtocolError(PROTOCOL_ERROR, "a close frame carries a code of two bytes, or nothing")  # 5.5.1


def _unmask(data: bytes, key_at: int, size: int) -> bytes:
    """The ``size`` bytes after the key at ``key_at``, unmasked (5.3)."""
    # One XOR of two big integers: linear in size, and many times faster than a loop over bytes.
    begin = key_at + 4
    key = (data[key_at:begin] * ((size + 3) >> 2))[:size]
    masked = data[begin : begin + size]
    return (int.from_bytes(masked, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_close(payload: bytes) -> ProtocolError | None:
    """What is wrong with the payload of a close frame, if anything (5.5.1, 7.4)."""
    if len(payload) == 1:
        return _SHORT_CLOSE
    if not _is_utf8(payload[2:]):
        return _REASON_NOT_UTF8
    code = int.from_bytes(payload[:2], "big")
    if payload and not is_close_code(code):
        return ProtocolError(PROTOCOL_ERROR, f"close code {code} must not be sent")
    return None


class _Partial:
    """What has come of a frame and of a fragmented message that are not complete yet."""

    __slots__ = ("buffer", "fragments", "need", "opcode", "text", "whole")

    def __init__(self) -> None:
        self.buffer = bytearray()  # the beginning of a frame
        self.need = 0  # parse again when the buffer has so many bytes: never on every read
        self.opcode = CONTINUATION  # of the open message; CONTINUATION: none is open
        self.whole = bytearray()  # its fragments so far, unmasked
        self.fragments = 0
        self.text = _Utf8()  # knows a character cut between two fragments

    def refuse(self, opcode: int, second: int) -> ProtocolError | None:
        """What is wrong with a frame of this opcode and second byte now, if anything."""
        if not second & _MASKED:
            return _UNMASKED
        if opcode & 0x8:
            return _LONG_CONTROL if second & 0x7F > CONTROL_BYTES else None
        if opcode == CONTINUATION:
            return _NOTHING_OPEN if self.opcode == CONTINUATION else None
        return None if self.opcode == CONTINUATION else _STILL_OPEN

    def add(self, first: int, payload: bytes) -> Message | ProtocolError | None:
        """Take a data frame: the message it completes, the violation it is, or None when more must follow."""
        opcode = first & 0x0F
        if opcode and first & _FIN:
            if opcode == TEXT and not (payload.isascii() or _is_utf8(payload)):
                return _NOT_UTF8
            return Message(opcode, payload)
        if opcode:
            self.opcode, self.fragments = opcode, 0
        self.fragments += 1
        if self.fragments > limits.FRAGMENTS:
            return _FRAGMENTS
        if self.opcode == TEXT:
            try:
                self.text.decode(payload, bool(first & _FIN))
            except UnicodeDecodeError:
                return _NOT_UTF8
        self.whole += payload
        if not first & _FIN:
            return None
        message = Message(self.opcode, bytes(self.whole))
        self.opcode, self.whole = CONTINUATION, bytearray()
        return message


#: Stands in for a reader's partial once it has failed or read a close frame: what follows is not looked at (1.4).
_DEAF: Final = _Partial()


class FrameReader:
    """Turns whatever bytes one client sends into messages, and stops at its first violation.

    ``max_message`` bounds a message in bytes, over all its fragments, and is judged from
    the header, before anything is kept (1009). At most that, one frame header and one read
    are ever held; nothing is held between messages.

    ``error`` is None until the client breaks the protocol; look at it after each `feed`.
    """

    __slots__ = ("_max_message", "_partial", "error")

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._partial: _Partial | None = None
        self.error: ProtocolError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes as they come and return what they complete, in order, control frames among them.

        Never raises for what the client sent: a violation is left in ``error``, the messages
        before it are returned. After a violation or a CLOSE all bytes are ignored (1.4, 7.1.7).
        However the bytes are cut into reads, the messages and the error are the same.
        """
        partial = self._partial
        if partial is None:
            # The common case by far: nothing pending, and one read is one short text in one frame.
            size = len(data) - 6
            if 0 <= size <= 125 and data[0] == _TEXT_IN_ONE_FRAME and data[1] == size | _MASKED:
                payload = _unmask(data, 2, size)
                if size <= self._max_message and (payload.isascii() or _is_utf8(payload)):
                    return [Message(TEXT, payload)]
            partial = self._partial = _Partial()
        elif partial is _DEAF:
            return []
        elif partial.buffer:
            partial.buffer += data
            if len(partial.buffer) < partial.need:
                return []
            data = bytes(partial.buffer)
        messages: list[Message] = []
        error = self._read(data, partial, messages)
        if error is not None:
            self.error = error
            self._partial = _DEAF
        return messages

    def _read(self, data: bytes, partial: _Partial, messages: list[Message]) -> ProtocolError | None:
        """Append every frame that ``data`` completes, keep the rest, and return the first violation."""
        at, end = 0, len(data)
        while True:
            need = 2
            if end - at < need:
                break
            first, second = data[at], data[at + 1]
            opcode, size = first & 0x0F, second & 0x7F
            error = _FIRST_BYTE[first] or partial.refuse(opcode, second)
            if error is not None:
                return error
            need = 6
            if size > 125:  # 5.2: 126 announces 2 bytes of length, 127 announces 8
                need, least = (8, 126) if size == 126 else (14, 0x10000)
                if end - at < need:
                    break
                size = int.from_bytes(data[at + 2 : at + need - 4], "big")
                if size < least or size >> 63:
                    return _LENGTH_FORM
            if not opcode & 0x8 and size > self._max_message - len(partial.whole):
                return ProtocolError(TOO_BIG, f"a message is at most {self._max_message} bytes")
            key_at = at + need - 4
            need += size
            if end - at < need:
                break
            payload = _unmask(data, key_at, size)
            at += need
            if not opcode & 0x8:
                got = partial.add(first, payload)
                if isinstance(got, ProtocolError):
                    return got
                if got is not None:
                    messages.append(got)
                continue
            if opcode == CLOSE and (error := _refuse_close(payload)) is not None:
                return error
            messages.append(Message(opcode, payload))
            if opcode == CLOSE:
                self._partial = _DEAF
                return None
        if at == end and partial.opcode == CONTINUATION:
            self._partial = None
        else:
            partial.buffer = bytearray(data[at:])
            partial.need = need
        return None

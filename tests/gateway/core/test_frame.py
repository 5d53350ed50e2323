"""What the frame codec writes, what it reads, and what it refuses: RFC 6455, section by section."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core import frame
from gateway.core.frame import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameReader, Message, ProtocolError

KEY = b"\x37\xfa\x21\x3d"  # the key of the examples in section 5.7


def masked(opcode: int, payload: bytes, *, fin: bool = True, key: bytes = KEY, rsv: int = 0) -> bytes:
    """A client's frame, built the slow and obvious way."""
    size = len(payload)
    if size <= 125:
        length = bytes((0x80 | size,))
    elif size <= 0xFFFF:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    body = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes((fin << 7 | rsv << 4 | opcode,)) + length + key + body


def read(data: bytes, max_message: int = 1_000) -> tuple[list[Message], ProtocolError | None]:
    reader = FrameReader(max_message)
    return reader.feed(data), reader.error


def read_bytewise(data: bytes, max_message: int = 1_000) -> tuple[list[Message], ProtocolError | None]:
    reader = FrameReader(max_message)
    return [message for byte in data for message in reader.feed(bytes((byte,)))], reader.error


# --- writing ---


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (256, b"\x82\x7e\x01\x00"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_frame_has_the_shortest_length_and_no_mask(size: int, header: bytes) -> None:
    assert frame.binary(b"x" * size) == header + b"x" * size


def test_the_examples_of_section_5_7() -> None:
    assert frame.text(b"Hello") == b"\x81\x05Hello"
    assert frame.ping(b"Hello") == b"\x89\x05Hello"
    assert frame.pong(b"Hello") == b"\x8a\x05Hello"
    assert read(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58") == ([Message(TEXT, b"Hello")], None)
    assert read(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58") == ([Message(PONG, b"Hello")], None)


@pytest.mark.parametrize("opcode", [CONTINUATION, 3, 7, 0xB, 0xF, 16, 0x81])
def test_no_frame_begins_with_another_opcode(opcode: int) -> None:
    with pytest.raises(ValueError, match="cannot begin a frame"):
        frame.encode(opcode, b"")


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_carries_125_bytes_and_no_more(opcode: int) -> None:
    assert len(frame.encode(opcode, b"x" * 125)) == 127
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        frame.encode(opcode, b"x" * 126)


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("", b""),
        ("bye", b"bye"),
        ("x" * 123, b"x" * 123),
        ("x" * 124, b"x" * 123),
        ("x" * 122 + "é", b"x" * 122),
        ("x" * 121 + "é", b"x" * 121 + "é".encode()),
        ("x" * 120 + "😀", b"x" * 120),
        ("x" * 119 + "😀", b"x" * 119 + "😀".encode()),
        ("lone \ud800", b"lone ?"),
    ],
)
def test_a_close_reason_is_cut_between_characters(reason: str, sent: bytes) -> None:
    assert frame.close(1000, reason) == bytes((0x88, 2 + len(sent))) + b"\x03\xe8" + sent


LEGAL_CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


def test_every_close_code_is_legal_or_refused_both_ways() -> None:
    for code in (*range(5_100), 65_535):
        payload = code.to_bytes(2, "big")
        messages, error = read(masked(CLOSE, payload))
        if code in LEGAL_CODES:
            assert (messages, error) == ([Message(CLOSE, payload)], None)
            assert frame.close(code) == b"\x88\x02" + payload
        else:
            assert messages == []
            assert error == ProtocolError(1002, f"close code {code} must not be sent")
            assert not frame.is_close_code(code)
    with pytest.raises(ValueError, match="close code 1006 must not be sent"):
        frame.close(1006)


def test_a_close_payload_is_a_code_and_a_reason_or_nothing() -> None:
    assert frame.closing(b"\x03\xe8" + "à bientôt".encode()) == (1000, "à bientôt")
    assert frame.closing(b"\x0f\xa0") == (4000, "")
    assert frame.closing(b"") == (1005, "")


# --- reading: what is allowed ---


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_every_length_form_is_read(opcode: int, size: int) -> None:
    payload = bytes(33 + i % 90 for i in range(size))
    assert read(masked(opcode, payload), 65_536) == ([Message(opcode, payload)], None)


def test_fragments_become_one_message_and_control_frames_come_between_them() -> None:
    data = (
        masked(TEXT, b"one ", fin=False)
        + masked(PING, b"?")
        + masked(CONTINUATION, b"", fin=False)
        + masked(PONG, b"!")
        + masked(CONTINUATION, b"two")
        + masked(BINARY, b"\xff", fin=False)
        + masked(CONTINUATION, b"\xfe")
        + masked(TEXT, b"three")
    )
    expected = [
        Message(PING, b"?"),
        Message(PONG, b"!"),
        Message(TEXT, b"one two"),
        Message(BINARY, b"\xff\xfe"),
        Message(TEXT, b"three"),
    ]
    assert read(data) == (expected, None)
    assert read_bytewise(data) == (expected, None)


def test_a_character_may_be_cut_between_fragments() -> None:
    begin, end = "é".encode()[:1], "é".encode()[1:]
    data = masked(TEXT, begin, fin=False) + masked(CONTINUATION, end)
    assert read(data) == ([Message(TEXT, "é".encode())], None)


def test_text_beyond_ascii_is_read_alone_and_among_others() -> None:
    data = masked(TEXT, "héé".encode())
    assert read(data) == ([Message(TEXT, "héé".encode())], None)
    assert read(data + data) == ([Message(TEXT, "héé".encode())] * 2, None)


def test_control_frames_do_not_count_towards_a_message() -> None:
    data = masked(TEXT, b"12", fin=False) + masked(PING, b"x" * 125) + masked(CONTINUATION, b"34")
    assert read(data, 4) == ([Message(PING, b"x" * 125), Message(TEXT, b"1234")], None)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xe8" + b"x" * 123])
def test_nothing_is_read_after_a_close(payload: bytes) -> None:
    reader = FrameReader(1_000)
    first = masked(CLOSE, payload)
    assert reader.feed(first + masked(TEXT, b"late") + b"\xff\xff") == [Message(CLOSE, payload)]
    assert reader.feed(masked(TEXT, b"later")) == []
    assert reader.error is None


def test_a_close_may_interrupt_a_fragmented_message() -> None:
    data = masked(TEXT, b"never ends", fin=False) + masked(CLOSE, b"\x03\xe9")
    assert read(data) == ([Message(CLOSE, b"\x03\xe9")], None)


def test_no_bytes_are_no_message() -> None:
    reader = FrameReader(10)
    assert reader.feed(b"") == []
    assert reader.feed(masked(TEXT, b"x", fin=False)) == []
    assert reader.feed(b"") == []
    assert reader.feed(masked(CONTINUATION, b"y")) == [Message(TEXT, b"xy")]


# --- reading: what is refused ---

REFUSED = {
    "RSV1 (5.2)": (masked(TEXT, b"x", rsv=4), 1002, "reserved bits"),
    "RSV2 (5.2)": (masked(TEXT, b"x", rsv=2), 1002, "reserved bits"),
    "RSV3 (5.2)": (masked(PING, b"x", rsv=1), 1002, "reserved bits"),
    "unknown data opcode (5.2)": (masked(3, b"x"), 1002, "unknown opcode 3"),
    "unknown control opcode (5.2)": (masked(0xB, b"x"), 1002, "unknown opcode 11"),
    "unmasked (5.1)": (b"\x81\x01x", 1002, "must mask"),
    "unmasked ping (5.1)": (b"\x89\x00", 1002, "must mask"),
    "fragmented ping (5.5)": (masked(PING, b"x", fin=False), 1002, "must not be fragmented"),
    "fragmented close (5.5)": (masked(CLOSE, b"", fin=False), 1002, "must not be fragmented"),
    "long ping (5.5)": (masked(PING, b"x" * 126), 1002, "at most 125 bytes"),
    "long pong (5.5)": (masked(PONG, b"x" * 65_536), 1002, "at most 125 bytes"),
    "125 in two bytes (5.2)": (b"\x81\xfe\x00\x7d" + KEY, 1002, "fewest bytes"),
    "65,535 in eight bytes (5.2)": (b"\x81\xff" + (65_535).to_bytes(8, "big") + KEY, 1002, "fewest bytes"),
    "2^63 (5.2)": (b"\x81\xff" + (1 << 63).to_bytes(8, "big") + KEY, 1002, "at most 63 bits"),
    "nothing to continue (5.4)": (masked(CONTINUATION, b"x"), 1002, "nothing to continue"),
    "a message inside another (5.4)": (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002, "before the last one"),
    "a fragment inside another (5.4)": (
        masked(BINARY, b"x", fin=False) + masked(BINARY, b"y", fin=False),
        1002,
        "before the last one",
    ),
    "too big (7.4.1)": (masked(TEXT, b"x" * 1_001), 1009, "at most 1000 bytes"),
    "too big, one frame of 64 KiB (7.4.1)": (masked(BINARY, b"x" * 65_536), 1009, "at most 1000 bytes"),
    "too big, by its fragments (7.4.1)": (
        masked(BINARY, b"x" * 600, fin=False) + masked(CONTINUATION, b"x" * 401, fin=False),
        1009,
        "at most 1000 bytes",
    ),
    "not UTF-8 (8.1)": (masked(TEXT, b"a\xff"), 1007, "must be UTF-8"),
    "a lone surrogate (8.1)": (masked(TEXT, b"\xed\xa0\x80"), 1007, "must be UTF-8"),
    "overlong (8.1)": (masked(TEXT, b"\xc0\xaf"), 1007, "must be UTF-8"),
    "beyond U+10FFFF (8.1)": (masked(TEXT, b"\xf4\x90\x80\x80"), 1007, "must be UTF-8"),
    "a character cut by the end (8.1)": (masked(TEXT, "é".encode()[:1]), 1007, "must be UTF-8"),
    "a character cut by the last fragment (8.1)": (
        masked(TEXT, "é".encode()[:1], fin=False) + masked(CONTINUATION, b""),
        1007,
        "must be UTF-8",
    ),
    "not UTF-8, in a first fragment (8.1)": (masked(TEXT, b"\xff", fin=False), 1007, "must be UTF-8"),
    "half a close code (5.5.1)": (masked(CLOSE, b"\x03"), 1002, "two bytes, or nothing"),
    "close reason not UTF-8 (5.5.1)": (masked(CLOSE, b"\x03\xe8\xff"), 1007, "reason must be UTF-8"),
    "close code 1005 (7.4.1)": (masked(CLOSE, b"\x03\xed"), 1002, "1005 must not be sent"),
}


@pytest.mark.parametrize(("data", "code", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_violation_ends_the_reading_with_its_code(data: bytes, code: int, why: str) -> None:
    good = masked(PING, b"") + masked(TEXT, b"before")
    for feed in (read, read_bytewise):
        messages, error = feed(good + data + masked(TEXT, b"after"))
        assert messages == [Message(PING, b""), Message(TEXT, b"before")]
        assert error is not None
        assert error.close_code == code
        assert why in error.reason
        assert frame.closing(frame.close(error.close_code, error.reason)[2:]) == (code, error.reason)  # fits, uncut


@pytest.mark.parametrize(("data", "code", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_reader_that_failed_stays_failed(data: bytes, code: int, why: str) -> None:
    reader = FrameReader(1_000)
    assert reader.feed(data) == []
    failed = reader.error
    assert failed is not None
    assert reader.feed(masked(TEXT, b"after")) == []
    assert reader.error is failed


def test_a_message_that_ended_cannot_be_continued() -> None:
    whole = masked(TEXT, b"a", fin=False) + masked(CONTINUATION, b"b")
    messages, error = read(whole + masked(CONTINUATION, b"c"))
    assert (messages, error) == ([Message(TEXT, b"ab")], ProtocolError(1002, "nothing to continue"))


def test_the_short_path_keeps_to_the_bound_too() -> None:
    assert read(masked(TEXT, b"1234"), 4) == ([Message(TEXT, b"1234")], None)
    assert read(masked(TEXT, b"12345"), 4) == ([], ProtocolError(1009, "a message is at most 4 bytes"))


@pytest.mark.parametrize("header", [b"\x82\xfe\x03\xe9" + KEY, b"\x82\xff" + (1 << 62).to_bytes(8, "big") + KEY])
def test_too_big_is_judged_from_the_header_before_a_byte_of_payload(header: bytes) -> None:
    assert read(header) == ([], ProtocolError(1009, "a message is at most 1000 bytes"))


def test_a_message_has_at_most_1024_fragments() -> None:
    limit = limits.FRAGMENTS
    more = masked(CONTINUATION, b"x", fin=False)
    data = masked(TEXT, b"x", fin=False) + more * (limit - 2)
    assert read(data + masked(CONTINUATION, b"x"), 2_000) == ([Message(TEXT, b"x" * limit)], None)
    _, error = read(data + more + masked(CONTINUATION, b"x"), 2_000)
    assert error is not None
    assert error.close_code == 1008
    again = (data + masked(CONTINUATION, b"x")) * 2  # the count starts afresh with each message
    assert read(again, 2_000) == ([Message(TEXT, b"x" * limit)] * 2, None)


# --- what is kept, and what it costs ---


def test_an_idle_reader_keeps_nothing() -> None:
    reader = FrameReader(1_000)
    fresh = _held(reader)
    for data in (
        masked(TEXT, b"short"),
        masked(TEXT, b"x" * 500),
        masked(TEXT, b"a", fin=False) + masked(CONTINUATION, b"b"),
        masked(PING, b""),
    ):
        for cut in range(len(data) + 1):
            reader.feed(data[:cut])
            reader.feed(data[cut:])
            assert _held(reader) == fresh
    reader.feed(masked(CLOSE, b""))
    assert sys.getsizeof(reader) <= 64
    assert not hasattr(reader, "__dict__")


def _held(reader: FrameReader) -> list[object]:
    return [getattr(reader, name) for name in FrameReader.__slots__]


class Counted(FrameReader):
    """Counts how often the bytes that are kept are looked at."""

    looks = 0

    def _read(self, data: bytes, partial: frame._Partial, messages: list[Message]) -> ProtocolError | None:
        self.looks += 1
        return super()._read(data, partial, messages)


@pytest.mark.parametrize("size", [1, 200, 65_536])
def test_a_frame_in_many_small_reads_is_looked_at_four_times_at_most(size: int) -> None:
    reader = Counted(65_536)
    got = [message for byte in masked(BINARY, b"x" * size) for message in reader.feed(bytes((byte,)))]
    assert got == [Message(BINARY, b"x" * size)]
    assert reader.looks <= 4  # its first byte, the start of its header, all of its header, all of it


@pytest.mark.parametrize("size", [0x0141, 0x010141])
def test_the_beginning_of_a_long_frame_is_not_taken_for_a_short_one(size: int) -> None:
    payload = b"x" * size
    data = masked(TEXT, payload, key=bytes(4))  # so that header bytes taken for a key leave the text ASCII
    for cut in range(150):
        reader = FrameReader(size)
        assert reader.feed(data[:cut]) == []
        assert reader.feed(data[cut:]) == [Message(TEXT, payload)]


# --- however the bytes are cut ---

PIECES = st.lists(
    st.one_of(
        st.builds(
            masked,
            st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, CLOSE, PING, PONG]),
            st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=140)),
            fin=st.booleans(),
            key=st.binary(min_size=4, max_size=4),
        ),
        st.builds(masked, st.sampled_from([TEXT, BINARY, PING]), st.text(max_size=30).map(str.encode)),
        st.sampled_from([data for data, _, _ in REFUSED.values() if len(data) < 2_000]),
        st.binary(max_size=12),
    ),
    max_size=8,
).map(b"".join)


@given(data=PIECES, cuts=st.lists(st.integers(0, 600), max_size=8))
def test_any_chunking_gives_the_same_messages_and_error(data: bytes, cuts: list[int]) -> None:
    expected = read(data, 300)
    reader = FrameReader(300)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    got = [m for a, b in pairwise(edges) for m in reader.feed(data[a:b])]
    assert (got, reader.error) == expected
    assert read_bytewise(data, 300) == expected

"""Our codec against the Sans-I/O protocol of the `websockets` library: two readings of RFC 6455, one answer.

Where the two differ, we differ on purpose; `DIFFERENCES` and the test below it are the whole list.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from gateway import limits
from gateway.core import frame, handshake
from gateway.core.frame import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameReader

MAX_MESSAGE = 1_000

Answer = tuple[list[tuple[int, bytes]], int | None]


def ours(data: bytes) -> Answer:
    reader = FrameReader(MAX_MESSAGE)
    messages = [(message.opcode, message.payload) for message in reader.feed(data)]
    return messages, None if reader.error is None else reader.error.close_code


def theirs(data: bytes) -> Answer:
    """What a `websockets` server makes of the same bytes: its frames joined to messages, its text checked.

    Its Sans-I/O layer leaves both to the layer above.
    """
    server = ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
    server.receive_data(data)
    messages: list[tuple[int, bytes]] = []
    opcode, whole, text = 0, b"", getincrementaldecoder("utf-8")()
    for event in server.events_received():
        assert isinstance(event, Frame)
        if event.opcode & 0x8:
            messages.append((int(event.opcode), bytes(event.data)))
            continue
        opcode = int(event.opcode) or opcode
        whole += bytes(event.data)
        if opcode == TEXT:
            try:
                text.decode(bytes(event.data), event.fin)
            except UnicodeDecodeError:
                return messages, 1007
        if event.fin:
            messages.append((opcode, whole))
            whole = b""
    if server.parser_exc is None:
        return messages, None
    assert server.close_sent is not None
    return messages, int(server.close_sent.code)


class Sent(NamedTuple):
    """A frame as a careless client might build it."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool
    payload: bytes

    def bytes(self) -> bytes:
        size = len(self.payload)
        mask = 0x80 if self.masked else 0
        if size <= 125:
            length = bytes((mask | size,))
        else:
            length = bytes((mask | 126,)) + size.to_bytes(2, "big")
        # A key of zeros masks nothing: what is compared is the reading of headers.
        return bytes((self.fin << 7 | self.rsv << 4 | self.opcode,)) + length + bytes(4) * self.masked + self.payload


CLOSE_PAYLOADS = st.one_of(
    st.just(b""),
    st.integers(0, 65_535).map(lambda code: code.to_bytes(2, "big")),
    st.tuples(st.integers(990, 5_010), st.binary(max_size=20)).map(lambda pair: pair[0].to_bytes(2, "big") + pair[1]),
    st.binary(max_size=3),
)
PAYLOADS = st.one_of(
    st.text(max_size=30).map(str.encode),
    st.text(max_size=8).map(str.encode).map(lambda data: data[:-1]),
    st.binary(max_size=20),
    st.sampled_from([125, 126, 130, 600, 1_000, 1_001]).map(lambda size: b"x" * size),
)
GOOD = st.builds(Sent, st.booleans(), st.just(0), st.sampled_from([0, 0, 1, 1, 2, 9, 10]), st.just(True), PAYLOADS)
ANY = st.builds(Sent, st.booleans(), st.integers(0, 7), st.integers(0, 15), st.booleans(), PAYLOADS)
CLOSES = st.builds(Sent, st.just(True), st.just(0), st.just(CLOSE), st.just(True), CLOSE_PAYLOADS)


def comparable(frames: list[Sent]) -> list[Sent]:
    """The frames up to the first on which the two differ on purpose: see `DIFFERENCES`."""
    opened, size, kept = False, 0, []
    for sent in frames:
        control = bool(sent.opcode & 0x8)
        out_of_turn = not control and opened == (sent.opcode != CONTINUATION)
        wrong = bool(sent.rsv) or sent.opcode not in {0, 1, 2, 8, 9, 10} or not sent.masked or out_of_turn
        if len(sent.payload) + size > MAX_MESSAGE and (wrong or control):
            break
        if sent.opcode == CLOSE and opened:
            break
        kept.append(sent)
        if not control:
            opened = not sent.fin
            size = size + len(sent.payload) if opened else 0
    return kept


@given(frames=st.lists(GOOD | GOOD | GOOD | ANY | CLOSES, min_size=1, max_size=8))
def test_the_same_bytes_give_the_same_messages_and_the_same_close_code(frames: list[Sent]) -> None:
    data = b"".join(sent.bytes() for sent in comparable(frames))
    assert ours(data) == theirs(data)


ZEROS = bytes(4)

#: What is sent -> (what we answer, what `websockets` answers, why we differ).
DIFFERENCES: dict[str, tuple[bytes, Answer, Answer]] = {
    # 5.2: "the minimal number of bytes MUST be used". They are lenient.
    "a length in more bytes than it needs": (
        b"\x82\xfe\x00\x01" + ZEROS + b"x",
        ([], 1002),
        ([(BINARY, b"x")], None),
    ),
    # 5.2: "the most significant bit MUST be 0": malformed, before it is big.
    "a length of 2^63": (b"\x82\xff\x80" + bytes(7) + ZEROS, ([], 1002), ([], 1009)),
    # A header with two faults: what can never be right is named before what a larger bound would allow.
    "reserved bits on a message that is too big": (
        b"\xc2\xfe\x03\xe9" + ZEROS,
        ([], 1002),
        ([], 1009),
    ),
    # 5.4 lets control frames come between fragments, and close is one.
    "a close inside a message": (
        b"\x02\x81" + ZEROS + b"x" + b"\x88\x82" + ZEROS + b"\x03\xe8",
        ([(CLOSE, b"\x03\xe8")], None),
        ([], 1002),
    ),
    # The bound is one of messages; a ping is none, and 125 bytes at most.
    "a ping inside a message that is almost full": (
        b"\x02\xfe\x03\xe8" + ZEROS + b"x" * 1_000 + b"\x89\x81" + ZEROS + b"y",
        ([(PING, b"y")], None),
        ([], 1009),
    ),
    # We judge a header as soon as it is there; they wait for the payload first.
    "a reserved bit, and the payload still to come": (b"\xc2\x81" + ZEROS, ([], 1002), ([], None)),
    # They do not count fragments.
    "too many fragments": (
        b"\x02\x80" + ZEROS + (b"\x00\x80" + ZEROS) * limits.FRAGMENTS,
        ([], 1008),
        ([], None),
    ),
}


@pytest.mark.parametrize(("data", "we", "they"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_where_we_differ_we_mean_to(data: bytes, we: Answer, they: Answer) -> None:
    assert (ours(data), theirs(data)) == (we, they)


# --- a real client's frames, read by us; ours, read by it ---


def client() -> ClientProtocol:
    return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=2**20)


SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
TEXTS = st.text(max_size=60) | SIZES.map(lambda size: "x" * size)
CONTROL = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
#: A message in fragments (in characters of text, or bytes), and the control frames sent after each of them.
FRAGMENTED = st.lists(st.tuples(st.text(max_size=20), st.lists(CONTROL, max_size=2)), min_size=1, max_size=6)


@given(said=st.lists(st.tuples(st.booleans(), FRAGMENTED), max_size=4), long=TEXTS, cut=st.integers(1, 4_096))
def test_we_read_what_a_client_sends(
    said: list[tuple[bool, list[tuple[str, list[tuple[int, bytes]]]]]], long: str, cut: int
) -> None:
    sender, expected = client(), []
    for is_text, fragments in said:
        for number, (words, controls) in enumerate(fragments, 1):
            fin = number == len(fragments)
            if number > 1:
                sender.send_continuation(words.encode(), fin)
            elif is_text:
                sender.send_text(words.encode(), fin)
            else:
                sender.send_binary(words.encode(), fin)
            if fin:
                expected.append((TEXT if is_text else BINARY, "".join(each for each, _ in fragments).encode()))
            for opcode, payload in controls:
                (sender.send_ping if opcode == PING else sender.send_pong)(payload)
                expected.append((opcode, payload))
    sender.send_text(long.encode())
    sender.send_close(4_321, "done")
    expected += [(TEXT, long.encode()), (CLOSE, b"\x10\xe1done")]
    data = b"".join(sender.data_to_send())
    reader = FrameReader(2**20)
    got = [m for at in range(0, len(data), cut) for m in reader.feed(data[at : at + cut])]
    assert [(m.opcode, m.payload) for m in got] == expected
    assert reader.error is None


@given(
    said=st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), TEXTS.map(str.encode)) | CONTROL, max_size=6),
    code=st.sampled_from([1000, 1011, 1014, 3000, 3501, 4999]),
    reason=st.text(max_size=130),
)
def test_a_client_reads_what_we_send(said: list[tuple[int, bytes]], code: int, reason: str) -> None:
    receiver = client()
    receiver.receive_data(b"".join(frame.encode(opcode, payload) for opcode, payload in said))
    receiver.receive_data(frame.close(code, reason))
    events = receiver.events_received()
    assert receiver.parser_exc is None
    assert events[:-1] == [Frame(Opcode(opcode), payload) for opcode, payload in said]
    assert receiver.close_rcvd is not None
    assert receiver.close_rcvd.code == code
    assert reason.startswith(receiver.close_rcvd.reason)
    assert len(reason.encode()) > 120 or receiver.close_rcvd.reason == reason


# --- the handshake ---


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["centrifuge-json"], None),
        (["centrifuge-protobuf"], "centrifuge-protobuf"),
        (["other", "centrifuge-protobuf"], "centrifuge-protobuf"),
    ],
)
def test_a_client_takes_our_101(offered: list[str] | None, chosen: str | None) -> None:
    subprotocols = None if offered is None else [Subprotocol(each) for each in offered]
    asking = ClientProtocol(parse_uri("ws://localhost:8000/connection/websocket?a=b"), subprotocols=subprotocols)
    asking.send_request(asking.connect())
    request = handshake.parse(b"".join(asking.data_to_send()))
    assert isinstance(request, handshake.Request)
    assert (request.path, request.query) == ("/connection/websocket", "a=b")
    picked = handshake.choose(request, ["centrifuge-protobuf"])
    asking.receive_data(handshake.accept(request, picked) + frame.text(b"at once"))
    response, first = asking.events_received()
    assert isinstance(response, Response)
    assert isinstance(response.headers, Headers)
    assert (asking.handshake_exc, asking.state) == (None, State.OPEN)
    assert asking.subprotocol == picked == chosen
    assert first == Frame(Opcode.TEXT, b"at once")


def test_a_client_understands_our_refusal() -> None:
    asking = ClientProtocol(parse_uri("ws://localhost:8000/"))
    asking.send_request(asking.connect())
    asking.receive_data(handshake.Refused(403, "this origin is not allowed").response())
    asking.receive_eof()
    (response,) = asking.events_received()
    assert isinstance(response, Response)
    assert (response.status_code, response.body) == (403, b"this origin is not allowed\n")

"""Tests of core/wire_protobuf against the classes generated from client.proto, which an SDK brings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from centrifuge.protocol import client_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import wire, wire_protobuf
from gateway.core.event import Event, Meta, Position, Record
from gateway.core.session import BAD_REQUEST, Attach, Refuse, Reply, Session, Store
from gateway.errors import BadPayload, Busy, Denied
from tests.protobuf_oracle import agree

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I32, I64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
DATA = st.binary(max_size=40)


def generated(name: str, /, **fields: Any) -> Any:
    return getattr(client_pb2, name)(**fields)


REQUESTS: dict[str, st.SearchStrategy[Any]] = {
    "connect": st.builds(
        generated,
        st.just("ConnectRequest"),
        token=TEXT,
        data=DATA,
        name=TEXT,
        version=TEXT,
        headers=st.dictionaries(TEXT, TEXT, max_size=2),
        flag=I64,
    ),
    "subscribe": st.builds(
        generated,
        st.just("SubscribeRequest"),
        channel=TEXT,
        token=TEXT,
        recover=st.booleans(),
        epoch=TEXT,
        offset=U64,
        data=DATA,
        positioned=st.booleans(),
        recoverable=st.booleans(),
        join_leave=st.booleans(),
        delta=TEXT,
        flag=I64,
    ),
    "unsubscribe": st.builds(generated, st.just("UnsubscribeRequest"), channel=TEXT),
    "publish": st.builds(generated, st.just("PublishRequest"), channel=TEXT, data=DATA),
    "presence": st.builds(generated, st.just("PresenceRequest"), channel=TEXT),
    "presence_stats": st.builds(generated, st.just("PresenceStatsRequest"), channel=TEXT),
    "history": st.builds(
        generated,
        st.just("HistoryRequest"),
        channel=TEXT,
        limit=I32,
        since=st.none() | st.builds(generated, st.just("StreamPosition"), offset=U64, epoch=TEXT),
        reverse=st.booleans(),
    ),
    "rpc": st.builds(generated, st.just("RPCRequest"), data=DATA, method=TEXT),
    "send": st.builds(generated, st.just("SendRequest"), data=DATA),
    "refresh": st.builds(generated, st.just("RefreshRequest"), token=TEXT),
    "sub_refresh": st.builds(generated, st.just("SubRefreshRequest"), channel=TEXT, token=TEXT),
}
COMMAND = st.sampled_from(sorted(REQUESTS)).flatmap(
    lambda method: st.builds(lambda id, body: generated("Command", id=id, **{method: body}), U32, REQUESTS[method])
)


@given(COMMAND)
def test_a_command_says_what_the_schema_says(command: Any) -> None:
    agree(wire_protobuf.decode(command.SerializeToString()), command)


def test_every_command_of_the_json_form_is_read() -> None:
    assert set(REQUESTS) == set(wire.METHODS)
    for method in wire.METHODS:
        packed = generated("Command", id=7, **{method: {}}).SerializeToString()
        assert wire_protobuf.decode(packed).method == method


@given(st.lists(COMMAND, min_size=1, max_size=4))
def test_a_frame_holds_many(commands: list[Any]) -> None:
    bodies = [c.SerializeToString() for c in commands]
    assert wire_protobuf.commands(b"".join(sized(b) for b in bodies)) == bodies


def sized(body: bytes) -> bytes:
    from centrifuge.codecs import _varint_encode

    return bytes(_varint_encode(len(body))) + body


@given(st.binary(max_size=60) | st.builds(lambda c, cut: c.SerializeToString()[:cut], COMMAND, st.integers(0, 60)))
def test_any_bytes_are_read_as_the_schema_reads_them_or_refused(data: bytes) -> None:
    try:
        ours = wire_protobuf.decode(data)
    except BadPayload:
        return
    theirs = client_pb2.Command()
    try:
        theirs.ParseFromString(data)
    except Exception as error:  # noqa: BLE001 - theirs looks into fields that we skip unread
        assert "parsing" in str(error)  # noqa: PT017 - what it says does not matter, only that it is that
        return
    if not theirs.HasField("ping"):
        assert ours.id == theirs.id
        assert (ours.connect is not None) == theirs.HasField("connect")


def test_what_repeats() -> None:
    one = generated("Command", id=1, subscribe={"channel": "a", "epoch": "7"}).SerializeToString()
    two = generated("Command", id=2, subscribe={"channel": "b", "offset": 3}).SerializeToString()
    theirs = client_pb2.Command()
    theirs.ParseFromString(one + two)
    ours = wire_protobuf.decode(one + two)
    assert (ours.id, theirs.id) == (2, 2)
    assert ours.subscribe is not None
    assert (ours.subscribe.channel, ours.subscribe.epoch, ours.subscribe.offset) == ("b", "7", 3)
    assert (theirs.subscribe.channel, theirs.subscribe.epoch, theirs.subscribe.offset) == ("b", "7", 3)


#: An unknown field of each wire type: number 100, and our own ``id`` in a type that it has not.
SKIPPED = {
    "varint": b"\xa0\x06\x01",
    "64 bits": b"\xa1\x06" + bytes(8),
    "sized": b"\xa2\x06\x02ab",
    "32 bits": b"\xa5\x06" + bytes(4),
    "id as text": b"\x0a\x01x",
    "connect as a number": b"\x20\x05",
}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_is_not_known_is_skipped(name: str) -> None:
    data = SKIPPED[name] + b"\x08\x07" + SKIPPED[name]
    theirs = client_pb2.Command()
    theirs.ParseFromString(data)
    assert theirs.id == wire_protobuf.decode(data).id == 7
    assert wire_protobuf.decode(data).method == ""


REFUSED = {
    "a number that does not end": b"\x08\x80",
    "a number of eleven bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "a number of 70 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "field 0": b"\x00\x01",
    "a field beyond all": b"\x80\x80\x80\x80\x20\x01",
    "a group": b"\xa3\x06\xa4\x06",
    "the end of a group": b"\xa4\x06",
    "wire type 7": b"\xa7\x06",
    "a size beyond the end": b"\x22\x05ab",
    "a size below zero": b"\x22" + b"\xff" * 9 + b"\x01",
    "no eight bytes": b"\xa1\x06abc",
    "no four bytes": b"\xa5\x06abc",
    "a text that is none": b"\x3a\x04\x0a\x02\xff\xfe",
    "a message in a message": b"\x52\x04\x42\x02\x08\x80",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_command_is_refused(name: str) -> None:
    with pytest.raises(BadPayload):
        wire_protobuf.decode(REFUSED[name])


@pytest.mark.parametrize("message", [b"", b"\x05ab", b"\x80", b"\xff" * 9 + b"\x01", b"\x00\x02\x08"])
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(BadPayload):
        wire_protobuf.commands(message)
    assert list(Session("c1", wire_protobuf).receive(message)) == [BAD_REQUEST]


# --- what we send ---

INFO = wire.ClientInfo("alice", "c1")
RESULTS: dict[str, tuple[msgspec.Struct | None, str]] = {
    "connect": (wire.ConnectResult("c1", "0.1", ping=25, pong=True, expires=True, ttl=9), "ConnectResult"),
    "unsubscribe": (None, "UnsubscribeResult"),
    "publish": (None, "PublishResult"),
    "presence": (wire.PresenceResult({"c1": INFO, "c2": wire.ClientInfo("", "c2")}), "PresenceResult"),
    "presence_stats": (wire.PresenceStatsResult(2, 1), "PresenceStatsResult"),
}


def replies(data: bytes) -> Any:
    (body,) = wire_protobuf.commands(data)
    reply = client_pb2.Reply()
    reply.ParseFromString(body)
    return reply


@pytest.mark.parametrize("method", RESULTS)
def test_replies_are_those_of_the_schema(method: str) -> None:
    result, _ = RESULTS[method]
    reply = replies(wire_protobuf.reply(7, method, result))
    assert reply.id == 7
    assert reply.HasField(method), "the key is there even where it is empty"
    if isinstance(result, wire.PresenceResult):
        assert {k: (v.user, v.client) for k, v in reply.presence.presence.items()} == {
            "c1": ("alice", "c1"),
            "c2": ("", "c2"),
        }
    elif result is not None:
        agree(result, getattr(reply, method))


@pytest.mark.parametrize("type", wire_protobuf.NUMBERS, ids=lambda type: type.__name__)
def test_every_field_has_the_number_of_the_schema(type: Any) -> None:
    numbers = wire_protobuf.NUMBERS[type]
    assert set(numbers) == set(type.__struct_fields__)
    descriptor = getattr(client_pb2, type.__name__).DESCRIPTOR
    assert {name: descriptor.fields_by_name[name].number for name in numbers} == numbers


EVENT = Event("a/b", b'{"n":1}', "id-1", Meta(ts=5, traceparent="00-x"))


@given(DATA, U64, st.sampled_from(["", "text/plain", "image/png"]))
def test_publications_hold_what_was_published(data: bytes, offset: int, type: str) -> None:
    event = Event("a/b", data, "id-1", Meta(ts=5, type=type))
    publication = client_pb2.Publication()
    publication.ParseFromString(wire_protobuf.event_publication(event, offset))
    assert (publication.data, publication.offset) == (data, offset)
    tags = {"id": "id-1", "topic": "a/b", "ts": "5", **({"content_type": type} if type else {})}
    assert dict(publication.tags) == tags, "and no encoding: the bytes are as they came"


GIVEN = wire.subscribed(Position(7, 3), recoverable=True)


def test_pushes() -> None:
    record = Record(EVENT, "a.0", 7, 42)
    pub = wire_protobuf.publication(record)
    assert wire_protobuf.publication(record) is pub, "made once"
    push = replies(wire_protobuf.push("a/+", pub)).push
    assert (push.channel, push.pub.offset, push.pub.tags["topic"]) == ("a/+", 42, "a/b")
    given = replies(wire_protobuf.push_subscribe("a", GIVEN)).push
    assert (given.channel, given.subscribe.offset, given.subscribe.epoch) == ("a", 3, "7")
    assert given.subscribe.recoverable
    assert given.subscribe.positioned
    prolonged = replies(wire_protobuf.push_refresh(wire.SubRefreshResult(True, 60))).push.refresh
    assert (prolonged.expires, prolonged.ttl) == (True, 60)
    ended = replies(wire_protobuf.push_unsubscribe("a/+", 2500, "insufficient state")).push
    assert (ended.channel, ended.unsubscribe.code, ended.unsubscribe.reason) == ("a/+", 2500, "insufficient state")
    assert replies(wire_protobuf.push_moved("a", "join", INFO)).push.join.info.user == "alice"
    assert replies(wire_protobuf.push_moved("a", "leave", INFO)).push.leave.info.client == "c1"


def test_a_subscription_with_its_past() -> None:
    past = [wire_protobuf.publication(Record(EVENT, "a.0", 7, n)) for n in (1, 2)]
    result = wire.subscribed(Position(7, 2), recoverable=True, was_recovering=True, recovered=True, publications=past)
    subscribe = replies(wire_protobuf.reply(3, "subscribe", result)).subscribe
    assert [p.offset for p in subscribe.publications] == [1, 2]
    assert (subscribe.epoch, subscribe.offset) == ("7", 2)
    assert subscribe.recoverable
    assert subscribe.positioned
    assert subscribe.recovered
    assert subscribe.was_recovering
    history = wire.HistoryResult([msgspec.Raw(p) for p in past], "7", 2)
    assert [p.offset for p in replies(wire_protobuf.reply(3, "history", history)).history.publications] == [1, 2]


@pytest.mark.parametrize("cause", [Denied("no", "ask"), Busy(""), BadPayload("bad")])
def test_errors(cause: Any) -> None:
    error = replies(wire_protobuf.error(7, cause)).error
    assert (error.code, error.temporary) == (cause.reply, cause.retry)
    assert error.message == (str(cause) or cause.code)


def test_an_rpc_and_a_frame() -> None:
    reply = wire_protobuf.rpc_reply(7, b'{"n":1}')
    assert replies(reply).rpc.data == b'{"n":1}'
    assert wire_protobuf.frame(reply)[0] == 0x82
    assert wire_protobuf.frame(wire_protobuf.PING)[-1:] == b"\x00"


def test_a_session_in_this_form() -> None:
    one = Session("c1", wire_protobuf)
    one.state = type(one.state).OPEN
    subscribe = generated("Command", id=2, subscribe={"channel": "a/+", "recover": True}).SerializeToString()
    empty = generated("Command", id=3, publish={"channel": "a"}).SerializeToString()
    filtered = generated("Command", id=4, subscribe={"channel": "b", "tf": {"op": "and"}}).SerializeToString()
    steps = list(one.receive(sized(subscribe) + sized(empty) + sized(filtered)))
    assert isinstance(steps[0], Attach)
    assert steps[1] == Store(3, "a", b""), "this form cannot tell empty data from none"
    assert isinstance(steps[2], Refuse)
    assert replies(wire_protobuf.error(4, steps[2].error)).error.code == 108
    assert one.ping() == Reply(b"\x00")
    assert list(one.receive(b"\x00")) == [Reply(b"")]

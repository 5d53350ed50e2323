"""Tests of core/wire: the shapes of the Centrifugal client protocol v2 in JSON, written out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core import wire
from gateway.core.event import Event, Meta, Position, Record
from gateway.errors import BadPayload, Busy, Denied, GatewayError, TokenExpired, Unavailable


def read(frame: bytes) -> Any:
    assert b"\n" not in frame, "a line break ends an object"
    return json.loads(frame)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# --- commands ---


@pytest.mark.parametrize(
    ("line", "method"),
    [
        (b'{"id":1,"connect":{}}', "connect"),
        (
            b'{"id":1,"connect":{"token":"t","name":"js","version":"5","data":{"a":1},"headers":{},"subs":{}}}',
            "connect",
        ),
        (b'{"id":2,"subscribe":{"channel":"a","recover":true,"epoch":"7","offset":3,"flag":1}}', "subscribe"),
        (b'{"id":3,"unsubscribe":{"channel":"a"}}', "unsubscribe"),
        (b'{"id":4,"publish":{"channel":"a","data":{}}}', "publish"),
        (b'{"id":5,"rpc":{"method":"m","data":null}}', "rpc"),
        (b'{"id":6,"presence":{"channel":"a"}}', "presence"),
        (b'{"id":6,"presence_stats":{"channel":"a"}}', "presence_stats"),
        (b'{"id":6,"history":{"channel":"a","limit":1,"since":{"offset":1,"epoch":"x"}}}', "history"),
        (b'{"id":6,"refresh":{"token":"t"}}', "refresh"),
        (b'{"id":6,"sub_refresh":{"channel":"a","token":"t"}}', "sub_refresh"),
        (b'{"send":{"data":1}}', "send"),
        (b"{}", ""),
        (b'{"id":9,"tomorrow":{}}', ""),
        (b'{"id":1,"connect":null}', ""),
        (b'{"id":1,"connect":{},"rpc":{}}', "?"),
    ],
)
def test_a_command_names_one_method(line: bytes, method: str) -> None:
    assert wire.decode(line).method == method


def test_a_command_brings_its_fields() -> None:
    ask = wire.decode(b'{"id":2,"subscribe":{"channel":"a","recover":true,"epoch":"7","offset":3,"flag":2}}').subscribe
    assert ask is not None
    assert (ask.channel, ask.recover, ask.epoch, ask.offset, ask.strict) == ("a", True, "7", 3, True)
    assert not wire.Subscribe(flag=1).strict
    publish = wire.decode(b'{"id":4,"publish":{"channel":"a","data": {"n" : 1.0} }}').publish
    assert publish is not None
    assert bytes(publish.data) == b'{"n" : 1.0}', "kept as it came"
    nothing = wire.decode(b'{"id":4,"publish":{"channel":"a"}}').publish
    assert nothing is not None
    assert bytes(nothing.data) == b"", "nothing is not null"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b"1",
        b"{",
        b'{"id":"1"}',
        b'{"id":1.5}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"subscribe":{"channel":7}}',
        b'{"id":1,"subscribe":{"channel":"\xff"}}',
        b'{"id":1,"subscribe":{"channel":"\\ud800"}}',
        b'{"id":1,"id":2,"connect":{}}',
        b'{"id":1,"connect":{"token":"a","token":"b"}}',
        b'{"id":1,"publish":{"channel":"a","channel":"b","data":1}}',
        b'{"id":1,"publish":{"channel":"a","data":1,"data":1}}',
        b'{"id":1,"publish":{"channel":"a","data":1},"publish":{"channel":"a","data":1}}',
        b'{"id":1,"publish":{"channel":"a","data":' + nested(10_000) + b"}, x}",
        b'{"id":1,"connect":{"data":' + nested(100) + b"}}",
        b'{"id":1,"connect":{"data":' + nested(100_000) + b"}}",
        b'{"id":1,"later":' + nested(100_000) + b"}",
        b'{"id":1,"connect":{}} {"id":2}',
    ],
)
def test_what_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(BadPayload):
        wire.decode(line)


@pytest.mark.parametrize("ask", [b'"publish":{"channel":"a","data":%s}', b'"rpc":{"method":"publish","data":%s}'])
@pytest.mark.parametrize(
    "payload",
    [
        nested(limits.JSON_DEPTH),
        b" " + nested(limits.JSON_DEPTH - 1) + b"\t",
        nested(limits.JSON_DEPTH + 1),
        b'{"a":1,"a":2}',
        b"1" * (limits.JSON_DIGITS + 1),
        b'{"data":{"a":1,"a":1}}',
    ],
)
def test_the_payload_is_for_its_topic_to_judge(ask: bytes, payload: bytes) -> None:
    """Its fault is an error reply, not the end of the connection; and a deep one may be none."""
    command = wire.decode(b'{"id":1,' + ask % payload + b"}")
    body = command.publish or command.rpc
    assert body is not None
    assert bytes(body.data) == payload.strip()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_command_or_refused(line: bytes) -> None:
    try:
        command = wire.decode(line)
    except BadPayload:
        return
    assert isinstance(json.loads(line), dict)
    assert command.method in (*wire.METHODS, "", "?")


# --- replies ---


def test_a_reply_carries_its_key_even_when_it_is_empty() -> None:
    assert wire.reply(7, "unsubscribe") == b'{"id":7,"unsubscribe":{}}'
    assert wire.reply(7, "subscribe", wire.SubscribeResult()) == b'{"id":7,"subscribe":{}}'
    assert wire.rpc_reply(8, b'{"a":1}') == b'{"id":8,"rpc":{"data":{"a":1}}}'


def test_the_result_of_connect() -> None:
    result = wire.ConnectResult("c1", "0.1.0", ping=25, pong=True)
    assert read(wire.reply(1, "connect", result)) == {
        "id": 1,
        "connect": {"client": "c1", "version": "0.1.0", "ping": 25, "pong": True},
    }
    bare = read(wire.reply(1, "connect", wire.ConnectResult("", "", expires=True, ttl=60)))
    assert bare["connect"] == {"client": "", "version": "", "expires": True, "ttl": 60}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Denied("no", "ask"), {"code": 103, "message": "no; ask"}),
        (TokenExpired("over"), {"code": 109, "message": "over"}),
        (Unavailable("away"), {"code": 100, "message": "away", "temporary": True}),
        (Busy("full"), {"code": 111, "message": "full", "temporary": True}),
        (GatewayError(""), {"code": 100, "message": "internal"}),
    ],
)
def test_an_error_always_has_a_message(error: GatewayError, told: dict[str, object]) -> None:
    assert read(wire.error(3, error)) == {"id": 3, "error": told}


def test_the_result_of_subscribe() -> None:
    live = wire.subscribed(Position(1_760, 42), recoverable=False)
    assert read(wire.reply(1, "subscribe", live)) == {"id": 1, "subscribe": {}}
    fresh = wire.subscribed(Position(1_760, 42), recoverable=True)
    assert read(wire.reply(1, "subscribe", fresh))["subscribe"] == {
        "recoverable": True,
        "positioned": True,
        "epoch": "1760",
        "offset": 42,
    }
    back = wire.subscribed(
        Position(1_760, 42), recoverable=True, was_recovering=True, recovered=True, publications=[b'{"data":1}']
    )
    assert read(wire.reply(1, "subscribe", back))["subscribe"] == {
        "recoverable": True,
        "positioned": True,
        "epoch": "1760",
        "offset": 42,
        "was_recovering": True,
        "recovered": True,
        "publications": [{"data": 1}],
    }


def test_the_result_of_a_publish_by_rpc_has_every_field() -> None:
    result = wire.PublishResult("i", 0, "", False)
    assert read(wire.reply(1, "x", result))["x"] == {"id": "i", "offset": 0, "epoch": "", "duplicate": False}


# --- pushes ---


@pytest.mark.parametrize(
    ("data", "type", "shown", "tags"),
    [
        (b'{"t":21.50}', "", {"t": 21.5}, {}),
        ("süß\n\u2028".encode(), "text/plain", "süß\n\u2028", {"content_type": "text/plain"}),
        (b"a,b", "text/csv", "a,b", {"content_type": "text/csv"}),
        (b"", "text/plain", "", {"content_type": "text/plain"}),
        (
            b"\x00\xff",
            "application/octet-stream",
            base64.b64encode(b"\x00\xff").decode(),
            {"content_type": "application/octet-stream", "encoding": "base64"},
        ),
        # Bytes that only claim to be text: to raise here would end the reader of a whole partition.
        (b"\xff", "text/csv", "/w==", {"content_type": "text/csv", "encoding": "base64"}),
    ],
)
def test_a_payload_is_shown_by_its_type(data: bytes, type: str, shown: object, tags: dict[str, str]) -> None:
    event = Event("a/b", data, "e1", Meta(ts=1_760_000_000_000, type=type))
    assert read(wire.event_publication(event, 7)) == {
        "data": shown,
        "offset": 7,
        "tags": {"id": "e1", "topic": "a/b", "ts": "1760000000000", **tags},
    }


def test_what_is_not_kept_moves_no_position() -> None:
    assert read(wire.event_publication(Event("a", b"0", "e"))) == {"data": 0, "tags": {"id": "e", "topic": "a"}}


def test_a_trace_goes_with_its_event() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    tags = read(wire.event_publication(Event("a", b"0", "e", Meta(traceparent=trace))))["tags"]
    assert tags == {"id": "e", "topic": "a", "traceparent": trace}


def test_json_is_spliced_as_it_came() -> None:
    assert b'"data":{"n" : 1.0e0}' in wire.event_publication(Event("a", b'{"n" : 1.0e0}', "e"))


def test_a_record_is_encoded_once() -> None:
    record = Record(Event("a", b"1", "e"), "a.0", 1, 5)
    first = wire.publication(record)
    assert read(first)["offset"] == 5
    assert wire.publication(record) is first


def test_a_push_names_the_channel_that_was_subscribed() -> None:
    assert read(wire.push('a/+"', b'{"data":1}')) == {"push": {"channel": 'a/+"', "pub": {"data": 1}}}
    at = wire.subscribed(Position(7, 3), recoverable=True)
    assert read(wire.push_subscribe("a", at))["push"] == {
        "channel": "a",
        "subscribe": {"recoverable": True, "positioned": True, "epoch": "7", "offset": 3},
    }
    assert read(wire.push_refresh(wire.SubRefreshResult(True, 60)))["push"] == {"refresh": {"expires": True, "ttl": 60}}
    assert wire.subscribed(Position(7, 3), recoverable=False, ttl=5) == wire.SubscribeResult(expires=True, ttl=5)
    assert read(wire.push_unsubscribe("a", 2500, "insufficient state")) == {
        "push": {"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    }


def test_a_ping_is_an_empty_object() -> None:
    assert wire.PING == b"{}"


def test_what_clears_a_last_value_is_shown_as_null() -> None:
    assert json.loads(wire.event_publication(Event("a/b", b"", "1")))["data"] is None


def test_who_came_and_who_left() -> None:
    push = read(wire.push_moved("a/b", "join", wire.ClientInfo("", "c1")))["push"]
    assert push == {"channel": "a/b", "join": {"info": {"user": "", "client": "c1"}}}
    assert read(wire.push_moved("a/b", "leave", wire.ClientInfo("bob", "c1")))["push"]["leave"]["info"]["user"] == "bob"


def test_a_message_is_a_text_frame() -> None:
    assert wire.frame(wire.PING) == b"\x81\x02{}"


def test_what_sdks_read_is_there_where_it_is_empty() -> None:
    assert read(wire.reply(1, "presence", wire.PresenceResult({})))["presence"] == {"presence": {}}
    assert read(wire.reply(1, "presence_stats", wire.PresenceStatsResult(0, 0)))["presence_stats"] == {
        "num_clients": 0,
        "num_users": 0,
    }
    history = read(wire.reply(1, "history", wire.HistoryResult([], "7", 0)))["history"]
    assert history == {"publications": [], "epoch": "7", "offset": 0}

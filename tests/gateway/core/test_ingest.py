"""Tests of core/ingest: what becomes of every message a broker may hand over."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.declared import Declared, Topic
from gateway.core.ingest import Accepted, Arrived, Decode, Deliveries, Ingest, Rejected, Sample, mark


class Reading(msgspec.Struct):
    temp: float


DECLARED = Declared(
    [
        Topic(pattern="devices/{device}/telemetry", key="{device}", mqtt="in"),
        Topic(pattern="devices/{device}/typed", schema=Reading, mqtt="in", max_bytes=100),
        Topic(pattern="devices/{device}/status", retain=True, mqtt="in"),
        Topic(pattern="devices/{device}/log", payload="text", mqtt="in"),
        Topic(pattern="devices/{device}/progress", ephemeral=True, mqtt="in"),
        Topic(pattern="devices/{device}/commands", mqtt="out"),
        Topic(pattern="rooms/{room}/messages"),
        Topic(pattern="try/#", payload="bytes", mqtt="in"),
    ]
)


def number(data: bytes) -> bytes:
    return json.dumps(int(data)).encode()


def broken(data: bytes) -> bytes:
    raise KeyError("temp")


def careless(data: bytes) -> bytes:
    return cast("bytes", "text")


DECODERS: dict[str, Decode] = {
    "text/number": number,
    "text/broken": broken,
    "text/careless": careless,
    "text/raw": bytes,
}


def judged(topic: str, payload: bytes = b"{}", **more: Any) -> Accepted | Rejected:
    return Ingest(DECLARED, DECODERS, "bridge-1").judge(Arrived(topic, payload, **more), "new", 1_760)


def accepted(topic: str, payload: bytes = b"{}", **more: Any) -> Accepted:
    answer = judged(topic, payload, **more)
    assert isinstance(answer, Accepted), answer
    return answer


@pytest.mark.parametrize(
    ("topic", "payload", "more", "reason", "says", "claimed"),
    [
        ("nothing/here", b"1", {}, "undeclared", "is not declared", False),
        ("devices/7", b"1", {}, "undeclared", "is not declared", False),
        ("devices/\x00/telemetry", b"1", {}, "bad_topic", "control character", False),
        ("x" * 300, b"1", {}, "bad_topic", "300 bytes long", False),
        ("$SYS/broker", b"1", {}, "bad_topic", "begins with $", False),
        ("", b"1", {}, "bad_topic", "empty", False),
        ("rooms/1/messages", b"1", {}, "not_mqtt", "does not take messages over MQTT", True),
        ("devices/7/commands", b"1", {}, "not_mqtt", "does not take messages over MQTT", True),
        ("devices/7/telemetry", b"1" + b" " * limits.PAYLOAD_BYTES, {}, "too_large", "65537 bytes", True),
        ("devices/7/typed", b'{"temp": 1' + b" " * 100 + b"}", {}, "too_large", "at most 100", True),
        ("devices/7/telemetry", b"", {}, "schema", "not JSON", True),
        ("devices/7/telemetry", b"\xff", {}, "schema", "not JSON", True),
        ("devices/7/telemetry", b'{"a":1,"a":2}', {}, "schema", "twice", True),
        ("devices/7/telemetry", b"[" * 65 + b"]" * 65, {}, "schema", "too deep", True),
        ("devices/7/typed", b'{"temp":"warm"}', {}, "schema", "Expected `float`", True),
        ("devices/7/log", b"\xff", {}, "schema", "not UTF-8", True),
        ("devices/7/telemetry", b"1", {"content_type": "text/csv"}, "schema", "no decoder makes JSON", True),
        ("devices/7/telemetry", b"x", {"content_type": "text/number"}, "schema", "not text/number: ValueError", True),
        ("devices/7/telemetry", b"x", {"content_type": "text/broken"}, "schema", "KeyError", True),
        ("devices/7/telemetry", b"x", {"content_type": "text/careless"}, "schema", "made str of it", True),
        ("devices/7/telemetry", b"x", {"content_type": "text/raw"}, "schema", "not JSON", True),
        ("try/x", b"1", {"content_type": "x" * 129}, "schema", "content type is too long", True),
        ("try/x", b"1", {"content_type": "a\x00b"}, "schema", "not printable", True),
        ("try/x", b"1", {"properties": [("id", "x" * 129)]}, "schema", "user property id", True),
        ("try/x", b"1", {"properties": [("id", "a\nb")]}, "schema", "user property id", True),
        ("try/x", b"1", {"properties": [(str(n), "") for n in range(33)]}, "schema", "33 user properties", True),
        ("try/x", b"1", {"properties": [("a", "x" * 4096)]}, "schema", "4096 bytes in all", True),
        ("try/x", b"1", {"properties": [("a", "ü" * 2048)]}, "schema", "4096 bytes in all", True),
    ],
)
def test_what_is_rejected_and_where_it_is_buried(
    topic: str, payload: bytes, more: dict[str, Any], reason: str, says: str, claimed: bool
) -> None:
    answer = judged(topic, payload, **more)
    assert isinstance(answer, Rejected)
    assert answer.reason == reason
    assert says in answer.error
    assert answer.partition == (DECLARED.find(topic).partition if claimed else "")


def test_a_reading_becomes_an_event() -> None:
    answer = accepted("devices/7/telemetry", b'{ "t":\n21.5 }', packet_id=9)
    event = answer.draft.event
    assert (event.topic, event.data, event.id) == ("devices/7/telemetry", b'{ "t": 21.5 }', "new")
    assert (event.meta.ts, event.meta.via, event.meta.producer) == (1_760, "mqtt", "device:7")
    assert event.meta.delivery == ("bridge-1", 9)
    assert (answer.draft.key, answer.draft.retain, answer.ephemeral) == ("7", False, False)
    assert answer.partition == DECLARED.find("devices/7/telemetry").partition


def test_a_delivery_without_a_packet_id_will_not_come_again() -> None:
    assert accepted("try/x", b"1").draft.event.meta.delivery is None
    assert accepted("try/x", b"1").draft.event.meta.producer == "mqtt"


def test_what_mqtt_5_says_of_a_message_goes_with_it() -> None:
    meta = accepted("try/x", b"1", response_topic="r", correlation=b"\x00").draft.event.meta
    assert (meta.reply_to, meta.correlation) == ("r", b"\x00")


def test_user_properties_are_headers_but_for_two() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = [("id", "reading-1"), ("traceparent", trace), ("unit", "C"), ("unit", "F")]
    event = accepted("devices/7/telemetry", properties=given).draft.event
    assert event.id == "reading-1"
    assert event.meta.headers == {"unit": "F"}
    assert event.meta.traceparent == trace
    broken = accepted("devices/7/telemetry", properties=[("traceparent", "00-" + "a" * 300)]).draft.event
    assert (broken.meta.traceparent, broken.meta.headers) == ("", {})
    assert accepted("devices/7/telemetry", properties=[("id", "")]).draft.event.id == "new"


def test_properties_at_their_bound_pass() -> None:
    given = [(f"{n:02}", "x" * 126) for n in range(limits.HEADERS)]
    assert sum(len(name) + len(value) for name, value in given) == limits.HEADER_BYTES
    assert len(accepted("try/x", properties=given).draft.event.meta.headers) == limits.HEADERS


@pytest.mark.parametrize(
    ("topic", "payload", "content_type", "type", "was", "data"),
    [
        ("devices/7/telemetry", b"1", "", "", "", b"1"),
        ("devices/7/telemetry", b"1", "Application/JSON; charset=utf-8", "", "", b"1"),
        ("devices/7/telemetry", b"1", "application/senml+json", "", "", b"1"),
        ("devices/7/telemetry", b"0042"[2:], "text/number", "", "text/number", b"42"),
        ("devices/7/log", b"hello", "", "text/plain", "", b"hello"),
        ("devices/7/log", b"hello", "text/number", "text/number", "", b"hello"),
        ("try/x", b"\xff", "", "application/octet-stream", "", b"\xff"),
        ("try/x", b"\xff", "image/png", "image/png", "", b"\xff"),
        ("try/x", b"a,b", "text/csv", "text/csv", "", b"a,b"),
        ("try/x", b"\xff", "text/csv", "application/octet-stream", "", b"\xff"),
    ],
)
def test_the_type_it_is_kept_under(
    topic: str, payload: bytes, content_type: str, type: str, was: str, data: bytes
) -> None:
    event = accepted(topic, payload, content_type=content_type).draft.event
    assert (event.meta.type, event.meta.was, event.data) == (type, was, data)


@pytest.mark.parametrize(
    ("topic", "retained", "retain", "replayed"),
    [
        ("devices/7/status", False, True, False),
        ("devices/7/status", True, True, True),
        ("devices/7/telemetry", True, False, False),
    ],
)
def test_what_a_broker_sends_because_it_was_retained_is_marked(
    topic: str, retained: bool, retain: bool, replayed: bool
) -> None:
    draft = accepted(topic, retained=retained).draft
    assert (draft.retain, draft.replayed) == (retain, replayed)


def test_an_ephemeral_topic_passes_by() -> None:
    assert accepted("devices/7/progress").ephemeral


@given(st.text(max_size=40), st.binary(max_size=40), st.sampled_from(["", *DECODERS, "application/json"]))
def test_no_message_is_without_an_answer(topic: str, payload: bytes, content_type: str) -> None:
    for name in (topic, "devices/7/telemetry", "try/x"):
        assert isinstance(judged(name, payload, content_type=content_type), Accepted | Rejected)


# --- redelivery ---


def test_a_redelivery_is_known_again() -> None:
    known, first = Deliveries(most=2), mark(1, "a", b"x")
    assert first not in known
    known.remember(first)
    assert mark(1, "a", b"x") in known
    for other in (mark(2, "a", b"x"), mark(1, "b", b"x"), mark(1, "a", b"y")):
        assert other not in known, "a packet id is used again for other messages"


def test_the_oldest_delivery_is_forgotten_first() -> None:
    known = Deliveries(most=2)
    first, second, third = (mark(n, "a", b"x") for n in (1, 2, 3))
    for delivery in (first, second, first, third):
        known.remember(delivery)
    assert (first in known, second in known, third in known) == (True, False, True)


def test_a_new_session_begins_its_packet_ids_anew() -> None:
    known = Deliveries(most=2)
    known.remember(mark(1, "a", b"x"))
    known.forget()
    assert mark(1, "a", b"x") not in known


# --- strays ---


def test_a_flood_of_strays_is_sampled_by_sender() -> None:
    sample, most = Sample(), limits.STRAYS_PER_SECOND
    kept = [sample.keep(f"devices/7/{n}", 100.0 + n / 1_000) for n in range(most + 5)]
    assert kept == [True] * most + [False] * 5
    assert sample.left_out == 5
    assert sample.keep("devices/8/x", 100.5), "another sender is not to blame"
    assert sample.keep("devices/7/x", 101.0), "another second"


def test_senders_told_apart_are_bounded() -> None:
    sample = Sample()
    assert all(sample.keep(f"a/{n}", 1.0) for n in range(limits.STRAY_SENDERS))
    assert not sample.keep("a/new", 1.5)
    assert sample.keep("a/0", 1.6), "who is known goes on"
    assert sample.keep("a/new", 2.0)


def test_a_declared_identity_names_what_a_device_sends_twice() -> None:
    topic = Topic(pattern="devices/{device}/counted", identity="{device}/{boot}/{seq}", mqtt="in")
    ingest = Ingest(Declared([topic]), {}, "bridge-1")

    def id_of(payload: bytes, **more: Any) -> str:
        became = ingest.judge(Arrived("devices/7/counted", payload, **more), "new", 1)
        assert isinstance(became, Accepted), became
        return became.draft.event.id

    assert id_of(b'{"boot":"b1","seq":3}') == "7/b1/3"
    assert id_of(b'{"boot":"b1","seq":3,"device":"8"}') == "7/b1/3", "the topic says whose it is"
    assert id_of(b'{"boot":"b1","seq":3}', properties=[("id", "given")]) == "given"
    for other in (b'{"boot":"b1"}', b'{"boot":"","seq":3}', b'{"boot":true,"seq":3}', b'{"boot":[],"seq":3}', b"3"):
        assert id_of(other) == "new"
    assert id_of(b'{"boot":"%s","seq":3}' % (b"x" * limits.ID_BYTES)) == "new"

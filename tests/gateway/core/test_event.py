"""The value that travels: small in storage, frozen, and ordered in its partition."""

import msgspec
import pytest

from gateway.core.event import Appended, Draft, Event, Meta, Position, Publication, Record, traceparent


def test_absent_facts_take_no_room_in_storage() -> None:
    assert msgspec.msgpack.encode(Meta()) == b"\x80"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Meta(ts=5, via="mqtt"))) == {"ts": 5, "via": "mqtt"}


def test_meta_survives_storage() -> None:
    meta = Meta(
        ts=1,
        type="text/plain",
        producer="device:pump-7",
        via="mqtt",
        traceparent="00-1-2-01",
        cause="e1",
        headers={"a": "b"},
        reply_to="replies/1",
        correlation=b"\x00\xff",
        delivery=("s", 7),
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(meta), type=Meta) == meta


def test_a_newer_writer_may_add_facts() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode({"ts": 3, "later": 1}), type=Meta) == Meta(ts=3)


def test_two_metas_share_no_headers() -> None:
    Meta().headers["a"] = "b"
    assert Meta().headers == {}


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


@pytest.mark.parametrize("trace", [TRACE, f"00-{IDS}-00", f"00-{IDS}-ff"])
def test_a_traceparent_goes_on_as_it_came(trace: str) -> None:
    assert len(trace) == 55
    assert traceparent(trace) == trace


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        (f"01-{IDS}-01", f"00-{IDS}-01"),
        (f"cc-{IDS}-02", f"00-{IDS}-00"),
        (f"cc-{IDS}-ff-what-the-future-will-be-like", f"00-{IDS}-01"),
        (f"cc-{IDS}-01-", f"00-{IDS}-01"),
    ],
)
def test_of_a_later_version_what_we_know_is_kept(later: str, kept: str) -> None:
    assert traceparent(later) == kept


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "00",
        TRACE[:-1],
        f"{TRACE}1",
        f"{TRACE}-",
        f"{TRACE}-more",
        f"{TRACE}\n",
        f" {TRACE}",
        f"{TRACE},{TRACE}",
        TRACE.upper(),
        f"ff-{IDS}-01",
        f"0-{IDS}-01",
        f"00-{IDS}-1g",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473.-00f067aa0ba902b7-01",
        TRACE.replace("-", "_"),
        TRACE.replace("4", "٤"),
        f"cc-{IDS}-01x",
        f"cc-{IDS}-01.what",
        "x" * 10_000,
    ],
)
def test_what_is_no_traceparent_counts_as_absent(trace: str) -> None:
    assert traceparent(trace) == ""


def test_positions_are_ordered_by_epoch_then_offset_and_print_as_one_word() -> None:
    assert sorted([Position(2, 1), Position(1, 9), Position(1, 2)]) == [Position(1, 2), Position(1, 9), Position(2, 1)]
    assert str(Position(3, 14)) == "3-14"


def test_an_event_does_not_change() -> None:
    event = Event("a/b", b"1", "id")
    with pytest.raises(AttributeError):
        event.topic = "c"  # type: ignore[misc]  # what mypy forbids must fail when run, too
    assert Draft(event, "a/b") == Draft(event, "a/b", retain=False, replayed=False, idempotency="")
    assert Appended(Position(1, 1), "id").duplicate is False
    assert Publication("a/b", b"1", "http").headers == {}


def test_a_record_keeps_the_form_it_was_encoded_to() -> None:
    record = Record(Event("a/b", b"1", "id"), "a.0", 1, 2)
    record.pub = b"{}"
    assert (record.prev, record.pub) == (0, b"{}")

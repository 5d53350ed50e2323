"""What a device may send, in every form and with every fault; CBOR; cursors of pages."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from devices import limits
from devices.decoders import cbor
from devices.readings import BadReading, Reading, read

NOW = 1_800_000_000_000


def of(payload: object) -> tuple[Reading, ...]:
    return read(payload, NOW, "e-1")


def test_an_envelope_is_a_reading() -> None:
    one = {"ts": NOW - 5, "boot": 7, "seq": 3, "m": {"temp": 21, "open": True}}
    assert of(one) == (Reading(NOW - 5, "7", 3, {"temp": 21.0, "open": 1.0}),)


def test_a_batch_is_many() -> None:
    many = [{"ts": NOW - n, "boot": "b", "seq": n, "m": {"temp": n}} for n in range(3)]
    assert [one.seq for one in of(many)] == [0, 1, 2]


def test_the_numbers_of_a_bare_object_are_metrics() -> None:
    assert of({"measured": "noon", "temp": 1.5, "boot": 1, "seq": 2}) == (Reading(NOW, "1", 2, {"temp": 1.5}),)


def test_what_has_no_name_is_named_by_its_event() -> None:
    assert of([{"temp": 1}, {"temp": 1}]) == (
        Reading(NOW, "@e-1", 0, {"temp": 1.0}, counted=False),
        Reading(NOW, "@e-1", 1, {"temp": 1.0}, counted=False),
    )


GOOD = {"ts": NOW, "boot": 1, "seq": 1, "m": {"temp": 1.0}}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ([], "0 readings"),
        ([GOOD] * (limits.READINGS_MOST + 1), "501 readings"),
        ("hot", "reading 0 is no object"),
        ([GOOD, 7], "reading 1 is no object"),
        (GOOD | {"ts": "noon"}, "ts is no whole number"),
        (GOOD | {"ts": True}, "ts is no whole number"),
        (GOOD | {"ts": NOW - limits.PAST_MOST - 1}, "-604800 s from when it arrived"),
        (GOOD | {"ts": NOW + limits.AHEAD_MOST + 1}, "+300 s from when it arrived"),
        (GOOD | {"m": 4}, "m is no object"),
        (GOOD | {"m": {}}, "0 metrics"),
        (GOOD | {"m": {f"a{n}": n for n in range(limits.METRICS_MOST + 1)}}, "65 metrics"),
        ({"text": "only"}, "0 metrics"),
        (GOOD | {"m": {"a b": 1}}, "a metric is named 'a b'"),
        (GOOD | {"m": {"temp": "hot"}}, "temp is str"),
        (GOOD | {"m": {"temp": None}}, "temp is NoneType"),
        (GOOD | {"m": {"temp": float("nan")}}, "temp is nan"),
        ({"temp": float("inf")}, "temp is inf"),
        (GOOD | {"boot": None}, "boot is no number or text"),
        (GOOD | {"boot": True}, "boot is no number or text"),
        (GOOD | {"boot": ""}, "boot is no number or text"),
        (GOOD | {"seq": None}, "seq is no whole number"),
        (GOOD | {"seq": False}, "seq is no whole number"),
        (GOOD | {"seq": -1}, "seq is no whole number"),
        (GOOD | {"seq": 1.5}, "seq is no whole number"),
    ],
)
def test_what_is_no_reading_says_why(payload: Any, why: str) -> None:
    with pytest.raises(BadReading, match=why.replace("+", r"\+")):
        of(payload)


def test_cbor_is_json() -> None:
    assert cbor(cbor2.dumps({"ts": 1, "m": {"temp": 1.5, "on": None}, "l": ["é"]})) == (
        '{"ts":1,"m":{"temp":1.5,"on":null},"l":["é"]}'.encode()
    )


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\xa1",
        cbor2.dumps(1) + b"x",
        cbor2.dumps({1: 2}),
        cbor2.dumps({"a": b"raw"}),
        cbor2.dumps(float("nan")),
        cbor2.dumps({"a": float("inf")}),
        b"\x81" * 5000 + b"\x01",
        b"\xc1\x1a\x00\x00\x00\x01",
    ],
)
def test_what_json_cannot_say_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"CBOR|JSON"):
        cbor(bad)

"""MessagePack from devices: what becomes JSON, and what is refused because JSON cannot say it."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.decoders import BUILT_IN, message_pack
from gateway.core.payload import check_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_json_can_say_says_the_same(value: Any) -> None:
    said = message_pack(msgpack.packb(value))
    assert json.loads(said) == value
    assert check_json(said) == said


@pytest.mark.parametrize(
    "payload",
    [
        msgpack.packb({"raw": b"\x00\x01"}),
        msgpack.packb({1: "a key that is a number"}),
        b"\x82\xa1a\x01\xa1a\x02",  # {"a": 1, "a": 2}
        msgpack.packb(float("nan")),
        msgpack.packb(float("inf")),
        msgpack.packb(msgpack.ExtType(7, b"x")),
        msgpack.packb({"a": 1}) + b"\x01",
        b"\xa2\xff\xfe",  # text that is no UTF-8
        b"\x91" * 5_000 + b"\x01",
        b"",
        b"\xc1",
    ],
)
def test_what_json_cannot_say_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        message_pack(payload)


def test_the_usual_names_are_understood() -> None:
    assert set(BUILT_IN) == {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}

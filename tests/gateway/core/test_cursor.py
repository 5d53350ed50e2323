"""Tests of core/cursor: what was rendered is read back, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.cursor import parse, render
from gateway.core.event import Position
from gateway.errors import Refused

PLACES = frozenset(f"devices.{n}" for n in range(8))
POSITIONS = st.builds(Position, st.integers(0, 2**63), st.integers(0, 2**63 - 1))


@given(st.dictionaries(st.sampled_from(sorted(PLACES)), POSITIONS, min_size=1))
def test_there_and_back(positions: dict[str, Position]) -> None:
    text = render(positions)
    assert parse(text, PLACES) == positions
    assert text.isprintable(), "it travels in a header and in a line of text"


def test_it_can_be_read_by_people() -> None:
    assert render({"devices.0": Position(17, 42), "devices.3": Position(17, 7)}) == "devices.0:17-42,devices.3:17-7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "devices.0",
        "devices.0:",
        "devices.0:1",
        "devices.0:1-",
        "devices.0:-1",
        "devices.0:1--1",
        "devices.0:-1-1",
        "devices.0:1-1-1",
        "devices.0:1-1,",
        "devices.0:1-1,devices.0:1-1",
        "devices.8:1-1",
        "orders.0:1-1",
        ":1-1",
        " devices.0:1-1",
        "devices.0:1-1 ",
        "devices.0:x-1",
        "devices.0:1-x",
        "devices.0:1-1.5",
        "devices.0:1-+1",
        "devices.0:1-1_0",
        "devices.0:1-١",
        "devices.0:١-1",
        "devices.0:1-²",
        "devices.0:1-9223372036854775808",
        "devices.0:1-" + "9" * 4_000,
        "devices.0:" + "9" * 21 + "-1",
    ],
)
def test_a_tampered_cursor_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"is no position of this stream; send a Last-Event-ID that this stream gave"):
        parse(text, PLACES)


def test_a_long_one_is_not_even_read() -> None:
    with pytest.raises(Refused, match="the cursor is too long"):
        parse("x" * (limits.CURSOR_BYTES + 1), PLACES)


@given(st.text())
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        found = parse(text, PLACES)
    except Refused:
        return
    assert found.keys() <= PLACES


def test_a_place_that_the_stream_has_left_is_passed_over() -> None:
    assert parse("orders.0:1-1,devices.0:1-2", PLACES) == {"devices.0": Position(1, 2)}

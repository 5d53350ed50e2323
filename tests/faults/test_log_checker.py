"""The checker of the log's faults sees each fault that we plant."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from gateway.core.event import Position
from tests.faults.log_checker import CONTROL, Story, complaints

IDS = [f"id-{n}" for n in range(20)]
STORED = [(CONTROL, Position(5, 1)), *((id, Position(5, n)) for n, id in enumerate(IDS, 2))]
GOOD = Story(sent=IDS, acknowledged=dict(STORED[1:]), stored=STORED, seen=STORED[1:])

Stored = list[tuple[str, Position]]


def _drop_in_the_middle(stored: Stored) -> Stored:
    return stored[:7] + stored[8:]


def _drop_and_close_the_gap(stored: Stored) -> Stored:
    return stored[:7] + [(id, Position(5, n)) for n, (id, _) in enumerate(stored[8:], 8)]


def _drop_the_tail(stored: Stored) -> Stored:
    return stored[:-3]


def _double(stored: Stored) -> Stored:
    return [*stored, (stored[4][0], Position(5, 22))]


def _swap(stored: Stored) -> Stored:
    swapped = list(stored)
    swapped[4], swapped[5] = (stored[5][0], stored[4][1]), (stored[4][0], stored[5][1])
    return swapped


def _phantom(stored: Stored) -> Stored:
    return [*stored, ("nobody sent this", Position(5, 22))]


def _reuse_an_offset(stored: Stored) -> Stored:
    return [*stored[:-1], (stored[-1][0], Position(6, stored[-2][1].offset))]


def _two_epochs(stored: Stored) -> Stored:
    return [*stored, (CONTROL, Position(6, 22))]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (_drop_in_the_middle, {"lost", "hole"}),
        (_drop_and_close_the_gap, {"lost", "reused"}),
        (_drop_the_tail, {"lost"}),
        (_double, {"double"}),
        (_swap, {"order", "reused"}),
        (_phantom, {"phantom"}),
        (_reuse_an_offset, {"reused", "hole"}),
        (_two_epochs, {"epochs"}),
    ],
)
def test_a_planted_fault_is_named(fault: Callable[[Stored], Stored], named: set[str]) -> None:
    stored = fault(STORED)
    assert complaints(msgspec.structs.replace(GOOD, stored=stored, seen=())) == named


def test_a_good_story_has_no_complaint() -> None:
    assert complaints(GOOD) == set()


@pytest.mark.parametrize("fault", [_drop_in_the_middle, _drop_the_tail, _double, _swap, _phantom])
def test_a_tail_that_saw_otherwise_is_named(fault: Callable[[Stored], Stored]) -> None:
    assert complaints(msgspec.structs.replace(GOOD, seen=fault(STORED)[1:])) == {"seen otherwise"}


def test_a_double_after_a_lost_reply_is_no_fault_but_a_change_of_order_is() -> None:
    again = msgspec.structs.replace(GOOD, stored=_double(STORED), seen=(), doubles=True)
    assert complaints(again) == set()
    assert "order" in complaints(msgspec.structs.replace(again, stored=_swap(STORED)))

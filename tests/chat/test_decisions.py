"""What chat decides without waiting: rights, refusals, the bucket, repeats, cursors."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import limits
from chat.rules import Act, Role, RoomKind, Standing, Target, heir, is_name, oldest_repeat, read_to, refusal
from chat.rules import take as take_of

MEMBER = Standing("private", "member")
MINE = Target("message", "ann", deleted=False)


def take(full: int, now: int) -> tuple[int, int]:
    return take_of(full, now, limits.BURST, limits.EVERY)


def test_every_pair_of_room_and_role() -> None:
    allowed = {
        ("public", "none"): "see join",
        ("public", "member"): "see write leave",
        ("public", "owner"): "see write leave remove",
        ("private", "member"): "see write leave",
        ("private", "owner"): "see write leave invite remove",
        ("direct", "member"): "see write",
    }
    for kind, role, act in product(get_args(RoomKind), get_args(Role), get_args(Act)):
        may = act in allowed.get((kind, role), "").split()
        assert Standing(kind, role).may(act) is may, (kind, role, act)


@pytest.mark.parametrize(
    ("standing", "aims", "target", "why"),
    [
        (None, False, None, "no_room"),
        (Standing("private", "none"), False, None, "no_room"),
        (Standing("direct", "none"), True, MINE, "no_room"),
        (Standing("public", "none"), False, None, "not_member"),
        (MEMBER, False, None, None),
        (MEMBER, True, None, "no_message"),
        (MEMBER, True, Target("joined", "ann", deleted=False), "no_message"),
        (MEMBER, True, Target("message", "ann", deleted=True), "no_message"),
        (MEMBER, True, Target("message", "bob", deleted=False), "not_yours"),
        (MEMBER, True, MINE, None),
    ],
)
def test_why_something_is_not_written(
    standing: Standing | None, aims: bool, target: Target | None, why: str | None
) -> None:
    assert refusal("ann", standing, aims, target) == why


def test_a_burst_and_then_one_at_a_time() -> None:
    full, now = 0, 1_000_000
    for _ in range(limits.BURST):
        full, wait = take(full, now)
        assert wait == 0
    full, wait = take(full, now)
    assert wait == limits.EVERY
    assert take(full, now + wait - 1)[1] == 1
    full, wait = take(full, now + wait)
    assert wait == 0
    assert take(full, now + limits.EVERY)[1] == limits.EVERY


@given(st.lists(st.integers(0, 3 * limits.EVERY), max_size=100))
def test_the_bucket_never_gives_more_than_it_gains(pauses: list[int]) -> None:
    full, now, given = 0, 10**12, 0
    began = now
    for pause in pauses:
        now += pause
        full, wait = take(full, now)
        given += wait == 0
        assert 0 <= wait <= limits.EVERY
    assert given <= limits.BURST + (now - began) // limits.EVERY


def test_a_clock_that_went_back_locks_nobody_out() -> None:
    full, wait = take(10**12 + 3_600_000, 10**12)
    assert wait == 0
    assert take(full, 10**12)[1] == limits.EVERY


def test_an_id_is_known_for_a_day() -> None:
    assert oldest_repeat(86_400_000) == 0


@given(st.integers(0, 100), st.lists(st.integers(1, 200)))
def test_a_cursor_never_goes_back_and_never_past_the_end(newest: int, asked: list[int]) -> None:
    read = 0
    for one in asked:
        before, read = read, read_to(read, one, newest)
        assert before <= read <= newest


def test_who_is_there_longest_inherits() -> None:
    assert heir([]) is None
    assert heir([(2, "ann"), (1, "cat"), (1, "bob")]) == "bob"


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "ä", "a\x00", "x" * 65, "ann\n"])
def test_what_is_no_level_of_a_topic(name: str) -> None:
    assert not is_name(name)


def test_what_is_one() -> None:
    assert is_name("0192d7a1-ann.smith_7@example.org:x")

"""Tests of core/rate: buckets against a counter that remembers every moment, and who is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.access import ANONYMOUS, Principal
from gateway.core.rate import UNBOUNDED, Rate, Rates

ALICE = Principal("user", "alice")


def takes(rate: Rate, moments: list[float]) -> list[bool]:
    full, taken = 0.0, []
    for now in moments:
        then = rate.take(full, now)
        taken.append(then is not None)
        full = full if then is None else then
    return taken


@given(
    per_second=st.sampled_from([0.5, 1, 2, 4]),
    burst=st.integers(1, 5),
    pauses=st.lists(st.sampled_from([0, 0, 0.25, 0.5, 1, 2, 60]), max_size=40),
    began=st.sampled_from([1, 1_000_000, 100_000_000]),
)
def test_a_bucket_is_a_count_of_tokens(per_second: float, burst: int, pauses: list[float], began: int) -> None:
    rate, now, tokens = Rate(per_second, burst), float(began), float(burst)
    moments, expected = [], []
    for pause in pauses:
        now += pause
        moments.append(now)
        tokens = min(burst, tokens + pause * per_second)
        expected.append(tokens >= 1)
        tokens -= tokens >= 1
    assert takes(rate, moments) == expected


def test_a_burst_is_whole_on_a_clock_of_years() -> None:
    assert takes(Rate(50, 100), [100_000_000.1] * 101) == [True] * 100 + [False]


def test_how_long_to_wait() -> None:
    rate = Rate(2, 3)
    full = 0.0
    for _ in range(3):
        assert rate.wait(full, 10) == 0
        full = rate.take(full, 10) or 0
    assert rate.wait(full, 10) == pytest.approx(0.5)
    assert rate.wait(full, 10.25) == pytest.approx(0.25)
    assert rate.take(full, 10.5) is not None


def test_times() -> None:
    assert Rate(2, 3).times(10) == Rate(20, 30)


def test_each_principal_has_a_bucket() -> None:
    rates = Rates(Rate(2, 3))
    assert [rates.take(ALICE, 10) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    assert rates.take(Principal("user", "bob"), 10) == 0
    assert rates.take(Principal("device", "alice"), 10) == 0
    assert rates.take(ALICE, 10.5) == 0
    assert len(rates) == 3


@pytest.mark.parametrize("who", [ANONYMOUS, Principal("service", "shop.stock"), Principal("operator", "mary")])
def test_nobody_in_particular_and_those_who_speak_for_many_have_none(who: Principal) -> None:
    rates = Rates(Rate(2, 3))
    assert not any(rates.take(who, 10) for _ in range(10))
    assert len(rates) == 0


def test_without_a_rate_nobody_has_one() -> None:
    rates = Rates(UNBOUNDED)
    assert not any(rates.take(ALICE, 10) for _ in range(10))
    assert len(rates) == 0


def test_the_longest_quiet_are_forgotten() -> None:
    rates = Rates(Rate(0.001, 1))
    assert rates.take(ALICE, 10) == 0
    assert rates.take(Principal("user", "bob"), 10) == 0
    for n in range(limits.RATED - 1):
        assert rates.take(Principal("user", f"u{n}"), 10) == 0
    assert len(rates) == limits.RATED
    assert rates.take(Principal("user", "bob"), 10) > 0, "is known"
    assert rates.take(ALICE, 10) == 0, "begins anew"

"""What follows a delivery: every way it can end, and pauses that grow."""

import uuid

import pytest

from gateway import limits
from gateway.core.delivery import (
    ACK,
    Bury,
    Expired,
    Later,
    Park,
    Rejected,
    Retry,
    Undecodable,
    crashed,
    emitted_id,
    judge,
)
from gateway.errors import Misconfigured, Unavailable

RETRY = Retry(3, first=1.0, most=3.0)


def test_what_raised_nothing_is_done() -> None:
    assert judge(1, None, RETRY, 0.5) is ACK


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Rejected("no such order"), "rejected"), (Undecodable("x"), "schema"), (Expired("x"), "expired")],
)
def test_what_cannot_get_better_is_never_retried(error: Exception, reason: str) -> None:
    assert judge(1, error, RETRY, 0.5) == Bury(reason, str(error))


def test_a_server_that_is_away_is_no_failure_of_the_event() -> None:
    assert judge(3, Unavailable("x"), RETRY, 1.0) == Park(limits.AWAY_PAUSE, 2, "x")
    assert judge(3, Unavailable("x", retry_after=5.0), RETRY, 0.0) == Park(2.5, 2, "x")
    assert judge(99, Unavailable("x", retry_after=1e9), RETRY, 1.0) == Park(limits.PAUSE_MOST, 98, "x")


def test_a_failure_is_tried_again_after_growing_pauses_until_its_attempts_are_used_up() -> None:
    error = KeyError("x")
    assert judge(1, error, RETRY, 1.0) == Park(1.0, 1, "KeyError: 'x'")
    assert judge(2, error, RETRY, 1.0) == Park(2.0, 2, "KeyError: 'x'")
    assert judge(3, error, RETRY, 1.0) == Bury("gave_up", "KeyError: 'x'")


@pytest.mark.parametrize(
    ("after", "waits"), [(7.0, 7.0), (-1.0, 0.0), (float("nan"), 0.0), (float("inf"), limits.PAUSE_MOST)]
)
def test_later_is_no_failure_and_is_bounded(after: float, waits: float) -> None:
    assert judge(3, Later(after), RETRY, 0.5) == Park(waits, 2, f"again in {after} s")


def test_a_pause_is_half_certain_half_jitter_and_never_above_the_most() -> None:
    assert (RETRY.pause(1, 0.0), RETRY.pause(1, 1.0)) == (0.5, 1.0)
    assert RETRY.pause(100_000, 1.0) == 3.0


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": 0},
        {"attempts": limits.ATTEMPTS_MOST + 1},
        {"first": 0.0},
        {"first": 2.0, "most": 1.0},
        {"most": limits.PAUSE_MOST + 1},
        {"most": float("nan")},
    ],
)
def test_a_retry_that_contradicts_itself_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(Misconfigured, match="retry: "):
        Retry(**fields)  # type: ignore[arg-type]  # attempts is an int where it is there


def test_an_event_that_kills_its_workers_is_buried_after_so_many() -> None:
    assert crashed(limits.CRASHES) is None
    assert crashed(limits.CRASHES + 1) == Bury("crash_loop", f"{limits.CRASHES + 1} workers died while they handled it")


def test_a_second_delivery_emits_the_same_ids() -> None:
    ids = [emitted_id(event, group, n) for event in ("a", "b") for group in ("shop.x", "shop.y") for n in (0, 1)]
    assert ids == [
        emitted_id(event, group, n) for event in ("a", "b") for group in ("shop.x", "shop.y") for n in (0, 1)
    ]
    assert len(set(ids)) == len(ids)
    for text in ids:
        made = uuid.UUID(text)
        assert (str(made), made.version, made.variant) == (text, 8, uuid.RFC_4122)

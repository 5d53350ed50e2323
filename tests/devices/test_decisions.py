"""What the fleet's services decide: rollups, windows, tables of states, faults on purpose."""

from __future__ import annotations

import random
from itertools import product
from typing import Any, get_args

import pytest

from devices import limits
from devices.analytics.windows import Span, forgotten, over, remembered, score, start, watermark
from devices.events import Presence, Status
from devices.readings import Reading
from devices.registry.rules import STEPS, State, What, presence
from devices.simulation import Faults, Mischief, Sent
from devices.storage.rollup import Rollup, Run, latest, level, rollups, runs

#: The beginning of an hour and of a window.
HOUR = 500_000 * 3_600_000
MINUTE = limits.WINDOW
HERE, GONE = Presence(True, "2", 5), Presence(False, "2", 5)


def reading(seq: int, ts: int, value: float, *, counted: bool = True) -> tuple[str, Reading]:
    return "pump", Reading(ts, "b", seq, {"temp": value}, counted)


def test_rollups_add_up_in_any_order() -> None:
    some = [reading(n, 3_600_000 + n * 30_000, float(n)) for n in range(4)]
    made = rollups(some)
    assert made == rollups(reversed(some))
    assert made["pump", "temp", 3_600_000, 3_600_000] == Rollup(4, 6.0, 0.0, 3.0)
    assert made["pump", "temp", 60_000, 3_660_000] == Rollup(2, 5.0, 2.0, 3.0)


def test_the_newest_is_by_event_time() -> None:
    assert latest([reading(1, 50, 1.0), reading(2, 40, 2.0)]) == {("pump", "temp"): (50, 1.0)}
    assert latest([reading(1, 40, 1.0), reading(2, 50, 2.0)]) == {("pump", "temp"): (50, 2.0)}


def test_a_run_counts_what_came_twice_and_what_did_not() -> None:
    came = [reading(5, 1, 0.0), reading(9, 3, 0.0), reading(9, 2, 0.0), reading(0, 9, 0.0, counted=False)]
    run = runs(came, [came[0], came[1], came[3]])["pump", "b"]
    assert run == Run(5, 9, 2, 1, 3)
    assert run.lost == 3


@pytest.mark.parametrize(("minutes", "points", "chosen"), [(60, 60, "minute"), (61, 60, "hour"), (600_000, 1, "hour")])
def test_a_level_fits_the_points(minutes: int, points: int, chosen: str) -> None:
    assert level(0, minutes * 60_000, points) == chosen


def test_a_window_is_over_behind_the_watermark_and_forgotten_an_hour_later() -> None:
    assert start(HOUR + 59_999) == HOUR
    assert not over(HOUR, watermark(HOUR + MINUTE + limits.LATENESS - 1))
    assert over(HOUR, watermark(HOUR + MINUTE + limits.LATENESS))
    assert not forgotten(HOUR, HOUR + MINUTE + limits.WINDOW_KEPT - 1)
    assert forgotten(HOUR, HOUR + MINUTE + limits.WINDOW_KEPT)


def test_a_span_is_what_its_values_were() -> None:
    span = Span().with_value(1.0).with_value(4.0)
    assert (span.count, span.mean, span.least, span.most) == (2, 2.5, 1.0, 4.0)


def test_a_score_is_in_robust_deviations() -> None:
    some = [float(n) for n in range(1, 10)]
    assert score(5.0, some) == 0.0
    assert score(5.0 + 2 * 1.4826, some) == pytest.approx(1.0)
    assert score(5.0, some[:7]) is None
    # One outlier among them widens nothing; more than half of them equal, and the mean deviation counts.
    assert score(9.0, [*some, 1e9]) == pytest.approx((9 - 5.5) / (1.4826 * 2.5))
    assert score(2.0, [1.0] * 9 + [2.0]) == pytest.approx(1 / (1.253314 * 0.1))
    assert score(2.0, [1.0] * 9) == limits.SCORE_MOST
    assert score(0.0, [1.0] * 9) == -limits.SCORE_MOST


def test_history_is_by_start_and_bounded() -> None:
    history = [(n, 0.0) for n in range(limits.HISTORY)]
    assert remembered(history, 5, 1.0)[5] == (5, 1.0)
    assert remembered(history, 99, 1.0)[0] == (1, 0.0)
    assert len(remembered(history, 99, 1.0)) == limits.HISTORY


def test_what_may_become_of_a_device_is_a_table() -> None:
    legal = {
        "deleted create active", "active suspend suspended", "suspended suspend suspended", "active resume active",
        "suspended resume active", "active rotate active", "suspended rotate suspended", "active delete deleted",
        "suspended delete deleted",
    }  # fmt: skip
    assert {f"{a} {what} {b}" for (a, what), b in STEPS.items()} == legal
    assert {pair for pair in STEPS} <= set(product(get_args(State), get_args(What)))


@pytest.mark.parametrize(
    ("old", "said", "new"),
    [
        (None, Status("online", 2), Presence(True, "2", 9)),
        (None, Status("offline", 2), Presence(False, "2", 9)),
        (HERE, Status("online", 2), None),
        (HERE, Status("online", 3), Presence(True, "3", 9)),
        (HERE, Status("offline", 1), None),
        (HERE, Status("offline", 2), Presence(False, "2", 9)),
        (GONE, Status("offline", 2), None),
        (GONE, Status("online", 2), Presence(True, "2", 9)),
    ],
)
def test_births_and_wills(old: Presence | None, said: Status, new: Presence | None) -> None:
    assert presence(old, said, 9) == new


def one(seq: int, temp: float = 1.0) -> dict[str, Any]:
    return {"seq": seq, "m": {"temp": temp}}


def way(faults: Faults, count: int) -> list[Sent]:
    mischief = Mischief(faults, random.Random(1))
    return [*(mischief.take(one(n)) for n in range(count)), mischief.rest()]


def test_without_faults_each_reading_leaves_as_it_is() -> None:
    assert way(Faults(), 3) == [*(Sent((one(n),)) for n in range(3)), Sent()]


@pytest.mark.parametrize(
    ("faults", "count", "leaves"),
    [
        (Faults(dropout=1), 2, [Sent(lost=True)] * 2 + [Sent()]),
        (Faults(duplicate=1), 1, [Sent((one(0), one(0))), Sent()]),
        (Faults(spike=1), 1, [Sent((one(0, 110.0),)), Sent()]),
        (Faults(reorder=1), 3, [Sent(), Sent((one(1), one(0))), Sent(), Sent((one(2),))]),
        (Faults(late=1), 2, [Sent(), Sent(), Sent(([one(0), one(1)],))]),
    ],
)
def test_each_fault_does_what_it_is_called(faults: Faults, count: int, leaves: list[Sent]) -> None:
    assert way(faults, count) == leaves


def test_a_batch_leaves_when_it_is_full() -> None:
    leaves = way(Faults(late=1), limits.SIMULATED_BATCH)
    assert [len(sent.messages) for sent in leaves] == [0] * (limits.SIMULATED_BATCH - 1) + [1, 0]

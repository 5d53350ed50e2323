"""Windows in event time: which one a reading is of, when it is over, and how unusual it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

import msgspec

from devices import limits


class Span(msgspec.Struct, frozen=True):
    """What the values of one window were together."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def with_value(self, value: float) -> Span:
        return Span(self.count + 1, self.total + value, min(self.least, value), max(self.most, value))

    @property
    def mean(self) -> float:
        return self.total / self.count


def start(ts: int) -> int:
    """Return the beginning of the window that ``ts`` is in."""
    return ts // limits.WINDOW * limits.WINDOW


def watermark(newest: int) -> int:
    """Return the time up to which a device has said all that is not late."""
    return newest - limits.LATENESS


def over(begin: int, mark: int) -> bool:
    """Say whether the window from ``begin`` on can be told."""
    return begin + limits.WINDOW <= mark


def forgotten(begin: int, mark: int) -> bool:
    """Say whether the window from ``begin`` on takes late data no more."""
    return begin + limits.WINDOW + limits.WINDOW_KEPT <= mark


def score(value: float, before: Sequence[float]) -> float | None:
    """Return the robust z-score of ``value`` among ``before``; None while there are too few of these.

    Distance to the median in units of the median absolute deviation, which one outlier does not widen; where more than
    half of them are equal, of the mean absolute deviation (Iglewicz and Hoaglin, How to Detect and Handle Outliers).
    """
    if len(before) < limits.HISTORY_LEAST:
        return None
    middle = median(before)
    distances = [abs(one - middle) for one in before]
    spread = 1.4826 * median(distances) or 1.253314 * fmean(distances)
    if value == middle:
        return 0.0
    far = (value - middle) / spread if spread else math.copysign(math.inf, value - middle)
    return max(-limits.SCORE_MOST, min(limits.SCORE_MOST, far))


def remembered(history: Sequence[tuple[int, float]], begin: int, mean: float) -> list[tuple[int, float]]:
    """Return ``history`` with the window from ``begin`` on, in place of what it was before; the oldest leaves."""
    return sorted([one for one in history if one[0] != begin] + [(begin, mean)])[-limits.HISTORY :]

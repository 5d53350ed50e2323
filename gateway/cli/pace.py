"""How many events a person can read: a few a second, the rest counted."""

from __future__ import annotations

from gateway import limits


class Pace:
    """Decides which events are shown. Pure: the time comes with each, in seconds."""

    def __init__(self, now: float) -> None:
        self._shown = now - 1.0
        self._told = now
        self._left_out = 0

    def admit(self, now: float) -> bool:
        """Say whether an event may be shown now; counts it otherwise."""
        if now - self._shown < 1.0 / limits.SHOWN_PER_SECOND:
            self._left_out += 1
            return False
        self._shown = now
        return True

    def left_out(self, now: float) -> int:
        """Return how many were not shown since this was last told; 0 while it is too early to tell."""
        if now - self._told < limits.TOLD_EVERY or not self._left_out:
            return 0
        count, self._left_out, self._told = self._left_out, 0, now
        return count

"""Which denied requests the audit log hears of: enough to see who tries what, too few to fill a disk."""

from __future__ import annotations

from gateway import limits


class Denials:
    """One of each principal in a second, few in all; the rest is counted."""

    def __init__(self) -> None:
        self._second = 0
        self._told: set[str] = set()
        self._untold = 0

    def tell(self, who: str, now: float) -> int | None:
        """Return how many went untold before this one, or None where it goes untold too."""
        if int(now) != self._second:
            self._second = int(now)
            self._told.clear()
        if who in self._told or len(self._told) >= limits.DENIALS_TOLD:
            self._untold += 1
            return None
        self._told.add(who)
        untold, self._untold = self._untold, 0
        return untold

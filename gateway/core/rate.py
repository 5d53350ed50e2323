"""How often something may come: so many a second and so many at once, by one number for each who asks."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from gateway import limits
from gateway.core.access import Principal

#: Seconds that a hundred additions to a clock of years round at most.
_ROUNDED = 1e-6


class Rate(msgspec.Struct, frozen=True):
    """A bucket of ``burst`` tokens that gains ``per_second``; 0: as many as come.

    All that is known of a bucket is when it is full again (ITU-T I.371, virtual scheduling): 0.0 for a new one. Times
    are seconds of a clock that never goes back.
    """

    per_second: float = 0.0
    burst: int = 1

    def take(self, full: float, now: float) -> float | None:
        """Take a token of a bucket that is full at ``full``; return when it is now, or None where there is no token."""
        every = 1.0 / self.per_second
        then = (full if full > now else now) + every
        return then if then - now <= self.burst * every + _ROUNDED else None

    def wait(self, full: float, now: float) -> float:
        """Return in how many seconds there is a token."""
        return max(0.0, full - now - (self.burst - 1) / self.per_second)

    def times(self, n: int) -> Rate:
        """Return the rate of ``n`` of these buckets."""
        return Rate(self.per_second * n, self.burst * n)


UNBOUNDED = Rate()


def bounded(who: Principal) -> bool:
    """Say whether rates hold for ``who``: services and operators are the operator's own, and speak for many."""
    return who.kind not in ("service", "operator")


class Rates:
    """A bucket for each principal with a name; ``limits.RATED`` are known, the longest quiet are forgotten."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full: OrderedDict[Principal, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, who: Principal, now: float) -> float:
        """Take a token of ``who``; return 0.0, or in how many seconds there is one."""
        if not self._rate.per_second or not who.name or not bounded(who):
            return 0.0
        full = self._full.get(who, 0.0)
        then = self._rate.take(full, now)
        if then is None:
            return self._rate.wait(full, now)
        self._full[who] = then
        self._full.move_to_end(who)
        if len(self._full) > limits.RATED:
            self._full.popitem(last=False)
        return 0.0

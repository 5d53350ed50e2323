"""How long to wait after failed logins: longer with each, and never for ever."""

from __future__ import annotations

import hashlib
from typing import Final

from accounts import limits

#: What is counted → failures that cost nothing.
FREE: Final = {"pair": limits.FREE_PAIR, "mail": limits.FREE_MAIL, "place": limits.FREE_PLACE}


def counters(mail: str, place: str) -> dict[str, int]:
    """Return the names under which a try is counted → failures that cost nothing. They name nobody."""
    said = {"pair": f"{mail}\0{place}", "mail": mail, "place": place}
    return {f"{what}:{hashlib.sha256(said[what].encode()).hexdigest()}": free for what, free in FREE.items()}


def wait(failures: int, since: float, free: int) -> float:
    """Return for how many seconds more a try is refused, ``since`` seconds after the last of ``failures``."""
    if failures < free:
        return 0.0
    pause = min(float(limits.WAIT_MOST), 2.0 ** min(failures - free, 30))
    return max(0.0, pause - since)


def counted(failures: int, since: float) -> int:
    """Return how many failures there are with one more."""
    return 1 if since > limits.FAILURES_KEPT else failures + 1

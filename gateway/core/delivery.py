"""What follows one delivery of an event to a handler: done, again later, or among the dead letters."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gateway import limits
from gateway.errors import Misconfigured, Unavailable


class Retry(msgspec.Struct, frozen=True):
    """How often and how patiently a failing handler is asked again. Seconds."""

    #: Deliveries in all, the first included.
    attempts: int = 5
    #: The pause after the first failure; it doubles with each further one.
    first: float = 0.2
    #: The longest pause.
    most: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= limits.ATTEMPTS_MOST:
            raise Misconfigured(f"retry: {self.attempts} attempts", f"use 1 to {limits.ATTEMPTS_MOST}")
        if not 0 < self.first <= self.most <= limits.PAUSE_MOST:
            raise Misconfigured(
                f"retry: first is {self.first} s and most {self.most} s",
                f"use 0 < first <= most <= {limits.PAUSE_MOST:g}",
            )

    def pause(self, attempt: int, jitter: float) -> float:
        """Return how long to wait after failure number ``attempt`` (from 1); ``jitter`` is 0.0 to 1.0, from outside.

        Half of the pause is certain and half is jitter, so that what failed together does not come back together.
        """
        whole = min(self.most, self.first * 2.0 ** min(attempt - 1, 60))
        return whole * (0.5 + 0.5 * jitter)


class Later(Exception):
    """Raised by a handler that cannot decide yet: ask again ``after`` seconds. It is no failure and is not counted.

    At most ``limits.PAUSE_MOST``: what has to wait longer is a delayed event, not an unfinished one.
    """

    def __init__(self, after: float) -> None:
        super().__init__(f"again in {after} s")
        self.after = after


class Rejected(Exception):
    """Raised by a handler on purpose: this event will never be handled. Its reason stands in the dead letter."""


class Undecodable(Exception):
    """The payload is not of the handler's type."""


class Expired(Exception):
    """The event is older than its handler takes."""


class Ack(msgspec.Struct, frozen=True):
    """Done."""


class Park(msgspec.Struct, frozen=True):
    """Deliver again ``after`` seconds; ``attempts`` failures so far."""

    after: float
    attempts: int
    error: str = ""


class Bury(msgspec.Struct, frozen=True):
    """Among the dead letters, with ``reason``: a stable word."""

    reason: str
    error: str


Verdict = Ack | Park | Bury

ACK: Final = Ack()


def judge(attempt: int, error: BaseException | None, retry: Retry, jitter: float) -> Verdict:
    """Decide what follows delivery number ``attempt``, counted from 1."""
    match error:
        case None:
            return ACK
        case Later():
            # In this order NaN counts as 0: whatever a handler says, the pause is one.
            return Park(min(limits.PAUSE_MOST, max(0.0, error.after)), attempt - 1, str(error))
        case Rejected():
            return Bury("rejected", str(error))
        case Undecodable():
            return Bury("schema", str(error))
        case Expired():
            return Bury("expired", str(error))
        case Unavailable():
            # A server is away: that is no failure of this event, and however long it lasts, it is not given up.
            pause = limits.AWAY_PAUSE if error.retry_after is None else min(limits.PAUSE_MOST, error.retry_after)
            return Park(pause * (0.5 + 0.5 * jitter), attempt - 1, str(error))
    what = f"{type(error).__name__}: {error}"
    if attempt >= retry.attempts:
        return Bury("gave_up", what)
    return Park(retry.pause(attempt, jitter), attempt, what)


def crashed(crashes: int, most: int = limits.CRASHES) -> Bury | None:
    """Decide whether an event that ``crashes`` workers handled when they died may be tried once more."""
    if crashes <= most:
        return None
    return Bury("crash_loop", f"{crashes} workers died while they handled it")


#: Reasons that whoever asked is told, with their words. What else goes wrong in a service is not for strangers to read.
TOLD: Final = ("expired", "rejected", "schema")


def emitted_id(event_id: str, group: str, n: int) -> str:
    """Return the id of the ``n``th event that ``group`` emits for an event: the same at each delivery of that event.

    A UUID of version 8 (RFC 9562, 5.8), so that whoever knows ids by their form takes it for one.
    """
    made = hashlib.blake2b(f"{event_id}\0{group}\0{n}".encode(), digest_size=16).hexdigest()
    return f"{made[:8]}-{made[8:12]}-8{made[13:16]}-{'89ab'[int(made[16], 16) & 3]}{made[17:20]}-{made[20:]}"

"""The places of each user at one edge: so many connections, taken by those who are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import limits
from gateway.core.access import Principal
from gateway.core.rate import bounded
from gateway.errors import LimitReached, TooFast

if TYPE_CHECKING:
    from gateway.edge.terms import Terms


class Places:
    """``most`` connections for each principal with a name that is no service and no operator; 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[Principal, tuple[Terms, ...]] = {}
        #: When those of a principal without a place left were last asked whether they are there.
        self._asked: dict[Principal, float] = {}

    def take(self, one: Terms, who: Principal, now: float) -> None:
        """Give ``one`` a place until it leaves.

        A line that broke without a word holds its place until its pong is due: who comes while there is none left
        raises :class:`TooFast` until all the others have answered a ping, and then :class:`LimitReached`.
        """
        if not self._most or not who.name or not bounded(who):
            return
        there = self._taken.get(who, ())
        if len(there) < self._most:
            self._taken[who] = (*there, one)
            return
        if now - self._asked.get(who, -limits.LOOKED_FOR) >= limits.LOOKED_FOR:
            self._asked[who] = now
            for other in there:
                other.look()
        if any(other.silent for other in there):
            raise TooFast(f"{who} has {self._most} connections, and is looked for there", "try again", retry_after=1.0)
        raise LimitReached(f"{who} has {self._most} connections", "close one")

    def leave(self, one: Terms, who: Principal) -> None:
        """Give back the place of ``one``, if it has one."""
        there = tuple(other for other in self._taken.get(who, ()) if other is not one)
        if there:
            self._taken[who] = there
        else:
            self._taken.pop(who, None)
        self._asked.pop(who, None)

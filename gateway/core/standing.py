"""What becomes of a subscription when the declarations change: it stays, comes back for what is new, or ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.core.access import Principal
from gateway.core.declared import Declared, Found, Topic
from gateway.core.event import Partition
from gateway.errors import GatewayError

Verdict = Literal["stays", "returns", "ends"]


class Standing(msgspec.Struct, frozen=True):
    """What a subscription hangs on beside its rights: where its events stand, and what it may ask of them."""

    places: frozenset[Partition]
    recoverable: bool
    presence: bool


def standing(declared: Declared, met: Sequence[Found]) -> Standing:
    """Return how who subscribes to what meets ``met`` stands."""
    return Standing(
        declared.places(met),
        all(found.topic.history and not found.topic.ephemeral for found in met),
        met[0].topic.presence,
    )


class Redecision:
    """Decides again, for one change of declarations: each filter once, and its bearers only where it was touched.

    A subscription that ``ends`` may not be had any more. One that ``returns`` may, but stands elsewhere: whoever asks
    for it again gets what asking for the first time would give, and from where it was.
    """

    def __init__(self, old: Declared, new: Declared) -> None:
        self._old, self._new = old, new
        #: Filter -> whether nothing that decides about it changed, and whether it stands as it did.
        self._known: dict[str, tuple[bool, bool]] = {}

    def of(self, who: Principal, filter: str) -> Verdict:
        """Return what becomes of the subscription of ``who`` to ``filter``."""
        untouched, stands = self._known.get(filter) or self._look(filter)
        if not untouched:
            try:
                self._new.readable(who, filter)
            except GatewayError:
                return "ends"
        return "stays" if stands else "returns"

    def _look(self, filter: str) -> tuple[bool, bool]:
        before, after = (_met(declared, filter) for declared in (self._old, self._new))
        untouched = _deciding(self._old, filter, before) == _deciding(self._new, filter, after)
        stands = bool(before and after) and standing(self._old, before) == standing(self._new, after)
        found = self._known[filter] = untouched, stands
        return found


def _met(declared: Declared, filter: str) -> list[Found]:
    try:
        return declared.meeting(filter)
    except GatewayError:
        return []


def _deciding(declared: Declared, filter: str, met: Sequence[Found]) -> tuple[list[Topic], list[Topic]]:
    return [found.topic for found in met], declared.denying(filter)

"""Whether a client that was away can be brought up to date, and from where: epochs, offsets and what is still kept."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.core.event import Position


class Epochs(msgspec.Struct, frozen=True):
    """The histories of one partition: epoch → its first offset. Offsets go on across epochs and never restart."""

    first: Mapping[int, int]

    @property
    def current(self) -> int:
        return max(self.first, default=0)

    def continuous(self, at: Position) -> bool:
        """Say whether the log still agrees with a reader who stands at ``at``.

        It does if the epoch is known and the offset lies below the first offset of the next one; else the log lost
        what that reader had seen (a failover to a replica that lagged, a restart that forgot).
        """
        if at.epoch not in self.first or at.offset < 0:
            return False
        following = [offset for epoch, offset in self.first.items() if epoch > at.epoch]
        return not following or at.offset < min(following)

    def at(self, offset: int) -> Position:
        """Return the position of ``offset``, in whichever epoch it was given: the id by which the log knows it."""
        epochs = [epoch for epoch, first in self.first.items() if first <= offset]
        return Position(max(epochs, default=min(self.first, default=0)), offset)


def parse(epoch: str, offset: int) -> Position | None:
    """Return the position a client claims, or None where it is no position of ours (never an error: it may be old)."""
    if not epoch.isascii() or not epoch.isdigit() or len(epoch) > 20 or not 0 <= offset < 2**63:
        return None
    return Position(int(epoch), offset)

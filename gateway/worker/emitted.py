"""An emitted event: on its way from a delivery into the log."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.core.event import Draft, Partition

#: What a topic's declaration says of a payload already: its type, where that is not JSON.
TYPES: Final = {"json": "", "text": "text/plain", "bytes": "application/octet-stream"}


class Emitted(msgspec.Struct, frozen=True, gc=False):
    """What is to be appended, and how."""

    partition: Partition
    draft: Draft
    #: Its topic is not kept.
    passing: bool
    #: Seconds that it waits in the outbox.
    after: float = 0.0

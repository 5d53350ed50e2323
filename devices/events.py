"""What the services of the fleet tell one another and whoever watches."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from devices import limits

#: Who watches the fleet; a customer of a shop, a `user`, does not.
PEOPLE: Final = ("viewer", "operator")
#: Who watches a device: itself, and they.
READERS: Final = ("device:{device}", *PEOPLE)
#: In an alert's place of a device: the fleet as one, of which nothing was heard.
ALL: Final = "*"
#: A level of its topics, its account at the broker, and its client id there.
Device = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


#: In ms since 1970, or how many of them; as much as every database counts.
Time = Annotated[int, msgspec.Meta(ge=0, le=limits.SEQ_MOST)]


class Status(msgspec.Struct, frozen=True):
    """A device's birth, or its will: both name the start of the device that they are of."""

    state: Literal["online", "offline"]
    boot: int | Annotated[str, msgspec.Meta(max_length=limits.NAME_MOST)] = ""


class Presence(msgspec.Struct, frozen=True):
    """Whether a device is there, and since when (ms)."""

    online: bool
    boot: str
    since: int


class Registered(msgspec.Struct, frozen=True):
    """A device after each change of what the registry says of it."""

    state: Literal["active", "suspended", "deleted"]


class Wrong(msgspec.Struct, frozen=True):
    """Tells a device why one of its messages was not taken; ``event`` is that message's id."""

    event: str
    error: str


class Window(msgspec.Struct, frozen=True):
    """What one series did in one window of event time; a later revision takes the place of the earlier."""

    #: Both in ms; the end is not part of it.
    start: int
    end: int
    count: int
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    p99: float
    #: Robust z-score of the mean among the windows before it; None while too few are known.
    score: float | None
    unusual: bool
    #: 0 when it was closed, counted up by late data.
    revision: int = 0


class Alert(msgspec.Struct, frozen=True):
    """One rule began or ended to hold for one device."""

    rule: str
    #: ``*``: nothing at all is heard, of whatever device; then nothing is told of each.
    device: str
    what: Literal["firing", "resolved"]
    #: By rule and device: all that is told of one trouble has the same.
    fingerprint: str
    #: Event time and our own, in ms.
    occurred: int
    detected: int
    value: float | None = None
    severity: str = ""
    #: Why it is over where nothing was measured that ends it.
    reason: Literal["", "rule changed", "rule removed", "device suspended", "device deleted"] = ""


class Document(msgspec.Struct, frozen=True):
    """A device's shadow after each change: what is wanted of it, and what it says of itself."""

    version: int
    desired: dict[str, Any]
    reported: dict[str, Any]


class Delta(msgspec.Struct, frozen=True):
    """What is wanted of a device and is not so yet; nothing where it is in sync."""

    version: int
    state: dict[str, Any]


class Accepted(msgspec.Struct, frozen=True):
    """An update of a shadow was taken, or was right already."""

    version: int
    token: str


class Rejected(msgspec.Struct, frozen=True):
    """An update of a shadow was not taken, and is not kept to be tried again."""

    code: Literal["bad_update", "version_conflict", "too_large", "deleted"]
    error: str
    token: str
    #: That there is; None where it was not looked at.
    version: int | None = None

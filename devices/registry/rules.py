"""What may become of a device, and whether it is there: two decisions."""

from __future__ import annotations

from typing import Final, Literal

from devices.events import Presence, Status

State = Literal["active", "suspended", "deleted"]
What = Literal["create", "suspend", "resume", "rotate", "delete"]

#: (what it is, what is asked) → what it is then. Anything absent is refused.
STEPS: Final[dict[tuple[State, What], State]] = {
    ("deleted", "create"): "active",
    ("active", "suspend"): "suspended",
    ("suspended", "suspend"): "suspended",
    ("active", "resume"): "active",
    ("suspended", "resume"): "active",
    ("active", "rotate"): "active",
    ("suspended", "rotate"): "suspended",
    ("active", "delete"): "deleted",
    ("suspended", "delete"): "deleted",
}


def presence(old: Presence | None, said: Status, at: int) -> Presence | None:
    """Return what is true after a birth or a will that came ``at``; None where it changes nothing.

    A will of another start than the last that was born is late: the device is back already.
    """
    boot = str(said.boot)
    if said.state == "online":
        return None if old is not None and old.online and old.boot == boot else Presence(True, boot, at)
    if old is not None and (not old.online or old.boot != boot):
        return None
    return Presence(False, boot, at)

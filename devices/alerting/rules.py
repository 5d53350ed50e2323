"""When a rule begins to hold for a device, and when it ends: a table, walked in event time."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from devices import limits

State = Literal["ok", "pending", "firing", "resolved"]
#: What one reading says: the threshold is passed, and has been for as long as it takes; or not; or in between.
Saw = Literal["breach", "held", "between", "calm"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

#: (where it is, what was seen) → where it goes. Anything absent changes nothing.
STEPS: Final[dict[tuple[State, Saw], State]] = {
    ("ok", "breach"): "pending",
    ("ok", "held"): "firing",
    ("resolved", "breach"): "pending",
    ("resolved", "held"): "firing",
    ("pending", "held"): "firing",
    ("pending", "between"): "ok",
    ("pending", "calm"): "ok",
    ("firing", "calm"): "resolved",
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which devices it is about, and what must not be: a value above or below, or silence."""

    kind: Literal["above", "below", "silent"]
    #: A device, or what the names of some begin with and a ``*``.
    devices: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?\*?$", min_length=1)] = "*"
    metric: Annotated[str, msgspec.Meta(max_length=limits.NAME_MOST)] = ""
    threshold: float | None = None
    #: Where it ends again; by default at the threshold.
    clear: float | None = None
    #: Seconds of event time that it must last.
    lasting: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = msgspec.field(default=0.0, name="for")
    #: Seconds of silence.
    after: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] | None = None
    severity: Literal["info", "warning", "critical"] = "warning"
    channels: Annotated[tuple[Name, ...], msgspec.Meta(max_length=limits.CHANNELS_MOST)] = ()

    def about(self, device: str) -> bool:
        return device.startswith(self.devices[:-1]) if self.devices.endswith("*") else device == self.devices


class Condition(msgspec.Struct, frozen=True):
    """How it is between one rule and one device. Times in ms; events' times, but for silence, which is ours."""

    state: State = "ok"
    #: Of the newest reading that was judged: what is older changes nothing any more.
    at: int = 0
    #: When the threshold was passed.
    since: int = 0
    #: When the state began.
    changed: int = 0
    value: float | None = None


def contradiction(rule: Rule) -> str:
    """Return what keeps ``rule`` from meaning anything; empty when all is well."""
    if rule.kind == "silent":
        if rule.after is None:
            return "silence needs `after`, in seconds"
        return "silence has no metric, threshold, clear or for" if rule.metric or rule.threshold is not None else ""
    if not rule.metric or rule.threshold is None:
        return f"{rule.kind} needs `metric` and `threshold`"
    past = rule.clear is not None and (
        rule.clear > rule.threshold if rule.kind == "above" else rule.clear < rule.threshold
    )
    return "`clear` is on the wrong side of `threshold`" if past else ""


def judged(rule: Rule, old: Condition, ts: int, value: float) -> Condition:
    """Return how it is after a reading of ``rule.metric``; late readings change nothing."""
    if ts < old.at or rule.threshold is None:
        return old
    clear = rule.threshold if rule.clear is None else rule.clear
    over, calm = (value > rule.threshold, value <= clear) if rule.kind == "above" else (
        value < rule.threshold,
        value >= clear,
    )  # fmt: skip
    since = old.since if old.state == "pending" else ts
    saw: Saw = "calm" if calm else "between"
    if over:
        saw = "held" if ts - since >= rule.lasting * 1000 else "breach"
    return stepped(old, saw, ts, since, value)


def stepped(old: Condition, saw: Saw, ts: int, since: int, value: float | None = None) -> Condition:
    """Walk the table."""
    state = STEPS.get((old.state, saw), old.state)
    if state == old.state:
        return Condition(state, ts, old.since, old.changed, value)
    return Condition(state, ts, since, ts, value)


def told(old: Condition, new: Condition) -> Literal["firing", "resolved"] | None:
    """Return what somebody should hear of a change; None for nothing."""
    if new.state != old.state and new.state in ("firing", "resolved"):
        return "firing" if new.state == "firing" else "resolved"
    return None


def pause(after: float) -> float:
    """Return the seconds between two looks for devices that are silent for ``after``."""
    return min(limits.LOOK_MOST, max(limits.LOOK_LEAST, after / 4))


def fingerprint(rule: str, device: str) -> str:
    return hashlib.sha256(f"{rule}\0{device}".encode()).hexdigest()[:16]

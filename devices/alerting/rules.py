"""When a rule begins to hold for a device, and when it ends: a table, walked in event time."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from devices import limits

#: ``ending``: it fired under what the rule was before, and somebody is still to hear that this is over.
State = Literal["ok", "pending", "firing", "resolved", "ending"]
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
    ("ending", "calm"): "resolved",
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


class Watch(msgspec.Struct, frozen=True):
    """What a rule of silence knows of the whole fleet. Times by our clock, in ms."""

    #: The look before this one; 0: there was none.
    at: int = 0
    #: When anything was heard last.
    heard: int = 0
    #: Since when no look has heard anything; 0: the last one did.
    quiet: int = 0
    #: Stretches in which nothing was heard of any device, or nobody looked; the newest last.
    still: tuple[tuple[int, int], ...] = ()


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


def means_else(old: Rule, new: Rule) -> bool:
    """Say whether what fires by ``old`` says nothing about ``new``, whatever device it is about."""
    return (old.kind, old.metric) != (new.kind, new.metric)


def watched(old: Watch, now: int, heard: int, every: float) -> Watch:
    """Return what is known after a look that finds ``heard``; looks are meant to be ``every`` seconds apart.

    A stretch without a word of any device is nobody's silence: the bridge was away, or the broker. Nor is one in which
    this service was away: what was sent by then may wait to be handled.
    """
    late = now - old.at > 1000 * (2 * every + limits.LOOK_LATE)
    if heard > old.heard and not late:
        return Watch(now, heard, 0, old.still)
    begin, still = old.at or heard, old.still
    if still and still[-1][1] == begin:
        begin, still = still[-1][0], still[:-1]
    quiet = now if late else old.quiet or old.at
    return Watch(now, heard, quiet, (*still, (begin, now))[-limits.STILL_MOST :])


def horizon(watch: Watch, after: float) -> int:
    """Return the time that a device must have been heard before to be silent by now: ``after`` seconds ago.

    Still stretches do not count. Behind one as long as ``after`` every device has all of ``after`` to come back: until
    then it is 0, and nobody is silent.
    """
    left, edge = int(after * 1000), watch.at
    for begin, end in reversed(watch.still):
        if edge - end >= left:
            break
        if end - begin >= after * 1000:
            return 0
        left -= edge - end
        edge = begin
    return edge - left


def heard_of_all(watch: Watch, after: float) -> Saw:
    """Return what is seen of the fleet as one: nothing for ``after`` seconds in which somebody looked, or something."""
    if not watch.quiet:
        return "calm"
    return "held" if watch.at - watch.quiet >= after * 1000 else "between"


def pause(after: float) -> float:
    """Return the seconds between two looks for devices that are silent for ``after``."""
    return min(limits.LOOK_MOST, max(limits.LOOK_LEAST, after / 4))


def fingerprint(rule: str, device: str) -> str:
    return hashlib.sha256(f"{rule}\0{device}".encode()).hexdigest()[:16]

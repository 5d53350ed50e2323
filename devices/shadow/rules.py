"""What becomes of a shadow: a merge patch, the difference that a device is told, and when each field changed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from devices import limits
from devices.events import Time

#: A JSON object.
Tree = dict[str, Any]


class Times(msgspec.Struct, frozen=True):
    """When each field changed last, in ms: trees of the same shape as what they are about; an array is one field."""

    desired: Tree = {}
    reported: Tree = {}


class Shadow(msgspec.Struct, frozen=True):
    """What people want of a device (``desired``), and what it says of itself (``reported``)."""

    #: Counted up by each change.
    version: int = 0
    desired: Tree = {}
    reported: Tree = {}
    times: Times = Times()
    #: Its device is deleted: what still comes of that is nobody's.
    gone: bool = False

    @property
    def delta(self) -> Tree:
        """What is wanted, and is not so yet."""
        return difference(self.desired, self.reported)


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396) of either part: null takes a field away."""

    desired: Tree | UnsetType | None = UNSET
    reported: Tree | UnsetType | None = UNSET
    #: Of the shadow that this is to change; absent: of any.
    version: Annotated[int, msgspec.Meta(ge=0, le=limits.SEQ_MOST)] | None = None
    #: Comes back in the answer.
    token: Annotated[str, msgspec.Meta(max_length=limits.NAME_MOST)] = ""


class NotTaken(Exception):
    """The shadow stays as it is; ``version`` is its version."""

    code: ClassVar[Literal["version_conflict", "too_large", "deleted"]]

    def __init__(self, why: str, version: int) -> None:
        super().__init__(why)
        self.version = version


class Stale(NotTaken):
    """The patch is for another version than there is."""

    code = "version_conflict"


class TooMuch(NotTaken):
    """The shadow would be larger, or deeper, than one may be."""

    code = "too_large"


class Gone(NotTaken):
    """The device is deleted."""

    code = "deleted"


def updated(old: Shadow, patch: Patch, at: Time) -> Shadow:
    """As `patched`, where the device itself says so; raises `NotTaken`, also for what comes of one that is deleted."""
    if old.gone:
        raise Gone("the device is deleted", old.version)
    return patched(old, patch, at)


def patched(old: Shadow, patch: Patch, at: Time) -> Shadow:
    """Return the shadow after ``patch``, which came ``at``; ``old`` itself where it changes nothing.

    What changes nothing is right for every version, so that a repeat does no harm. Raises `NotTaken`.
    """
    if not all(fits(part, limits.SHADOW_DEPTH) for part in (patch.desired, patch.reported)):
        raise TooMuch(f"the shadow would be deeper than {limits.SHADOW_DEPTH} levels", old.version)
    desired, reported = _part(old.desired, patch.desired), _part(old.reported, patch.reported)
    if same(desired, old.desired) and same(reported, old.reported):
        return old
    if patch.version is not None and patch.version != old.version:
        raise Stale(f"the shadow is of version {old.version}, and not {patch.version}", old.version)
    size = len(msgspec.json.encode((desired, reported)))
    if size > limits.SHADOW_BYTES:
        raise TooMuch(f"the shadow would be {size} bytes, and {limits.SHADOW_BYTES} are all there may be", old.version)
    return _next(old, desired, reported, at)


def forgotten(old: Shadow, at: Time) -> Shadow:
    """Return the shadow without all that was said of the device up to ``at``, when it was deleted.

    A device of the same name may have been made since; its version goes on from here.
    """
    desired, reported = _since(old.desired, old.times.desired, at), _since(old.reported, old.times.reported, at)
    if same(desired, old.desired) and same(reported, old.reported):
        return old
    return _next(old, desired, reported, at)


def merged(target: object, patch: Tree) -> Tree:
    """Return ``target`` after ``patch``, as RFC 7396 says."""
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value) if isinstance(value, dict) else value
    return found


def difference(desired: Tree, reported: Tree) -> Tree:
    """Return what of ``desired`` is not so in ``reported``, each field with the value that it should have."""
    found = {}
    for key, wanted in desired.items():
        said = reported.get(key, UNSET)
        if isinstance(wanted, dict) and isinstance(said, dict):
            if inner := difference(wanted, said):
                found[key] = inner
        elif not same(wanted, said):
            found[key] = wanted
    return found


def timed(times: Tree, old: Tree, new: Tree, at: Time) -> Tree:
    """Return when each field of ``new`` changed last: as ``times`` says of ``old``, or ``at`` where it differs."""
    found: Tree = {}
    for key, value in new.items():
        before = old.get(key, UNSET)
        if isinstance(value, dict):
            found[key] = timed(times[key], before, value, at) if isinstance(before, dict) else timed({}, {}, value, at)
        else:
            found[key] = times[key] if same(before, value) else at
    return found


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def fits(value: object, room: int) -> bool:
    """Whether ``value`` has at most ``room`` levels of objects and arrays."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is None or (room > 0 and all(fits(one, room - 1) for one in inner))


def _next(old: Shadow, desired: Tree, reported: Tree, at: Time) -> Shadow:
    times = Times(
        timed(old.times.desired, old.desired, desired, at), timed(old.times.reported, old.reported, reported, at)
    )
    return Shadow(old.version + 1, desired, reported, times, old.gone)


def _part(old: Tree, patch: Tree | UnsetType | None) -> Tree:
    if patch is UNSET:
        return old
    return {} if patch is None else merged(old, patch)


def _since(tree: Tree, times: Tree, at: Time) -> Tree:
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            if inner := _since(value, times[key], at):
                found[key] = inner
        elif times[key] > at:
            found[key] = value
    return found

"""What chat decides without waiting: who may do what, what is too fast, what is said twice, how far is read."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from chat import limits

RoomKind = Literal["public", "private", "direct"]
#: ``none``: never there, or gone.
Role = Literal["owner", "member", "none"]
Act = Literal["see", "join", "write", "leave", "invite", "remove"]
#: Why something is not written.
Refusal = Literal["no_room", "not_member", "no_message", "not_yours", "too_fast"]

#: act → who may do it, in which rooms. Whatever is absent is not allowed.
ALLOWED: Final[dict[Act, frozenset[tuple[RoomKind, Role]]]] = {
    "see": frozenset(
        {
            ("public", "none"), ("public", "member"), ("public", "owner"),
            ("private", "member"), ("private", "owner"),
            ("direct", "member"),
        }
    ),
    "join": frozenset({("public", "none")}),
    "write": frozenset(
        {("public", "member"), ("public", "owner"), ("private", "member"), ("private", "owner"), ("direct", "member")}
    ),
    "leave": frozenset({("public", "member"), ("public", "owner"), ("private", "member"), ("private", "owner")}),
    "invite": frozenset({("private", "owner")}),
    "remove": frozenset({("public", "owner"), ("private", "owner")}),
}  # fmt: skip

_NAME: Final = re.compile(r"[A-Za-z0-9_.@:-]{1,64}")


def is_name(user: str) -> bool:
    """Say whether ``user`` can be one level of a topic."""
    return _NAME.fullmatch(user) is not None


class Standing(msgspec.Struct, frozen=True):
    """What one user is in one room."""

    kind: RoomKind
    role: Role

    def may(self, act: Act) -> bool:
        return (self.kind, self.role) in ALLOWED[act]


class Target(msgspec.Struct, frozen=True):
    """What an edit or a deletion is about."""

    kind: str
    author: str
    deleted: bool


def refusal(who: str, standing: Standing | None, aims: bool, target: Target | None) -> Refusal | None:
    """Say why ``who`` may not write this, or nothing; ``aims``: it is about a message, which is ``target``."""
    if standing is None or not standing.may("see"):
        return "no_room"
    if not standing.may("write"):
        return "not_member"
    if not aims:
        return None
    if target is None or target.kind != "message" or target.deleted:
        return "no_message"
    return None if target.author == who else "not_yours"


def take(full: int, now: int, burst: int, every: int) -> tuple[int, int]:
    """Take one token of a bucket that is full again at ``full``; return when it is full then, and how long to wait.

    Milliseconds. 0: there was a token. A bucket of ``burst`` that gains one ``every`` so many: one number says all of
    it (ITU-T I.371, virtual scheduling).
    """
    if full > now + burst * every:  # no bucket is emptier than empty: the clock went back
        full = now + (burst - 1) * every
    full = max(full, now)
    wait = full - now - (burst - 1) * every
    return (full, wait) if wait > 0 else (full + every, 0)


def oldest_repeat(now: int) -> int:
    """Return since when an id that comes again is a repeat."""
    return now - limits.REPEAT_WITHIN


def read_to(read: int, asked: int, newest: int) -> int:
    """Return up to where is read now: never back, and never what nobody wrote yet."""
    return max(read, min(asked, newest))


def heir(members: list[tuple[int, str]]) -> str | None:
    """Return who owns a room after its owner: who is there longest; nobody, where nobody is."""
    return min(members)[1] if members else None

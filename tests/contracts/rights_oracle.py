"""Who may read and write what in the matrix of rights: an oracle that knows nothing of the gateway.

It writes the levels of a topic into its grants as text and compares texts; a filter may be read where every topic of a
small world that it lets through may be.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

Who = tuple[str, str]

DENY = ("deny_read", "deny_write")
#: What subscription tokens open.
OPENED = ("o/nobody", "u/#", "n/+/own", "t/x")
#: pattern -> (who may read, who may write, options). More literal patterns stand behind the wider ones on purpose.
DECLARED: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "o/end": (("anyone",), ("anyone",), {}),
    "o/nobody": ((), (), {"retain": True}),
    "o/users": (("user",), ("user",), {"retain": True}),
    "o/viewers": (("viewer",), ("operator",), {"retain": True}),
    "o/devices": (("device",), ("device",), {}),
    "o/services": (("service",), ("service",), {"retain": True}),
    "o/operators": (("operator",), ("operator",), {}),
    "o/orders": (("service:orders",), ("service:orders",), {}),
    "o/alice": (("user:alice",), ("user:alice",), {"retain": True}),
    "o/crossed": (("user", "operator"), ("device", "service:stock"), {}),
    "o/both": (("user:alice", "device:7"), ("operator", "user:7"), {"retain": True}),
    "u/{user}/inbox": (("user:{user}",), ("operator",), {"retain": True}),
    "u/{user}/public": (("anyone",), ("user:{user}",), {}),
    "u/{user}/drafts": (("user:{user}",), ("user:{user}",), {"key": "{user}"}),
    "u/{user}/typing": (("user:{user}", "operator"), ("user:{user}",), {"ephemeral": True}),
    "u/{user}/unkept": (("user:{user}",), ("user:{user}",), {"history": False}),
    "u/{user}/watched": (("user:{user}", "viewer:bob"), ("user:{user}",), {"retain": True}),
    "d/{device}/telemetry": (
        ("user", "viewer", "device:{device}"),
        ("device:{device}",),
        {"retain": True, "key": "{device}"},
    ),
    "d/{device}/secret": (("device:{device}",), ("operator",), {"key": "{device}"}),
    "d/{device}/{user}/shared": (("user:{user}", "device:{device}"), ("user:{user}",), {}),
    "s/stock/jobs": (("service:stock",), ("service",), {}),
    "n/#": (
        ("anyone",),
        ("user", "device"),
        {"deny_read": ("user:bob", "viewer:7"), "deny_write": ("device:7", "user:alice")},
    ),
    "n/{user}/own": (("anyone",), ("anyone",), {"retain": True, "deny_read": ("user:{user}", "operator")}),
    "n/alice/{device}": (("user", "device"), ("anyone",), {"deny_write": ("device:{device}", "anyone")}),
    "n/open": (("anyone",), ("anyone",), {}),
    "t/#": (("anyone",), ("operator",), {}),
    "t/{user}/own": (("user:{user}",), ("user:{user}",), {"retain": True}),
}
LASTS = ("inbox", "public", "drafts", "typing", "unkept", "watched")
NAMES = ("alice", "bob", "7", "{user}", "operator")
TOPICS = [
    *(pattern for pattern in DECLARED if "{" not in pattern and "#" not in pattern),
    *(f"u/{name}/{last}" for name in NAMES for last in LASTS),
    *(f"d/{name}/{last}" for name in ("7", "8", "alice") for last in ("telemetry", "secret")),
    *(f"d/{device}/{user}/shared" for device, user in (("7", "alice"), ("alice", "bob"), ("8", "7"))),
    *(f"n/{name}/own" for name in NAMES),
    *(f"n/{rest}" for rest in ("x", "alice/7", "alice/8")),
    "t/x",
    "t/alice",
    *(f"t/{name}/own" for name in NAMES),
]
PRINCIPALS: list[tuple[str, str]] = [
    ("anonymous", ""),
    *(("user", name) for name in (*NAMES, "anyone")),
    *(("viewer", name) for name in ("alice", "bob", "7")),
    *(("device", name) for name in ("7", "8", "alice", "bob")),
    *(("service", name) for name in ("orders", "stock", "alice")),
    *(("operator", name) for name in ("root", "alice")),
]
FILTERS = sorted(
    {
        "/".join((*(levels := t.split("/"))[:n], "+", *levels[n + 1 :]))
        for t in TOPICS
        for n in range(1, t.count("/") + 1)
    }
    | {f"{first}/#" for first in "oudnst"}
    | {f"u/{name}/#" for name in NAMES}
    | {"d/7/#", "t/alice/#", "+/alice/#", "#"}
)


def levels_let(filter: str, topic: str) -> bool:
    """MQTT 5, 4.7, by hand."""
    want, have = filter.split("/"), topic.split("/")
    if want[-1] == "#":
        want = want[:-1]
        have = have[: len(want)] if len(have) >= len(want) else have
    return len(want) == len(have) and all(w in ("+", h) for w, h in zip(want, have, strict=True))


@functools.cache
def owner(topic: str) -> str | None:
    """The pattern that has ``topic``: of those that let it through the most literal, level by level."""

    def rank(pattern: str) -> list[int]:
        return [2 if level == "#" else 1 if level.startswith("{") else 0 for level in pattern.split("/")]

    return min(fits(topic), key=rank, default=None)


def fits(topic: str) -> list[str]:
    """Every pattern that lets ``topic`` through."""
    return [p for p in DECLARED if levels_let("/".join("+" if v.startswith("{") else v for v in p.split("/")), topic)]


@functools.cache
def allowed(who: tuple[str, str], topic: str, right: int) -> bool:
    pattern = owner(topic)
    if pattern is None:
        return False
    grants = DECLARED[pattern][:2][right]
    return bool(meant(who) & words(grants, pattern, topic)) and not denied(who, topic, right)


def meant(who: Who) -> set[str]:
    """The words of a declaration that mean ``who``."""
    return {"anyone", who[0], f"{who[0]}:{who[1]}"}


def denied(who: Who, topic: str, right: int) -> bool:
    return any(meant(who) & words(DECLARED[one][2].get(DENY[right], ()), one, topic) for one in fits(topic))


def opened(who: Who, topic: str) -> bool:
    """Whether ``who`` comes in by a subscription token."""
    token = any(levels_let(filter, topic) for filter in OPENED) and not denied(who, topic, 0)
    return who[0] != "anonymous" and (token or allowed(who, topic, 0))


def given(server: Who, who: Who, topic: str) -> bool:
    """Whether ``server`` may subscribe ``who``."""
    own = allowed(server, topic, 0) and not denied(who, topic, 0)
    return server[0] in ("service", "operator") and (own or allowed(who, topic, 0))


def words(said: tuple[str, ...], pattern: str, topic: str) -> set[str]:
    """What a declaration says, with the levels of ``topic`` written into it."""
    names = dict(zip(pattern.split("/"), topic.split("/"), strict=False))
    split = (one.partition(":") for one in said)
    return {kind + colon + (names[name] if name.startswith("{") else name) for kind, colon, name in split}


#: The last levels of all that is declared, and of what is not.
ENDS = (
    "end nobody users viewers devices services operators orders alice crossed both inbox public drafts typing".split()
)
ENDS += "unkept watched telemetry secret shared jobs own open x 7 8 zz".split()
#: Every topic of two to four levels from these words; `zz` is a name that nobody has.
WORLD = [
    topic
    for n in (2, 3, 4)
    for levels in itertools.product("oudnst", *([(*NAMES, "anyone", "8", "stock", "zz")] * (n - 2)), ENDS)
    if owner(topic := "/".join(levels)) is not None
]


@functools.cache
def let_through(filter: str) -> tuple[str, ...]:
    return tuple(topic for topic in WORLD if levels_let(filter, topic))


def filter_allowed(who: tuple[str, str], filter: str) -> bool:
    return all(allowed(who, topic, 0) for topic in let_through(filter))

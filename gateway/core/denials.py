"""What a broker is to refuse: what the declarations deny an account, narrowed to what it was given.

Mosquitto's ``deny`` takes reading and writing alike, so it may stand only where the other right was not given, or is
denied too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from gateway.core.declared import Right, Topic
from gateway.core.mapping import Rule, covers
from gateway.core.topic import overlap
from gateway.errors import Misconfigured

_VARIABLE = re.compile(r"\{[a-z][a-z0-9_]*\}")


class Given(msgspec.Struct, frozen=True):
    """A right that an account has at the broker, its own name in place of the level that is its own."""

    right: Right
    filter: str
    #: What makes other topics of those it writes.
    rule: Rule | None = None


def denials(account: str, given: Sequence[Given], topics: Iterable[Topic]) -> list[str]:
    """Return the filters that ``account`` is to be denied, of those it was ``given``; ``""``: a client without a name.

    Raises :class:`Misconfigured` where a denial would also take what only the other right was denied of.
    """
    denied = [(topic, right, filter) for topic in topics for right, filter in _denied_to(account, topic)]
    found: dict[str, None] = {}
    for topic, right, filter in denied:
        taken = [met for one in given if one.right == right and (met := _met(account, one, filter))]
        for one in given:
            for met in (_meet(one.filter, other) for other in taken if one.right != right):
                if met and not any(kind == one.right and covers(also, met) for _, kind, also in denied):
                    raise Misconfigured(
                        f"Mosquitto cannot deny {account or 'clients without a name'} to {right} {met!r} and let it "
                        f"{one.right} there: its deny has no direction",
                        f"deny both in {topic.pattern!r}, or narrow that pattern",
                    )
        found.update(dict.fromkeys(taken))
    return list(found)


def _denied_to(account: str, topic: Topic) -> Iterator[tuple[Right, str]]:
    rights: tuple[Right, ...] = ("read", "write")
    for right in rights:
        for word in topic.denials(right):
            kind, _, name = word.partition(":")
            if word == "anyone" or (account and kind == "device" and name in ("", account)):
                yield right, topic.filter
            elif account and kind == "device" and name.startswith("{"):
                own = topic.pattern.split("/").index(name)
                levels = topic.filter.split("/")
                yield right, "/".join([*levels[:own], account, *levels[own + 1 :]])


def _met(account: str, given: Given, denied: str) -> str:
    """Return which topics of ``given`` are ``denied``, or become so by its rule."""
    if given.rule is None:
        return _meet(given.filter, denied)
    if not overlap(given.rule.reach, denied):
        return ""
    bound = {"{device}": account}
    for level, word in zip(given.rule.target.split("/"), denied.split("/"), strict=False):
        if word == "#":
            break
        if word != "+" and _VARIABLE.fullmatch(level) and bound.setdefault(level, word) != word:
            return ""
    levels = given.rule.source.split("/")
    return "/".join(bound.get(level, "+") if _VARIABLE.fullmatch(level) else level for level in levels)


def _meet(a: str, b: str) -> str:
    """Return the filter of what passes both; empty where nothing does."""
    if not overlap(a, b):
        return ""
    left, right, met = a.split("/"), b.split("/"), list[str]()
    for x, y in zip(left, right, strict=False):
        if "#" in (x, y):
            return "/".join([*met, *(right if x == "#" else left)[len(met) :]])
        met.append(y if x == "+" else x)
    return "/".join(met)  # where one is longer, all that it has more is its #

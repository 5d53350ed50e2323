"""Burnt-in MQTT topics: which declared topic a message of an old fleet belongs to.

A rule's ``source`` is a topic filter whose wildcard levels may have names, ``tele/{device}/SENSOR``; its ``target`` is
a topic in which the same names stand again, ``devices/{device}/telemetry``. Where two rules let a topic through, the
more literal one has it, level by level from the left, as with declared topics. A target is never mapped again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from gateway.core.router import Router
from gateway.core.topic import check_filter, overlap
from gateway.errors import BadTopic, Misconfigured

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_RANK = {"+": 1, "#": 2}


class Rule(msgspec.Struct, frozen=True):
    """One row of ``[[mqtt.map]]``. Raises :class:`Misconfigured` where it contradicts itself."""

    source: str
    target: str

    def __post_init__(self) -> None:
        where = f"map from {self.source!r} to {self.target!r}"
        for text in (_filter(self.source), _filter(self.target)):
            try:
                check_filter(text)
            except BadTopic as e:
                raise Misconfigured(f"{where}: {e}") from None
            if "{" in text or "}" in text:
                raise Misconfigured(
                    f"{where} has a brace that is not a whole level", "write {name} between two slashes"
                )
        if self.source.startswith("$share/"):
            # A shared subscription gives each message to one of several bridges, and the status topics to a random one.
            raise Misconfigured(
                f"{where} is a shared subscription", "one bridge reads a broker: leave $share/GROUP out"
            )
        if {"+", "#"} & set(self.target.split("/")):
            raise Misconfigured(f"{where}: the target has a wildcard", "name the level, as {name} in both")
        names, wanted = _names(self.source), _names(self.target)
        if len(set(names)) < len(names):
            raise Misconfigured(f"{where} names a variable twice", "give each level its own name")
        for name in sorted(set(wanted) - set(names)):
            raise Misconfigured(f"{where}: {{{name}}} has no value", "name that level in the source")
        for name in sorted(set(names) - set(wanted)):
            # Two devices would end under one topic unseen.
            raise Misconfigured(f"{where}: {{{name}}} is dropped", "write + for a level that the target leaves out")

    @property
    def filter(self) -> str:
        """The source as a topic filter."""
        return _filter(self.source)

    @property
    def reach(self) -> str:
        """The filter of all topics that the rule can make."""
        return _filter(self.target)


class TopicMap:
    """All rules of a gateway: resolved in time that follows the depth of the topic, not the number of rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._router: Router[Rule] = Router()
        taken: dict[str, Rule] = {}
        for rule in self.rules:
            other = taken.setdefault(rule.filter, rule)
            if other is not rule:
                raise Misconfigured(
                    f"maps from {other.source!r} and {rule.source!r} are one filter", "map each topic to one target"
                )
            self._router.add(rule.filter, rule)

    def become(self, other: TopicMap) -> None:
        """Have the rules of ``other`` from now on, for everyone who has this one."""
        self.rules, self._router = other.rules, other._router

    def resolve(self, topic: str) -> str | None:
        """Return the topic that a message of ``topic`` belongs to, or None where no rule lets it through.

        The result may still break the grammar of names (a device with a control character in its name), or be too
        long: whoever looks it up among the declared topics learns that.
        """
        found = self._router.match(topic)
        if not found:
            return None
        rule = min(found, key=_rank)
        levels = topic.split("/")
        bound = {m[1]: level for want, level in _pairs(rule.source, levels) if (m := _VARIABLE.fullmatch(want))}
        return "/".join(bound[m[1]] if (m := _VARIABLE.fullmatch(w)) else w for w in rule.target.split("/"))

    def filters(self) -> tuple[str, ...]:
        """Return what to subscribe to: no filter that another one of them covers, so that nothing comes twice."""
        wanted = [rule.filter for rule in self.rules]
        return tuple(f for f in wanted if not any(covers(other, f) for other in wanted if other != f))


def apart(filters: Iterable[str]) -> tuple[str, ...]:
    """Return filters that let through what ``filters`` do, no two of which let one name through.

    A broker may send a message once for each subscription that it passes (MQTT 5, 3.3.4), as new messages each. Two
    filters that overlap are joined into one, which may also let through what neither did.
    """
    found: list[str] = []
    for new in dict.fromkeys(filters):
        # What a joined filter overlaps is joined too.
        while met := next((f for f in found if overlap(f, new)), ""):
            found.remove(met)
            new = _joined(met, new)
        found.append(new)
    return tuple(found)


def _joined(a: str, b: str) -> str:
    if covers(a, b) or covers(b, a):
        return a if covers(a, b) else b
    levels: list[str] = []
    left, right = a.split("/"), b.split("/")
    for x, y in zip(left, right, strict=False):
        if "#" in (x, y):
            return "/".join([*levels, "#"])
        levels.append(x if x == y else "+")
    return "/".join(levels if len(left) == len(right) else [*levels, "#"])


def covers(wide: str, narrow: str) -> bool:
    """Say whether every name that passes ``narrow`` also passes ``wide``."""
    left, right = wide.split("/"), narrow.split("/")
    if narrow.startswith("$") and left[0] in ("+", "#"):
        return False  # MQTT-4.7.2-1
    for i, level in enumerate(left):
        if level == "#":
            return True
        if i == len(right) or right[i] == "#" or level not in ("+", right[i]):
            return False
    return len(left) == len(right)


def _filter(text: str) -> str:
    return "/".join("+" if _VARIABLE.fullmatch(level) else level for level in text.split("/"))


def _names(text: str) -> list[str]:
    return [m[1] for level in text.split("/") if (m := _VARIABLE.fullmatch(level))]


def _pairs(source: str, levels: list[str]) -> Iterable[tuple[str, str]]:
    return zip(source.split("/"), levels, strict=False)


def _rank(rule: Rule) -> list[int]:
    # A shorter list that is a prefix sorts first: "a" before "a/#", which also lets "a" through.
    return [_RANK.get(level, 0) for level in rule.filter.split("/")]

"""What the declarations let devices write and read, as lines of a Mosquitto ACL; and what no device could do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.adapters import embedded
from gateway.core.declared import Declared, Right
from gateway.core.denials import Given, denials
from gateway.core.mapping import TopicMap
from gateway.core.topic import overlap

#: What a client without a name may use on the broker of ``gateway up``.
_NAMELESS = (Given("read", "try/#"), Given("write", "try/#"))


def acl(declared: Declared, topic_map: TopicMap, accounts: Iterable[str] = ()) -> str:
    """Return the ACL of the broker that ``gateway up`` starts; raises :class:`Misconfigured`, see `rights`."""
    # What stands before the first account is for clients without a name.
    nameless = [f"topic deny {filter}" for filter in denials("", _NAMELESS, declared)]
    return "\n".join([*nameless, embedded.mosquitto_acl(), *rights(declared, topic_map, accounts), ""])


def rights(declared: Declared, topic_map: TopicMap, accounts: Iterable[str] = ()) -> list[str]:
    """Return lines of a Mosquitto ACL: what the declarations let devices write and read, and old topics.

    ``pattern`` lines know the client's own name (%u): they say ``anyone`` and ``device:{name}``. A grant to all
    devices is a line in the section of each of ``accounts``, for a client without a name is no device. The broker asks
    of each message that it delivers, so a device that subscribes to more than it may read gets what it may read.
    A denial is a line there too: the broker looks at those first. Raises :class:`Misconfigured` for one that it cannot
    express, see `core/denials`.
    """
    patterns: list[tuple[Given, Mapping[int, str]]] = []
    each: list[Given] = []
    named: list[tuple[str, Given]] = []
    for topic in declared:
        do: Right = "read" if topic.mqtt == "out" else "write"
        given = Given(do, topic.filter)
        for grant in topic.grants(do) if topic.mqtt else ():
            kind, _, name = grant.partition(":")
            if kind == "device" and name.startswith("{"):
                patterns.append((given, {topic.pattern.split("/").index(name): "%u"}))
            elif kind == "device" and name:
                named.append((name, given))
            elif kind == "device":
                each.append(given)
            elif grant == "anyone":
                patterns.append((given, {}))
    for rule in topic_map.rules:
        levels, given = rule.source.split("/"), Given("write", rule.filter, rule)
        if "{device}" in levels:
            patterns.append((given, {levels.index("{device}"): "%u"}))
        elif any("device" in topic.write and overlap(topic.filter, rule.reach) for topic in declared):
            each.append(given)
    placed = [
        (given, "/".join(own.get(n, level) for n, level in enumerate(given.filter.split("/"))))
        for given, own in patterns
    ]
    said = [f"pattern {given.right} {filter}" for given, filter in placed]
    # Of clients without a name: patterns that name no %u are theirs too.
    nameless = [given for given, filter in placed if "%u" not in filter]
    said += [f"pattern deny {filter}" for filter in denials("", nameless, declared)]
    common = [*placed, *_base()]
    for account in accounts:
        own = [*each, *(given for name, given in named if name == account)]
        mine = [Given(one.right, filter.replace("%u", account), one.rule) for one, filter in common]
        lines = [f"deny {filter}" for filter in denials(account, [*mine, *own], declared)]
        lines += [f"{given.right} {given.filter}" for given in own]
        said += [f"user {account}", *(f"topic {line}" for line in lines)] if lines else []
    return said


def _base() -> list[tuple[Given, str]]:
    """What every device has on every gateway."""
    lines = (line.split(" ", 2) for line in embedded.mosquitto_acl().splitlines() if line.startswith("pattern "))
    return [(Given("read" if do == "read" else "write", filter), filter) for _, do, filter in lines]


def unwritable(declared: Declared, topic_map: TopicMap) -> list[str]:
    """Return the patterns that say ``mqtt = "in"`` and that no device's account of `rights` could write."""
    base = (line.removeprefix("pattern write ") for line in embedded.mosquitto_acl().splitlines() if "write" in line)
    open_to = [line.replace("%u", "+") for line in base if line.startswith("devices/")]
    open_to += [rule.reach for rule in topic_map.rules]
    return [
        topic.pattern
        for topic in declared
        if topic.mqtt == "in"
        and not any(grant == "anyone" or grant.partition(":")[0] == "device" for grant in topic.write)
        and not any(overlap(topic.filter, filter) for filter in open_to)
    ]


def unreadable(declared: Declared) -> list[str]:
    """Return the patterns that say ``mqtt = "out"`` and that no device's account of `rights` could read."""
    base = (line.removeprefix("pattern read ") for line in embedded.mosquitto_acl().splitlines() if "read" in line)
    open_to = [line.replace("%u", "+") for line in base if line.startswith("devices/")]
    return [
        topic.pattern
        for topic in declared
        if topic.mqtt == "out"
        and not any(grant == "anyone" or grant.partition(":")[0] == "device" for grant in topic.read)
        and not any(overlap(topic.filter, filter) for filter in open_to)
    ]

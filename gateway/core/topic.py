"""Topic names and topic filters: MQTT's grammar, and which names a filter lets through.

A name is levels joined by ``/``. In a filter ``+`` stands for one whole level and a last ``#`` for all that follow,
its parent included (MQTT 5, 4.7.1). Unlike MQTT, a ``+`` or ``#`` that shares its level with other characters is an
ordinary character: SDK users have channels such as ``news#42``.
"""

from __future__ import annotations

from gateway import limits
from gateway.errors import BadTopic


def check_name(name: str) -> str:
    """Return ``name`` if an event may carry it, else raise :class:`BadTopic` saying why."""
    levels = _check(name, "topic")
    if "+" in levels or "#" in levels:
        raise BadTopic(f"topic {name!r} is a filter", "an event has one concrete topic: no level may be + or #")
    if name.startswith("$"):
        raise BadTopic(f"topic {name!r} begins with $", "such topics belong to the broker: choose another first level")
    return name


def check_filter(filter: str) -> str:
    """Return ``filter`` if a client may subscribe to it, else raise :class:`BadTopic` saying why."""
    levels = _check(filter, "filter")
    if "#" in levels[:-1]:
        raise BadTopic(f"filter {filter!r} has # before its last level", "# may only end a filter (MQTT 5, 4.7.1.2)")
    return filter


def _check(text: str, noun: str) -> list[str]:
    if not text:
        raise BadTopic(f"the {noun} is empty", "name at least one level")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadTopic(f"the {noun} has a lone surrogate", "send valid UTF-8") from None
    if size > limits.TOPIC_BYTES:
        raise BadTopic(f"the {noun} is {size} bytes long", f"use at most {limits.TOPIC_BYTES}")
    if not text.isprintable():
        # MQTT 5, 1.5.4 forbids U+0000 and advises against the rest: control characters break logs and terminals.
        raise BadTopic(f"{noun} {text!r} has a control character", "use printable characters")
    levels = text.split("/")
    if len(levels) > limits.TOPIC_LEVELS:
        raise BadTopic(f"{noun} {text!r} has {len(levels)} levels", f"use at most {limits.TOPIC_LEVELS}")
    return levels


def is_filter(text: str) -> bool:
    """Say whether ``text`` names more than one topic."""
    # The two tests of the whole text are quick, and nearly always enough.
    return ("+" in text or "#" in text) and not {"+", "#"}.isdisjoint(text.split("/"))


def matches(filter: str, name: str) -> bool:
    """Say whether ``filter`` lets ``name`` through (MQTT 5, 4.7)."""
    if filter == name:
        return True
    wanted, have = filter.split("/"), name.split("/")
    if name.startswith("$") and wanted[0] in ("+", "#"):
        return False  # MQTT-4.7.2-1
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i == len(have) or level not in ("+", have[i]):
            return False
    return len(wanted) == len(have)


def overlap(a: str, b: str) -> bool:
    """Say whether some name passes both filters."""
    left, right = a.split("/"), b.split("/")
    if (a.startswith("$") and right[0] in ("+", "#")) or (b.startswith("$") and left[0] in ("+", "#")):
        return False  # MQTT-4.7.2-1
    for x, y in zip(left, right, strict=False):
        if x == "#" or y == "#":
            return True
        if x != y and x != "+" and y != "+":
            return False
    if len(left) == len(right):
        return True
    longer, n = (left, len(right)) if len(left) > len(right) else (right, len(left))
    # "a/#" also lets "a" through, so it meets a filter that ends one level before the #.
    return longer[n:] == ["#"]


def app_of(text: str) -> str:
    """Return level one, the application: the text before the first ``/`` or ``:``."""
    return text.split("/", 1)[0].split(":", 1)[0]

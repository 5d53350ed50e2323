"""The catalogue: each declared topic, and those parts of it that services name, with who takes and gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from gateway.core.declared import Topic
from gateway.core.mapping import covers
from gateway.core.topic import overlap

_VARIABLE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_WORDS: Final = {"+": "any", "#": "rest"}
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")


class Consumed(msgspec.Struct, frozen=True):
    """What one function of a service takes."""

    #: A topic filter whose wildcard levels may have names.
    pattern: str
    #: The type it decodes payloads to; None where it takes them as they come.
    payload: Any = None

    @property
    def filter(self) -> str:
        """The pattern as a topic filter."""
        return _filter(self.pattern)


class Participant(msgspec.Struct, frozen=True):
    """A service, as a document shows it."""

    group: str
    consumes: tuple[Consumed, ...] = ()
    #: Topic filters.
    emits: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """A declared topic, or that part of it which a service names more closely."""

    id: str
    topic: Topic
    pattern: str
    filter: str
    #: What those who take all of it decode it to.
    payloads: tuple[Any, ...]
    #: Groups that consume exactly this, and that emit it.
    receivers: tuple[str, ...]
    senders: tuple[str, ...]


def places(topics: Sequence[Topic], participants: Sequence[Participant]) -> Iterator[Place]:
    """Yield each topic, and after it the parts of it that services name, in a stable order."""
    taken: set[str] = set()
    for topic in sorted(topics, key=lambda topic: topic.pattern):
        patterns = {topic.filter: topic.pattern}
        for one in participants:
            for wanted in (*(consumed.pattern for consumed in one.consumes), *one.emits):
                if overlap(topic.filter, _filter(wanted)):
                    pattern = _meet(topic.pattern, wanted)
                    filter = _filter(pattern)
                    if filter not in patterns and not _elsewhere(topics, topic, filter):
                        patterns[filter] = pattern
        for filter, pattern in patterns.items():
            yield Place(
                _id(pattern, taken),
                topic,
                pattern,
                filter,
                _types(topic, filter, participants),
                tuple(p.group for p in participants if _named(topic, filter, [c.pattern for c in p.consumes])),
                tuple(p.group for p in participants if _named(topic, filter, p.emits)),
            )


def _named(topic: Topic, filter: str, patterns: Iterable[str]) -> bool:
    """Say whether one of ``patterns`` names, of ``topic``, exactly ``filter``."""
    return any(overlap(topic.filter, _filter(one)) and _filter(_meet(topic.pattern, one)) == filter for one in patterns)


def _elsewhere(topics: Iterable[Topic], topic: Topic, filter: str) -> bool:
    """Say whether all of ``filter`` belongs to a more literal topic than ``topic``."""
    return any(
        other is not topic and covers(topic.filter, other.filter) and covers(other.filter, filter) for other in topics
    )


def _types(topic: Topic, filter: str, participants: Iterable[Participant]) -> tuple[Any, ...]:
    """Return what payloads must decode to: as declared, else as those want it who take everything under ``filter``."""
    if topic.payload != "json":
        return ()
    if topic.schema is not None:
        return (topic.schema,)
    found: list[Any] = []
    for consumed in (consumed for one in participants for consumed in one.consumes):
        if consumed.payload is not None and covers(consumed.filter, filter) and consumed.payload not in found:
            found.append(consumed.payload)
    return tuple(found)


def _filter(pattern: str) -> str:
    return "/".join("+" if _VARIABLE.fullmatch(level) else level for level in pattern.split("/"))


def _meet(topic: str, wanted: str) -> str:
    """Return the pattern of what passes both, which overlap; levels are called what ``topic`` calls them."""
    left, right, met = topic.split("/"), wanted.split("/"), list[str]()
    for mine, other in zip(left, right, strict=False):
        if "#" in (mine, other):
            met += (right if mine == "#" else left)[len(met) :]
            break
        met.append(min(mine, other, key=_vagueness))
    # Where one ends before the other, that other has only its ``#`` left, which is nothing here. A name that ``topic``
    # gives to another level is not taken from ``wanted``.
    own = {level: n for n, level in enumerate(left)}
    return "/".join("+" if _VARIABLE.fullmatch(one) and own.get(one, n) != n else one for n, one in enumerate(met))


def _vagueness(level: str) -> int:
    return 2 if level == "+" else 1 if _VARIABLE.fullmatch(level) else 0


def _id(pattern: str, taken: set[str]) -> str:
    """Return a new id, good in a JSON Pointer as it stands, and add it to ``taken``."""
    name = ".".join(_WORDS.get(level) or _ODD.sub("_", _VARIABLE.sub(r"\1", level)) for level in pattern.split("/"))
    id, n = name, 1
    while id in taken:
        n += 1
        id = f"{name}.{n}"
    taken.add(id)
    return id

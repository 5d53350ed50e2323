"""Declared topics: what may be published where, by whom, of what kind, and in which partition it is kept.

A pattern is a topic filter whose wildcard levels may have names: ``devices/{device}/telemetry``, ``try/#``. Where
two patterns let a topic through, the more literal one has it, level by level from the left; but what any of them
denies is denied.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from gateway import limits
from gateway.core.access import Principal, check_grants, denied, may
from gateway.core.event import Partition
from gateway.core.payload import PayloadType, check
from gateway.core.router import Router
from gateway.core.topic import app_of, check_filter, check_name, is_filter, overlap
from gateway.errors import BadPayload, BadTopic, Denied, Misconfigured, NotDeclared

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_APP = re.compile(r"[a-z][a-z0-9_-]{0,31}")

Right = Literal["read", "write"]


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One declared topic, or a family of them. Raises :class:`Misconfigured` where it contradicts itself."""

    pattern: str
    #: Whose log keeps it. By default level one of the pattern.
    app: str = ""
    #: ``command``: someone asks. ``fact``: a service or a device tells.
    kind: Literal["command", "fact"] = "fact"
    payload: PayloadType = "json"
    #: The type that JSON payloads decode to; checked at every door. Declared in Python only.
    schema: Any = None
    #: Grants, see ``core/access``.
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    #: Who may not, whatever is granted, here and by more literal patterns below this one: the same words.
    deny_write: tuple[str, ...] = ()
    deny_read: tuple[str, ...] = ()
    #: Events with one key keep their order and share a partition: ``{device}`` keeps a device together. By default
    #: the topic itself.
    key: str = ""
    #: The id of an event that came over MQTT without one: variables of the pattern and fields of the JSON payload, such
    #: as ``{device}/{boot}/{seq}``. What a device sends twice is then one event.
    identity: str = ""
    #: Keep the last value and give it to new subscribers.
    retain: bool = False
    #: Whether clients may recover and read history.
    history: bool = True
    #: Live only: not kept, never recovered (typing, progress).
    ephemeral: bool = False
    #: Whether its WebSocket subscribers may ask who else there is, and hear who comes and leaves.
    presence: bool = False
    #: ``in``: devices publish it over MQTT. ``out``: the gateway publishes it to the broker. Never both, so that
    #: nothing can loop.
    mqtt: Literal["in", "out"] | None = None
    max_bytes: int = limits.PAYLOAD_BYTES

    def __post_init__(self) -> None:
        where = f"topic {self.pattern!r}"
        try:
            check_filter(self.filter)
        except BadTopic as e:
            raise Misconfigured(f"{where}: {e}") from None
        if "{" in self.filter or "}" in self.filter:
            raise Misconfigured(f"{where} has a brace that is not a whole level", "write {name} between two slashes")
        if self.filter.startswith(("+", "#", "$")):
            raise Misconfigured(f"{where} does not begin with a plain level", "level one names the application")
        if self.filter.endswith(("/events", "/history")):
            raise Misconfigured(f"{where} ends in a word of the HTTP interface", "choose another last level")
        if len(set(self.variables)) != len(self.variables):
            raise Misconfigured(f"{where} names a variable twice", "give each level its own name")
        if not _APP.fullmatch(self.owner):
            raise Misconfigured(f"{where}: {self.owner!r} is no application name", "use a-z, 0-9, - and _")
        for name in _VARIABLE.findall(self.key):
            if name not in self.variables:
                raise Misconfigured(f"{where}: key {self.key!r} names {{{name}}}", "use variables of the pattern")
        if self.identity and (self.payload != "json" or not _VARIABLE.search(self.identity)):
            raise Misconfigured(
                f"{where}: identity {self.identity!r} names no field", "write {field} of a JSON payload"
            )
        if self.retain and self.ephemeral:
            raise Misconfigured(f"{where} is both retained and ephemeral", "what is not kept has no last value")
        if self.schema is not None and self.payload != "json":
            raise Misconfigured(f"{where} has a schema and the payload type {self.payload!r}", "only json has a schema")
        if not 0 < self.max_bytes <= limits.PAYLOAD_BYTES:
            raise Misconfigured(f"{where}: max_bytes is {self.max_bytes}", f"use 1 to {limits.PAYLOAD_BYTES}")
        for field in ("write", "read", "deny_write", "deny_read"):
            check_grants(getattr(self, field), self.variables, f"{where}, {field}")
        if any(grant.partition(":")[0] == "viewer" for grant in self.write):
            raise Misconfigured(f"{where}: write names a viewer, who changes nothing", "grant it to another kind")

    @property
    def filter(self) -> str:
        """The pattern as a topic filter, its variables as ``+``."""
        return "/".join("+" if _VARIABLE.fullmatch(level) else level for level in self.pattern.split("/"))

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(m[1] for level in self.pattern.split("/") if (m := _VARIABLE.fullmatch(level)))

    @property
    def owner(self) -> str:
        return self.app or app_of(self.pattern)

    def bind(self, text: str) -> dict[str, str]:
        """Return what a name or filter that the pattern meets makes of its variables; without those it leaves open."""
        return {
            m[1]: level
            for want, level in zip(self.pattern.split("/"), text.split("/"), strict=False)
            if (m := _VARIABLE.fullmatch(want)) and level not in ("+", "#")
        }

    def grants(self, right: Right) -> tuple[str, ...]:
        return self.read if right == "read" else self.write

    def denials(self, right: Right) -> tuple[str, ...]:
        return self.deny_read if right == "read" else self.deny_write


class Found(msgspec.Struct, frozen=True):
    """A declared topic together with what a name or filter binds its variables to."""

    topic: Topic
    bound: dict[str, str]
    #: The key of an event under it; empty where a wildcard leaves the key open.
    key: str
    #: Where its events are kept; empty where a wildcard leaves it open.
    partition: Partition

    def identity(self, data: bytes) -> str:
        """Return the id that the topic's declaration gives the JSON ``data``; empty where a field of it is absent."""
        template = self.topic.identity
        if not template:
            return ""
        payload = msgspec.json.decode(data) if data else None
        fields = {**payload, **self.bound} if isinstance(payload, dict) else self.bound
        values = {name: fields.get(name) for name in _VARIABLE.findall(template)}
        if any(isinstance(v, bool) or not isinstance(v, str | int) or v == "" for v in values.values()):
            return ""
        id = _VARIABLE.sub(lambda m: str(values[m[1]]), template)
        return id if id.isprintable() and len(id.encode()) <= limits.ID_BYTES else ""


class Declared:
    """All declared topics of a gateway: found by name in time that follows the depth, not the number, of patterns."""

    def __init__(self, topics: Iterable[Topic], partitions: int = limits.PARTITIONS) -> None:
        self.topics = tuple(topics)
        #: How often it became another: what was decided under one number is decided again under the next.
        self.generation = 0
        self._partitions = partitions
        self._root = _Node()
        self._cache: dict[str, Found] = {}
        #: The topics that deny anything.
        self._denying: Router[Topic] = Router()
        for topic in self.topics:
            self._root.add(topic)
            if topic.deny_read or topic.deny_write:
                self._denying.add(topic.filter, topic)

    def become(self, other: Declared) -> None:
        """Declare what ``other`` does from now on, for everyone who has this one; nothing found before is kept."""
        self.topics, self._partitions = other.topics, other._partitions
        self._root, self._denying, self._cache = other._root, other._denying, {}
        self.generation += 1

    def copy(self) -> Declared:
        """Return what is declared now, whatever this one becomes."""
        return Declared(self.topics, self._partitions)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self.topics)

    @property
    def apps(self) -> tuple[str, ...]:
        return tuple(sorted({t.owner for t in self.topics}))

    def partitions(self, app: str) -> tuple[Partition, ...]:
        return tuple(f"{app}.{n}" for n in range(self._partitions))

    def find(self, name: str) -> Found:
        """Return the declaration of topic ``name``; raises :class:`BadTopic` or :class:`NotDeclared`."""
        found = self._cache.get(name)
        if found is None:
            check_name(name)
            topic = self._root.find(name.split("/"), 0)
            if topic is None:
                raise NotDeclared(f"topic {name!r} is not declared", "see `gateway topics`, or declare it")
            if len(self._cache) >= limits.TOPIC_CACHE:
                self._cache.clear()
            found = self._cache[name] = self._bind(topic, name)
        return found

    def meeting(self, filter: str) -> list[Found]:
        """Return every declaration that ``filter`` meets; raises :class:`BadTopic` or :class:`NotDeclared`."""
        if not is_filter(filter):
            return [self.find(filter)]
        check_filter(filter)
        met = [self._bind(t, filter) for t in self.topics if overlap(t.filter, filter)]
        if not met:
            raise NotDeclared(f"filter {filter!r} meets no declared topic", "see `gateway topics`")
        return met

    def readable(self, who: Principal, filter: str) -> list[Found]:
        """Return what ``filter`` meets if ``who`` may read all of it; raises :class:`Denied` naming what refused."""
        met = self.meeting(filter)
        if why := self.refusal(who, filter, met, "read"):
            to = "subscribe to less, or use another token"
            raise Denied(f"{who} may not read {filter!r}: {why}", to, who=str(who))
        return met

    def opened(self, who: Principal, filter: str) -> list[Found]:
        """Return what ``filter`` meets where a token or a server lets ``who`` in: past grants, never past a denial."""
        met = self.meeting(filter)
        if why := self._denial(who, filter, "read"):
            raise Denied(f"{who} may not read {filter!r}: {why}", "no token and no server opens it", who=str(who))
        return met

    def writable(self, who: Principal, name: str) -> Found:
        """Return the declaration of ``name`` if ``who`` may publish it; raises :class:`Denied` otherwise."""
        if is_filter(name):
            raise BadTopic(f"{name!r} is a filter", "publish to one concrete topic")
        found = self.find(name)
        if why := self.refusal(who, name, [found], "write"):
            raise Denied(f"{who} may not publish {name!r}: {why}", "use another token or topic", who=str(who))
        return found

    def denying(self, text: str) -> list[Topic]:
        """Return the topics that deny anything and meet ``text``."""
        if not is_filter(text):
            return list(self._denying.match(text))
        return [t for t in self.topics if (t.deny_read or t.deny_write) and overlap(t.filter, text)]

    def refusal(self, who: Principal, text: str, met: list[Found], right: Right) -> str:
        """Say what keeps ``who`` from ``text``, which meets ``met``; empty where nothing does. What denies comes first.

        Granted by the declaration that has a topic, all of them; denied by any that lets it through, one of them.
        """
        if why := self._denial(who, text, right):
            return why
        for found in met:
            if not may(who, found.topic.grants(right), found.bound):
                grants = ", ".join(found.topic.grants(right))
                return f"{found.topic.pattern!r} grants {right} to {grants or 'nobody'}"
        return ""

    def _denial(self, who: Principal, text: str, right: Right) -> str:
        for topic in self.denying(text):
            if denied(who, topic.denials(right), topic.bind(text)):
                return f"{topic.pattern!r} denies {right} to {', '.join(topic.denials(right))}"
        return ""

    def places(self, met: Iterable[Found]) -> frozenset[Partition]:
        """Return the partitions in which events of ``met`` may stand."""
        places: set[Partition] = set()
        for found in met:
            places.update([found.partition] if found.partition else self.partitions(found.topic.owner))
        return frozenset(places)

    def _bind(self, topic: Topic, text: str) -> Found:
        bound = topic.bind(text)
        key = _key(topic, text, bound)
        place = f"{topic.owner}.{zlib.crc32(key.encode()) % self._partitions}" if key else ""
        return Found(topic, bound, key, place)


def valid(topic: Topic, data: bytes) -> bytes:
    """Return ``data`` as the log may hold it under ``topic``; raises :class:`TooLarge` or :class:`BadPayload`."""
    if topic.retain and not data:
        return data  # it clears the last value (MQTT 5, 3.3.1.3)
    data = check(data, topic.payload, topic.max_bytes)
    if topic.schema is not None:
        try:
            msgspec.json.decode(data, type=topic.schema)
        except msgspec.ValidationError as e:
            raise BadPayload(f"not a {topic.pattern} payload: {e}", "send what the topic declares") from None
    return data


def _key(topic: Topic, text: str, bound: Mapping[str, str]) -> str:
    if not topic.key:
        return "" if is_filter(text) else text
    if not bound.keys() >= set(_VARIABLE.findall(topic.key)):
        return ""
    key = _VARIABLE.sub(lambda m: bound[m[1]], topic.key)
    # An empty level ("devices//telemetry") may leave the key empty. The event still needs one to have a partition.
    return key or ("" if is_filter(text) else text)


class _Node:
    """One level of the tree of patterns."""

    __slots__ = ("below", "children", "here", "plus")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.plus: _Node | None = None
        self.here: Topic | None = None
        self.below: Topic | None = None

    def add(self, topic: Topic) -> None:
        node, slot = self, "here"
        for level in topic.filter.split("/"):
            if level == "#":
                slot = "below"
            elif level == "+":
                node.plus = node.plus or _Node()
                node = node.plus
            else:
                node = node.children.setdefault(level, _Node())
        taken: Topic | None = getattr(node, slot)
        if taken is not None:
            raise Misconfigured(
                f"topics {taken.pattern!r} and {topic.pattern!r} are one pattern", "declare each pattern once"
            )
        setattr(node, slot, topic)

    def find(self, levels: list[str], depth: int) -> Topic | None:
        if depth == len(levels):
            return self.here or self.below
        child = self.children.get(levels[depth])
        found = child.find(levels, depth + 1) if child else None
        if found is None and self.plus is not None:
            found = self.plus.find(levels, depth + 1)
        return found or self.below

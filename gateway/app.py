"""What an application is: a name, its topics, its decoders and what its log promises, as plain data.

Here the applications and ``gateway.toml`` become one: :func:`declare` makes the declared topics of both, and
:func:`mapping`, :func:`decoders`, :func:`services` and :func:`promises` what bridge, workers and log need. Each raises
:class:`Misconfigured` with all that is wrong, a line each, and where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from gateway import limits
from gateway.core.catalogue import Consumed, Participant
from gateway.core.declared import Declared, Topic
from gateway.core.event import Event
from gateway.core.ingest import Decode
from gateway.core.mapping import Rule, TopicMap, covers
from gateway.core.topic import overlap
from gateway.errors import Misconfigured
from gateway.service import Service, contradictions
from gateway.settings import AppTable, KeyTable, Settings, loopback
from gateway.tables import nearest

Durability = Literal["fast", "disk", "replica"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


class Issuer(msgspec.Struct, frozen=True):
    """An application that signs tokens: which of its routes publishes the keys, and for whom they may vouch.

    The fields of ``[[tokens.keys]]``; one there with the same ``id`` is taken instead.
    """

    id: str
    #: A path below the application's own, such as ``/accounts/users/.well-known/jwks.json`` (RFC 7517).
    jwks: str
    issuer: str
    audience: str
    algorithm: Literal["EdDSA", "ES256", "RS256"] = "EdDSA"
    roles: tuple[Literal["user", "viewer", "device", "service", "operator"], ...] = ("user",)
    #: Filters of the application's own topics that its subscription tokens open for whom no grant lets in.
    opens: tuple[str, ...] = ()


class App(msgspec.Struct, frozen=True):
    """An application. Raises :class:`Misconfigured` where it contradicts itself.

    ``gateway.toml`` names it as ``module:attribute`` in ``gateway.apps``; ``[apps.NAME]`` there overrides what its log
    promises.
    """

    #: Level one of its topics.
    name: str
    topics: Sequence[Topic] = ()
    #: Its services; the group of each is ``app.service``.
    services: Sequence[Service] = ()
    #: Content type, without parameters → what makes JSON of it: for devices that send CBOR or a vendor's binary.
    decoders: Mapping[str, Decode] = {}
    #: Functions that become ``gateway APP NAME``, with typer's annotations for their arguments.
    commands: Sequence[Callable[..., None]] = ()
    #: Keys of its own that tokens are signed with: whoever names the application lets in whom it lets in.
    issuers: Sequence[Issuer] = ()
    #: When an append is acknowledged: once it is in the log server's memory, on its disk, or on a replica too.
    durability: Durability = "disk"
    #: Seconds that events are kept, and events of a partition that are kept whatever their age.
    retention: float = limits.RETENTION
    keep: int = limits.KEEP

    def __post_init__(self) -> None:
        where = f"app {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(f"{where} has no good name", "use a-z, 0-9, - and _, at most 32, a letter first")
        for topic in self.topics:
            if topic.owner != self.name:
                raise Misconfigured(
                    f"{where} declares topic {topic.pattern!r}, which belongs to {topic.owner!r}",
                    f"begin it with {self.name}/, or set app={self.name!r}",
                )
        for twice in _twice(f"{where}: service", [service.name for service in self.services]):
            raise Misconfigured(twice)
        for type in self.decoders:
            if not _TYPE.fullmatch(type):
                raise Misconfigured(f"{where} decodes {type!r}, which is no content type", "write it as type/subtype")
            if type == "application/json":
                raise Misconfigured(f"{where} decodes {type}", "JSON is taken as it comes: leave it out")
        names = [getattr(command, "__name__", "") for command in self.commands]
        for twice in _twice(f"{where}: command", names):
            raise Misconfigured(twice)
        if not all(name.isidentifier() for name in names):
            raise Misconfigured(f"{where} has a command without a name", "write it as a function")
        for issuer in self.issuers:
            if not issuer.jwks.startswith(f"/{self.name}/"):
                raise Misconfigured(f"{where} publishes keys at {issuer.jwks!r}", f"begin it with /{self.name}/")
            for filter in issuer.opens:
                if not filter.startswith(f"{self.name}/"):
                    raise Misconfigured(f"{where} opens {filter!r} by its tokens", f"begin it with {self.name}/")
        if self.durability not in get_args(Durability):
            raise Misconfigured(f"{where}: durability {self.durability!r} is unknown", "use fast, disk or replica")
        if self.retention <= 0:
            raise Misconfigured(f"{where} keeps nothing", "set retention to seconds above 0")
        if not 0 <= self.keep <= limits.KEEP_MOST:
            raise Misconfigured(f"{where}: keep is {self.keep}", f"use 0 to {limits.KEEP_MOST}")


class Promise(msgspec.Struct, frozen=True):
    """What one application's log promises; the fields of :class:`App` that say so."""

    app: str
    durability: Durability
    retention: float
    keep: int


def trusting(settings: Settings, apps: Iterable[App]) -> Settings:
    """Return ``settings`` with the keys that ``apps`` issue tokens by, at ``gateway.origin``; without one, as it is.

    Raises :class:`Misconfigured` where keys would come over a network that anybody may stand in.
    """
    origin, tokens = urlsplit(settings.gateway.origin), settings.tokens
    named = {key.id for key in tokens.keys}
    issuers = [one for app in apps for one in app.issuers if one.id not in named]
    if not issuers or not settings.gateway.origin:
        return settings
    if origin.scheme != "https" and not loopback(origin.hostname or ""):
        text = f"is http, and nobody takes keys of {issuers[0].id!r} from there; use https, or set [[tokens.keys]]"
        raise Misconfigured(settings.place.say("gateway.origin", text), "nothing was applied")
    keys = [
        KeyTable(
            id=one.id,
            algorithm=one.algorithm,
            jwks=settings.gateway.origin.rstrip("/") + one.jwks,
            issuer=one.issuer,
            audience=one.audience,
            roles=one.roles,
            opens=one.opens,
        )
        for one in issuers
    ]
    _refuse(_twice("issuer", [key.id for key in keys]))
    return msgspec.structs.replace(settings, tokens=msgspec.structs.replace(tokens, keys=(*tokens.keys, *keys)))


def declare(settings: Settings, apps: Iterable[App] = ()) -> Declared:
    """Return every topic that ``apps`` and the ``[[topics]]`` of ``settings`` declare."""
    apps, problems = tuple(apps), list[str]()
    found: list[tuple[Topic, str]] = [(topic, f"app {app.name!r}") for app in apps for topic in app.topics]
    for n, row in enumerate(settings.topics):
        key = f"topics[{n}]"
        try:
            found.append((Topic(**msgspec.structs.asdict(row)), settings.place.at(key)))
        except Misconfigured as e:
            problems.append(settings.place.say(key, f"is refused: {e}"))
    taken: dict[str, tuple[Topic, str]] = {}
    for topic, origin in found:
        other, place = taken.setdefault(topic.filter, (topic, origin))
        if other is not topic:
            problems.append(f"{origin}: {topic.pattern!r} is the pattern {other.pattern!r} of {place}; declare it once")
    problems += _echoes([topic for topic, _ in found])
    problems += [
        f'{origin}: {topic.pattern!r} is ephemeral and has mqtt = "out", but what leaves is read back from the log; '
        "leave one of them out"
        for topic, origin in found
        if topic.mqtt == "out" and topic.ephemeral
    ]
    names = {app.name for app in apps} | {topic.owner for topic, _ in found}
    problems += _twice("app", [app.name for app in apps])
    for name in settings.apps:
        if name not in names:
            problems.append(settings.place.say(f"apps.{name}", f"is no application; {nearest(name, sorted(names))}"))
    groups = sorted(f"{app.name}.{service.name}" for app in apps for service in app.services)
    for name in settings.services:
        if name not in groups:
            problems.append(settings.place.say(f"services.{name}", f"is no service; {nearest(name, groups)}"))
    _refuse(problems)
    return Declared([topic for topic, _ in found], settings.gateway.partitions)


def mapping(settings: Settings, declared: Declared) -> TopicMap:
    """Return the rules of ``[[mqtt.map]]``, each leading to topics that are declared with ``mqtt = "in"``."""
    problems: list[str] = []
    rules: dict[str, Rule] = {}
    for n, row in enumerate(settings.mqtt.map):
        key = f"mqtt.map[{n}]"
        try:
            rule = Rule(row.source, row.target)
        except Misconfigured as e:
            problems.append(settings.place.say(key, f"is refused: {e}"))
            continue
        if rules.setdefault(rule.filter, rule) is not rule:
            other = rules[rule.filter].source
            problems.append(settings.place.say(key, f"maps {rule.source!r}, the filter {other!r} of a row before"))
        met = [t for t in declared if overlap(t.filter, rule.reach)]
        if not any(covers(t.filter, rule.reach) for t in met) or any(t.mqtt != "in" for t in met):
            text = f'leads to {rule.target!r}; declare that topic, with mqtt = "in"'
            problems.append(settings.place.say(key, text))
        for topic in declared:
            if topic.mqtt == "out" and overlap(topic.filter, rule.filter):
                text = f"takes in what {topic.pattern!r} sends out, in a loop; map a narrower topic"
                problems.append(settings.place.say(key, text))
    _refuse(problems)
    return TopicMap(rules.values())


def decoders(apps: Iterable[App]) -> dict[str, Decode]:
    """Return content type → decoder of all ``apps``."""
    apps = tuple(apps)
    _refuse(_twice("decoder of", [type for app in apps for type in app.decoders]))
    return {type: decode for app in apps for type, decode in app.decoders.items()}


def services(declared: Declared, apps: Iterable[App]) -> dict[str, Service]:
    """Return group → service of all ``apps``; no service consumes what it emits."""
    found = {f"{app.name}.{service.name}": service for app in apps for service in app.services}
    _refuse([said for group, service in found.items() for said in contradictions(group, service, declared)])
    return found


def participants(services: Mapping[str, Service]) -> tuple[Participant, ...]:
    """Return what each of ``services`` consumes and emits, as :func:`services` checked it."""
    return tuple(
        Participant(
            group,
            tuple(Consumed(one.topic.pattern, _decoded(one.payload())) for one in service.reactions),
            service.emits,
        )
        for group, service in services.items()
    )


def promises(settings: Settings, declared: Declared, apps: Iterable[App] = ()) -> tuple[Promise, ...]:
    """Return what each application's log promises: ``[apps.NAME]`` before the application before the default."""
    by_name = {app.name: app for app in apps}
    made: list[Promise] = []
    for name in sorted({*by_name, *declared.apps}):
        app, table = by_name.get(name) or App(name), settings.apps.get(name) or AppTable()
        made.append(
            Promise(
                name,
                table.durability or app.durability,
                app.retention if table.retention is None else table.retention,
                app.keep if table.keep is None else table.keep,
            )
        )
    return tuple(made)


def _decoded(kind: Any) -> Any:
    """Return ``kind`` where it says what a JSON payload must be, else None."""
    return None if kind in (Any, Event, bytes, str) else kind


def _echoes(topics: Sequence[Topic]) -> list[str]:
    """Say which topics come back from the broker as soon as they are sent there."""
    return [
        f"topics {a.pattern!r} (mqtt in) and {b.pattern!r} (mqtt out) overlap, so the broker would send back what goes "
        "out; make one of them narrower"
        for a in topics
        for b in topics
        if a.mqtt == "in" and b.mqtt == "out" and overlap(a.filter, b.filter)
    ]


def _twice(noun: str, names: Sequence[str]) -> list[str]:
    return [f"{noun} {name!r} is there twice; keep one" for name in sorted({n for n in names if names.count(n) > 1})]


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise Misconfigured("\n".join(problems), "nothing was applied")

"""What the operator decides: environment and gateway.toml as one frozen value.

Everything has a default, so an empty file runs a gateway on embedded servers and loopback. A variable of
:data:`ENVIRONMENT` overrides its key of the file. Whatever is unknown, mistyped or contradictory is refused with its
place and its remedy, all of it at once, and nothing is applied. Secrets are named by file, never by value; a password
inside a URL is not shown again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from gateway import limits
from gateway.errors import Misconfigured
from gateway.tables import Place, Reading, duration, size

#: Seconds; written "200ms", "30s", "1m", "24h" or "7d".
Seconds = Annotated[float, msgspec.Meta(extra={"read": duration})]
#: Bytes; written as a whole number or "64KiB".
Bytes = Annotated[int, msgspec.Meta(extra={"read": size})]
#: A path; a relative one starts at the folder of gateway.toml, or in a variable or a default at the current folder.
File = Annotated[str, msgspec.Meta(extra={"path": True})]

_CREDENTIALS = re.compile(r"://[^/@\s'\"]*@")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_KEY_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return redacted(super().__repr__())


class GatewayTable(_Table, frozen=True):
    """``[gateway]``"""

    #: Distinguishes the gateways that share a log server or a broker.
    name: str = "gateway"
    #: Partitions of each application's log; stored with the log, so a later change is refused there.
    partitions: int = limits.PARTITIONS
    #: Folder of what a first run makes: embedded servers' data, the development secret.
    data: File = ".gateway"
    #: Python applications, each as ``module:attribute`` of an ``App``.
    apps: tuple[str, ...] = ()


class LogTable(_Table, frozen=True):
    """``[log]``"""

    #: ``redis://``, ``rediss://`` or ``unix://``. Empty: an embedded Valkey.
    url: str = ""


class MapTable(_Table, frozen=True):
    """``[[mqtt.map]]``: a burnt-in MQTT topic, and the declared topic it stands for. See ``core/mapping``."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")


class MqttTable(_Table, frozen=True):
    """``[mqtt]``"""

    #: ``mqtt://`` or ``mqtts://``. Empty: the broker that ``gateway up`` starts, else no bridge.
    url: str = ""
    username: str = ""
    password_file: File = ""
    #: Stable, for the broker keeps the session under it. Empty: made of the gateway's name.
    client_id: str = ""
    #: Unacknowledged messages the broker may send: the back-pressure of MQTT in (MQTT 5, 3.1.2.11.3).
    receive_maximum: int = limits.RECEIVE_MAXIMUM
    #: How long the broker keeps messages for a bridge that is away (MQTT 5, 3.1.2.11.2).
    session_expiry: Seconds = limits.SESSION_EXPIRY
    map: tuple[MapTable, ...] = ()


class EdgeTable(_Table, frozen=True):
    """``[edge]``"""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 8080
    #: Whether clients may connect without a token, as the principal ``anonymous``.
    anonymous: bool = False
    #: Origins of pages that may connect, such as ``https://example.org``; ``*`` for all. The gateway's own always may.
    allowed_origins: tuple[str, ...] = ()
    #: PEM files; both or none.
    tls_cert: File = ""
    tls_key: File = ""
    #: A proxy in front ends TLS and sets X-Forwarded-For; believed only from ``proxies``, addresses or networks.
    behind_proxy: bool = False
    proxies: tuple[str, ...] = ()


class KeyTable(_Table, frozen=True):
    """``[[tokens.keys]]``: one key of the ring, or the key set of an issuer, and for whom it may vouch."""

    #: What tokens name as ``kid``; of a key set, its name in logs.
    id: str
    #: The only one this key is used with. A token that names another is refused.
    algorithm: Literal["EdDSA", "ES256", "RS256", "HS256"]
    #: A public key, PEM or JWK; for HS256 a secret. Either this or ``jwks``.
    file: File = ""
    #: ``https://…``, or ``http://`` of this machine: where the issuer publishes its keys.
    jwks: str = ""
    issuer: str = ""
    audience: str = ""
    #: Claims that must be there. By default iss, aud, sub, exp and jti; for HS256 sub and exp.
    required: tuple[str, ...] | None = None
    #: Whom its tokens may name, by their claim ``role``.
    roles: tuple[Literal["user", "device", "service", "operator"], ...] = ("user",)

    @property
    def needs(self) -> tuple[str, ...]:
        """The claims that must be there."""
        usual = ("sub", "exp") if self.algorithm == "HS256" else ("iss", "aud", "sub", "exp", "jti")
        return usual if self.required is None else self.required


class TokensTable(_Table, frozen=True):
    """``[tokens]``: the development key (HS256), and the key ring."""

    #: Whether tokens of the development key are taken, users' and operators'. Turn it off where ``keys`` is all.
    development: bool = True
    #: Empty: a secret made on first run in the data folder.
    hs256_secret_file: File = ""
    #: The ``aud`` and ``iss`` that its tokens must have. Empty: ``aud`` must be absent, ``iss`` is not looked at.
    audience: str = ""
    issuer: str = ""
    keys: tuple[KeyTable, ...] = ()
    #: Names and SHA-256 of servers' keys, see `gateway token --api-key`. Empty: a file in the data folder.
    api_keys_file: File = ""


class AppTable(_Table, frozen=True):
    """``[apps.NAME]``: what an application's log promises. What is absent is as the application itself says."""

    durability: Literal["fast", "disk", "replica"] | None = None
    #: How long events are kept.
    retention: Seconds | None = None
    #: Events of a partition that are kept whatever their age.
    keep: int | None = None


class ServiceTable(_Table, frozen=True):
    """``[services."APP.SERVICE"]``: where one service is, for the processes beside it."""

    #: Where its workers serve its routes, for the edges: ``http://HOST:PORT``. Empty: edges do not forward to it;
    #: ``gateway up`` knows its own.
    url: str = ""
    #: ``sqlite:///PATH`` or ``postgresql://…``. Empty: as the service itself says.
    database: str = ""


class TopicTable(_Table, frozen=True):
    """``[[topics]]``: the fields of ``core/declared.Topic``, without the schema that only Python can state."""

    pattern: str
    app: str = ""
    kind: Literal["command", "fact"] = "fact"
    payload: Literal["json", "text", "bytes"] = "json"
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    key: str = ""
    identity: str = ""
    retain: bool = False
    history: bool = True
    ephemeral: bool = False
    presence: bool = False
    mqtt: Literal["in", "out"] | None = None
    max_bytes: Bytes = limits.PAYLOAD_BYTES


class _File(_Table, frozen=True):
    gateway: GatewayTable = GatewayTable()
    log: LogTable = LogTable()
    mqtt: MqttTable = MqttTable()
    edge: EdgeTable = EdgeTable()
    tokens: TokensTable = TokensTable()
    apps: dict[str, AppTable] = {}
    services: dict[str, ServiceTable] = {}
    topics: tuple[TopicTable, ...] = ()


class Settings(_File, frozen=True):
    """All settings, checked. ``Settings()`` is what an empty file and an empty environment give."""

    #: Where each problem that is found later is to be mended: ``place("topics[3]")``.
    place: Place = Place("gateway.toml")

    @property
    def secret_file(self) -> Path:
        """The file of the HS256 secret."""
        return Path(self.tokens.hs256_secret_file or Path(self.gateway.data) / "token.secret")

    @property
    def api_keys_file(self) -> Path:
        """The file of the API keys' hashes, which need not be there."""
        return Path(self.tokens.api_keys_file or Path(self.gateway.data) / "api.keys")


#: Variable → table and key. A list is written with commas; an empty variable is as none.
ENVIRONMENT: dict[str, tuple[str, str]] = {
    "GATEWAY_NAME": ("gateway", "name"),
    "GATEWAY_PARTITIONS": ("gateway", "partitions"),
    "GATEWAY_DATA": ("gateway", "data"),
    "GATEWAY_APPS": ("gateway", "apps"),
    "GATEWAY_LOG_URL": ("log", "url"),
    "GATEWAY_MQTT_URL": ("mqtt", "url"),
    "GATEWAY_MQTT_USERNAME": ("mqtt", "username"),
    "GATEWAY_MQTT_PASSWORD_FILE": ("mqtt", "password_file"),
    "GATEWAY_MQTT_CLIENT_ID": ("mqtt", "client_id"),
    "GATEWAY_MQTT_RECEIVE_MAXIMUM": ("mqtt", "receive_maximum"),
    "GATEWAY_MQTT_SESSION_EXPIRY": ("mqtt", "session_expiry"),
    "GATEWAY_EDGE_HOST": ("edge", "host"),
    "GATEWAY_EDGE_PORT": ("edge", "port"),
    "GATEWAY_EDGE_ANONYMOUS": ("edge", "anonymous"),
    "GATEWAY_EDGE_ALLOWED_ORIGINS": ("edge", "allowed_origins"),
    "GATEWAY_EDGE_TLS_CERT": ("edge", "tls_cert"),
    "GATEWAY_EDGE_TLS_KEY": ("edge", "tls_key"),
    "GATEWAY_EDGE_BEHIND_PROXY": ("edge", "behind_proxy"),
    "GATEWAY_EDGE_PROXIES": ("edge", "proxies"),
    "GATEWAY_TOKENS_DEVELOPMENT": ("tokens", "development"),
    "GATEWAY_TOKENS_API_KEYS_FILE": ("tokens", "api_keys_file"),
    "GATEWAY_TOKENS_HS256_SECRET_FILE": ("tokens", "hs256_secret_file"),
    "GATEWAY_TOKENS_AUDIENCE": ("tokens", "audience"),
    "GATEWAY_TOKENS_ISSUER": ("tokens", "issuer"),
}


def load(path: str | None, env: Mapping[str, str]) -> Settings:
    """Return the settings of the file at ``path`` (None: no file) under the variables of ``env``.

    Raises :class:`Misconfigured` with every problem that was found, one a line, each with its place.
    """
    reading = Reading.of_file(path) if path is not None else Reading("gateway.toml", "", Path())
    file = reading.table(_File, env, ENVIRONMENT)
    if file is not None:
        reading.problems += [reading.place.say(key, text) for key, text in _contradictions(file)]
    if file is None or reading.problems:
        raise Misconfigured("\n".join(reading.problems), "nothing was applied")
    return Settings(**{f: getattr(file, f) for f in file.__struct_fields__}, place=reading.place)


def redacted(text: str) -> str:
    """Return ``text`` with the user and password of every URL in it hidden: for logs, messages and tables."""
    return _CREDENTIALS.sub("://***@", text)


def loopback(host: str) -> bool:
    """Say whether a server that binds ``host`` can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _contradictions(s: _File) -> Iterator[tuple[str, str]]:
    """Yield key and text of all that single types cannot see."""
    if not _NAME.fullmatch(s.gateway.name):
        yield "gateway.name", "is no name; use a-z, 0-9, - and _, at most 32, a letter first"
    if not 1 <= s.gateway.partitions <= limits.PARTITIONS_MOST:
        yield "gateway.partitions", f"is out of range; use 1 to {limits.PARTITIONS_MOST}"
    for app in s.gateway.apps:
        if not _IMPORT.fullmatch(app):
            yield "gateway.apps", f"has {app!r}; write module:attribute"
    for name, app_table in s.apps.items():
        if not _NAME.fullmatch(name):
            yield f"apps.{name}", "is no application name; use a-z, 0-9, - and _, at most 32, a letter first"
        if app_table.retention is not None and app_table.retention <= 0:
            yield f"apps.{name}.retention", "keeps nothing; use at least 1s"
        if app_table.keep is not None and not 0 <= app_table.keep <= limits.KEEP_MOST:
            yield f"apps.{name}.keep", f"is out of range; use 0 to {limits.KEEP_MOST}"
    yield from _urls(s)
    yield from addressed(s.services)
    yield from _edge(s.edge)
    yield from _tokens(s.tokens)
    if len(s.mqtt.map) > limits.MQTT_MAPS:
        yield "mqtt.map", f"has {len(s.mqtt.map)} rows; use at most {limits.MQTT_MAPS}, wildcards cover many topics"


def _urls(s: _File) -> Iterator[tuple[str, str]]:
    # What is wrong is said without the URL: it may hold a password.
    for key, url, schemes in (
        ("log.url", s.log.url, ("redis", "rediss", "unix")),
        ("mqtt.url", s.mqtt.url, ("mqtt", "mqtts")),
    ):
        if not url:
            continue
        if not _whole(url, schemes):
            yield key, f"is not a URL for this; write {' or '.join(f'{scheme}://…' for scheme in schemes)}"
        elif key == "mqtt.url" and "@" in url:
            yield key, "has credentials in it; use mqtt.username and mqtt.password_file"
    if s.mqtt.password_file and not s.mqtt.username:
        yield "mqtt.password_file", "has no user; set mqtt.username too"
    if not 1 <= s.mqtt.receive_maximum <= 65_535:
        yield "mqtt.receive_maximum", "is out of range; use 1 to 65535 (MQTT 5, 3.1.2.11.3)"
    if not 0 <= s.mqtt.session_expiry < 2**32:
        yield "mqtt.session_expiry", "is out of range; use less than 49710d (MQTT 5, 3.1.2.11.2)"


def addressed(services: Mapping[str, ServiceTable]) -> Iterator[tuple[str, str]]:
    """Yield key and text of every address that is none."""
    for name, table in services.items():
        key = f"services.{name}"
        if not all(_NAME.fullmatch(part) for part in name.split(".")) or name.count(".") != 1:
            yield key, 'is no service; write [services."APP.SERVICE"]'
        if table.url and not (_whole(table.url, ("http", "https")) and _bare(table.url)):
            yield f"{key}.url", "is not where a service answers; write http://HOST:PORT, without a path"
        if table.database and not _whole(table.database, ("sqlite", "postgresql")):
            yield f"{key}.database", "is not a URL for this; write sqlite:///PATH or postgresql://HOST/NAME"


def _bare(url: str) -> bool:
    """Say whether ``url`` names a server and nothing else: no user, no path, no query."""
    parts = urlsplit(url)
    return parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)


def _whole(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises where it is no number
    except ValueError:
        return False
    if parts.scheme == "sqlite":
        # Without a path it would be a database in memory, of one process and one run.
        return "sqlite" in schemes and not parts.netloc and len(parts.path) > 1
    place = parts.path if parts.scheme == "unix" else parts.hostname
    return parts.scheme in schemes and bool(place) and port != 0


def _edge(edge: EdgeTable) -> Iterator[tuple[str, str]]:
    if not 0 <= edge.port <= 65_535:
        yield "edge.port", "is out of range; use 0 to 65535"
    for origin in edge.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            yield "edge.allowed_origins", f"has {redacted(origin)!r}; write https://HOST[:PORT] without a path, or *"
    if bool(edge.tls_cert) != bool(edge.tls_key):
        absent = "tls_key" if edge.tls_cert else "tls_cert"
        yield f"edge.{'tls_cert' if edge.tls_cert else 'tls_key'}", f"needs edge.{absent} beside it; set both or none"
    for name in ("tls_cert", "tls_key"):
        if (path := getattr(edge, name)) and not Path(path).is_file():
            yield f"edge.{name}", f"names {path}, which is no file; write the path of a PEM file"
    for proxy in edge.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            yield "edge.proxies", f"has {proxy!r}; write an address or a network such as 10.0.0.0/8"
    if edge.behind_proxy and not edge.proxies:
        yield "edge.behind_proxy", 'believes nobody; name the proxies, such as edge.proxies = ["10.0.0.0/8"]'
    if not loopback(edge.host) and not edge.tls_cert and not edge.behind_proxy:
        # Tokens would cross the network in clear text.
        yield (
            "edge.host",
            f"opens {edge.host or 'every address'} to the network without TLS; set edge.tls_cert and edge.tls_key, "
            "or edge.behind_proxy = true with edge.proxies, or bind 127.0.0.1",
        )


def _tokens(tokens: TokensTable) -> Iterator[tuple[str, str]]:
    if not tokens.development and not tokens.keys:
        yield "tokens.development", "is off, and there is no other key; set [[tokens.keys]]"
    if len(tokens.keys) > limits.KEYS:
        yield "tokens.keys", f"has {len(tokens.keys)} rows; use at most {limits.KEYS}, or a key set (jwks)"
    ids = [key.id for key in tokens.keys]
    for n, table in enumerate(tokens.keys):
        key = f"tokens.keys[{n}]"
        if not _KEY_ID.fullmatch(table.id) or table.id == "development":
            yield f"{key}.id", "is no key id; use letters, digits, -, _ and ., at most 128, and not development"
        if table.id in ids[:n]:
            yield f"{key}.id", f"is that of another key too: {table.id}"
        if bool(table.file) == bool(table.jwks):
            yield key, "needs a file or a jwks, and not both"
        if table.jwks and table.algorithm == "HS256":
            yield f"{key}.jwks", "publishes no secrets; name a file for HS256"
        local = _whole(table.jwks, ("http",)) and loopback(urlsplit(table.jwks).hostname or "")
        if table.jwks and ("@" in table.jwks or not (local or _whole(table.jwks, ("https",)))):
            # Whoever stands between would choose the keys.
            yield f"{key}.jwks", "is no address to take keys from; write https://…, without a user"
        if not table.roles:
            yield f"{key}.roles", "names nobody; write user, device, service or operator"
        for claim, value in (("iss", table.issuer), ("aud", table.audience)):
            if claim in table.needs and not value:
                name = "issuer" if claim == "iss" else "audience"
                yield f"{key}.{name}", f"is missing, and {claim} is required; set it, or set required without {claim}"

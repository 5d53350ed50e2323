"""What gateway.toml may hold: its tables, with the default and the meaning of each key."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gateway import limits
from gateway.settings.addresses import redacted
from gateway.tables import duration, size

#: Seconds; written "200ms", "30s", "1m", "24h" or "7d".
Seconds = Annotated[float, msgspec.Meta(extra={"read": duration})]
#: Bytes; written as a whole number or "64KiB".
Bytes = Annotated[int, msgspec.Meta(extra={"read": size})]
#: A path; a relative one starts at the folder of gateway.toml, or in a variable or a default at the current folder.
File = Annotated[str, msgspec.Meta(extra={"path": True})]


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
    #: Its own address as services and the public reach it, ``https://HOST[:PORT]``: for services that ask others, for
    #: links, and for the keys that an application issues tokens by. ``gateway up`` knows its own.
    origin: str = ""


class LogTable(_Table, frozen=True):
    """``[log]``"""

    #: ``redis://``, ``rediss://`` or ``unix://``. Empty: an embedded Valkey.
    url: str = ""
    #: Its account, see ``gateway log-credentials``, or in ``url``.
    username: str = ""
    password_file: File = ""


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
    #: Edges on this machine that share the port: ``gateway up`` starts so many. Linux gives each new connection to one.
    processes: int = 1
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
    #: Commands of one WebSocket client, and publishes by HTTP of one user or device, in a second. 0: as many as come.
    messages_per_second: int = limits.CLIENT_MESSAGES
    #: How many of them at once, after a pause.
    message_burst: int = limits.CLIENT_BURST
    #: WebSocket connections of one user, viewer or device at this edge. 0: any number.
    connections_per_user: int = limits.USER_CONNECTIONS


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
    roles: tuple[Literal["user", "viewer", "device", "service", "operator"], ...] = ("user",)
    #: Filters of the topics that its subscription tokens open for whom no grant lets in.
    opens: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The claims that must be there."""
        usual = ("sub", "exp") if self.algorithm == "HS256" else ("iss", "aud", "sub", "exp", "jti")
        return usual if self.required is None else self.required


class TokensTable(_Table, frozen=True):
    """``[tokens]``: the development key (HS256), and the key ring."""

    #: Whether tokens of the development key are taken (users, viewers, operators). Turn it off where ``keys`` is all.
    development: bool = True
    #: Empty: a secret made on first run in the data folder.
    hs256_secret_file: File = ""
    #: The ``aud`` and ``iss`` that its tokens must have. Empty: ``aud`` must be absent, ``iss`` is not looked at.
    audience: str = ""
    issuer: str = ""
    #: As of ``keys``.
    opens: tuple[str, ...] = ()
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
    #: File of the API key by which it asks others, mode 600. Empty: ``keys/APP.SERVICE.key`` in the data folder.
    key_file: File = ""


class TopicTable(_Table, frozen=True):
    """``[[topics]]``: the fields of ``core/declared.Topic``, without the schema that only Python can state."""

    pattern: str
    app: str = ""
    kind: Literal["command", "fact"] = "fact"
    payload: Literal["json", "text", "bytes"] = "json"
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    deny_write: tuple[str, ...] = ()
    deny_read: tuple[str, ...] = ()
    key: str = ""
    identity: str = ""
    retain: bool = False
    history: bool = True
    ephemeral: bool = False
    presence: bool = False
    mqtt: Literal["in", "out"] | None = None
    max_bytes: Bytes = limits.PAYLOAD_BYTES


class Document(_Table, frozen=True):
    """The whole file."""

    gateway: GatewayTable = GatewayTable()
    log: LogTable = LogTable()
    mqtt: MqttTable = MqttTable()
    edge: EdgeTable = EdgeTable()
    tokens: TokensTable = TokensTable()
    apps: dict[str, AppTable] = {}
    services: dict[str, ServiceTable] = {}
    topics: tuple[TopicTable, ...] = ()

"""What is wrong with settings that single types cannot see: out of range, contradictory, or unsafe."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gateway import limits
from gateway.settings.addresses import bare, each, loopback, redacted, whole
from gateway.settings.sections import Document, EdgeTable, ServiceTable, TokensTable

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_KEY_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")


def contradictions(s: Document) -> Iterator[tuple[str, str]]:
    """Yield key and text of all that single types cannot see."""
    if not _NAME.fullmatch(s.gateway.name):
        yield "gateway.name", "is no name; use a-z, 0-9, - and _, at most 32, a letter first"
    if not 1 <= s.gateway.partitions <= limits.PARTITIONS_MOST:
        yield "gateway.partitions", f"is out of range; use 1 to {limits.PARTITIONS_MOST}"
    for app in s.gateway.apps:
        if not _IMPORT.fullmatch(app):
            yield "gateway.apps", f"has {app!r}; write module:attribute"
    if s.gateway.origin and not (whole(s.gateway.origin, ("http", "https")) and bare(s.gateway.origin)):
        yield "gateway.origin", "is not where a gateway answers; write https://HOST[:PORT], without a path"
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


def _urls(s: Document) -> Iterator[tuple[str, str]]:
    # What is wrong is said without the URL: it may hold a password.
    for key, url, schemes in (
        ("log.url", s.log.url, ("redis", "rediss", "unix")),
        ("mqtt.url", s.mqtt.url, ("mqtt", "mqtts")),
    ):
        if not url:
            continue
        try:
            good = all(whole(one, schemes) for one in (each(url) if key == "log.url" else [url]))
        except ValueError:
            good = False
        if not good:
            yield key, f"is not a URL for this; write {' or '.join(f'{scheme}://…' for scheme in schemes)}"
        elif key == "mqtt.url" and "@" in url:
            yield key, "has credentials in it; use mqtt.username and mqtt.password_file"
    if s.log.password_file and not s.log.url:
        yield "log.password_file", "has no server; set log.url too"
    if s.log.password_file and "@" in s.log.url:
        yield "log.url", "has credentials in it, and log.password_file others; use one of them"
    if s.log.username and not s.log.password_file:
        yield "log.username", "has no password; set log.password_file too"
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
        if table.url and not (whole(table.url, ("http", "https")) and bare(table.url)):
            yield f"{key}.url", "is not where a service answers; write http://HOST:PORT, without a path"
        if table.database and not whole(table.database, ("sqlite", "postgresql")):
            yield f"{key}.database", "is not a URL for this; write sqlite:///PATH or postgresql://HOST/NAME"


def _edge(edge: EdgeTable) -> Iterator[tuple[str, str]]:
    if not 0 <= edge.port <= 65_535:
        yield "edge.port", "is out of range; use 0 to 65535"
    if not 1 <= edge.processes <= limits.EDGE_PROCESSES_MOST:
        yield "edge.processes", f"is out of range; use 1 to {limits.EDGE_PROCESSES_MOST}, at most one a core"
    for name, least in (("messages_per_second", 0), ("message_burst", 1), ("connections_per_user", 0)):
        if not least <= getattr(edge, name) <= limits.CLIENT_MESSAGES_MOST:
            yield f"edge.{name}", f"is out of range; use {least} to {limits.CLIENT_MESSAGES_MOST}"
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
    opened = [
        ("tokens.opens", tokens.opens),
        *((f"tokens.keys[{n}].opens", k.opens) for n, k in enumerate(tokens.keys)),
    ]
    for key, filters in opened:
        for filter in filters:
            if not filter or "#" in filter.split("/")[:-1]:
                yield key, f"has {filter!r}, which is no topic and no filter; write rooms/1, or rooms/#"
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
        local = whole(table.jwks, ("http",)) and loopback(urlsplit(table.jwks).hostname or "")
        if table.jwks and ("@" in table.jwks or not (local or whole(table.jwks, ("https",)))):
            # Whoever stands between would choose the keys.
            yield f"{key}.jwks", "is no address to take keys from; write https://…, without a user"
        if not table.roles:
            yield f"{key}.roles", "names nobody; write user, viewer, device, service or operator"
        for claim, value in (("iss", table.issuer), ("aud", table.audience)):
            if claim in table.needs and not value:
                name = "issuer" if claim == "iss" else "audience"
                yield f"{key}.{name}", f"is missing, and {claim} is required; set it, or set required without {claim}"

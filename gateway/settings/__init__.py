"""What the operator decides: environment and gateway.toml as one frozen value.

Everything has a default, so an empty file runs a gateway on embedded servers and loopback. A variable of
:data:`ENVIRONMENT` overrides its key of the file. Whatever is unknown, mistyped or contradictory is refused with its
place and its remedy, all of it at once, and nothing is applied. Secrets are named by file, never by value; a password
inside a URL is not shown again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.errors import Misconfigured
from gateway.settings.addresses import loopback, redacted
from gateway.settings.contradictions import addressed, contradictions
from gateway.settings.sections import (
    AppTable,
    Document,
    EdgeTable,
    GatewayTable,
    KeyTable,
    LogTable,
    MapTable,
    MqttTable,
    ServiceTable,
    TokensTable,
    TopicTable,
)
from gateway.tables import Place, Reading

__all__ = [
    "ENVIRONMENT",
    "AppTable",
    "EdgeTable",
    "GatewayTable",
    "KeyTable",
    "LogTable",
    "MapTable",
    "MqttTable",
    "ServiceTable",
    "Settings",
    "TokensTable",
    "TopicTable",
    "addressed",
    "load",
    "loopback",
    "redacted",
]


class Settings(Document, frozen=True):
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

    def key_file(self, group: str) -> Path:
        """The file of the API key by which the service ``group`` asks others."""
        named = self.services[group].key_file if group in self.services else ""
        return Path(named or Path(self.gateway.data) / "keys" / f"{group}.key")


#: Variable → table and key. A list is written with commas; an empty variable is as none.
ENVIRONMENT: dict[str, tuple[str, str]] = {
    "GATEWAY_NAME": ("gateway", "name"),
    "GATEWAY_PARTITIONS": ("gateway", "partitions"),
    "GATEWAY_DATA": ("gateway", "data"),
    "GATEWAY_APPS": ("gateway", "apps"),
    "GATEWAY_ORIGIN": ("gateway", "origin"),
    "GATEWAY_LOG_URL": ("log", "url"),
    "GATEWAY_LOG_USERNAME": ("log", "username"),
    "GATEWAY_LOG_PASSWORD_FILE": ("log", "password_file"),
    "GATEWAY_MQTT_URL": ("mqtt", "url"),
    "GATEWAY_MQTT_USERNAME": ("mqtt", "username"),
    "GATEWAY_MQTT_PASSWORD_FILE": ("mqtt", "password_file"),
    "GATEWAY_MQTT_CLIENT_ID": ("mqtt", "client_id"),
    "GATEWAY_MQTT_RECEIVE_MAXIMUM": ("mqtt", "receive_maximum"),
    "GATEWAY_MQTT_SESSION_EXPIRY": ("mqtt", "session_expiry"),
    "GATEWAY_EDGE_HOST": ("edge", "host"),
    "GATEWAY_EDGE_PORT": ("edge", "port"),
    "GATEWAY_EDGE_PROCESSES": ("edge", "processes"),
    "GATEWAY_EDGE_ANONYMOUS": ("edge", "anonymous"),
    "GATEWAY_EDGE_ALLOWED_ORIGINS": ("edge", "allowed_origins"),
    "GATEWAY_EDGE_TLS_CERT": ("edge", "tls_cert"),
    "GATEWAY_EDGE_TLS_KEY": ("edge", "tls_key"),
    "GATEWAY_EDGE_BEHIND_PROXY": ("edge", "behind_proxy"),
    "GATEWAY_EDGE_PROXIES": ("edge", "proxies"),
    "GATEWAY_EDGE_MESSAGES_PER_SECOND": ("edge", "messages_per_second"),
    "GATEWAY_EDGE_MESSAGE_BURST": ("edge", "message_burst"),
    "GATEWAY_EDGE_CONNECTIONS_PER_USER": ("edge", "connections_per_user"),
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
    file = reading.table(Document, env, ENVIRONMENT)
    if file is not None:
        reading.problems += [reading.place.say(key, text) for key, text in contradictions(file)]
    if file is None or reading.problems:
        raise Misconfigured("\n".join(reading.problems), "nothing was applied")
    return Settings(**{f: getattr(file, f) for f in file.__struct_fields__}, place=reading.place)

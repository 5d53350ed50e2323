"""Which edge a command talks to, and as whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
import typer

from gateway.cli.configuration import gather
from gateway.errors import GatewayError, Misconfigured, Unavailable
from gateway.settings import Settings, loopback
from gateway.up import running

Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="The edge; by default the one of this machine.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="As the bearer of this token; else of GATEWAY_TOKEN, else the user of `gateway up`.",
    ),
]


class Target(msgspec.Struct, frozen=True):
    """An edge and a token, which may be empty."""

    url: str
    token: str

    @property
    def websocket(self) -> str:
        return "ws" + self.url.removeprefix("http") + "/connection/websocket"

    def away(self, why: object) -> Unavailable:
        """Return the error of an edge that does not answer."""
        return Unavailable(f"no edge answers at {self.url} ({why})", "start one with `gateway up`, or name it by --url")


class Answer(msgspec.Struct, frozen=True):
    """A refusal as problem+json tells it."""

    detail: str = ""
    #: ``urn:topic-gateway:`` and the error's code.
    type: str = ""


class RefusedByEdge(GatewayError):
    """The edge said no; its words are passed on as they are."""

    code = "refused"
    whose = "caller"


def find(url: str, token_file: Path | None, config: Path | None, role: Literal["user", "operator"] = "user") -> Target:
    """Return the edge that is named, else the running one, else the one of the settings.

    A token is never an argument: every user of the machine may read those. The one that ``gateway up`` keeps for a
    ``role`` goes to this machine alone.
    """
    token = os.environ.get("GATEWAY_TOKEN", "") if token_file is None else _read(token_file)
    settings = gather(config).settings
    if not url:
        found = running(settings)
        url = found.edge if found is not None else _of(settings)
    no_edge = Misconfigured(f"{url!r} is no edge", "write http://HOST:PORT")
    try:
        parts = urlsplit(url)
        _ = parts.port  # out of range raises, too
    except ValueError:
        raise no_edge from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise no_edge
    kept = Path(settings.gateway.data) / f"{role}.token"
    if not token and loopback(parts.hostname) and kept.is_file():
        token = kept.read_text(encoding="utf-8").strip()
    return Target(url.rstrip("/"), token)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"{file} cannot be read", "name a file with a token in it") from None


def _of(settings: Settings) -> str:
    host = f"[{settings.edge.host}]" if ":" in settings.edge.host else settings.edge.host
    return f"{'https' if settings.edge.tls_cert else 'http'}://{host}:{settings.edge.port}"

"""Which edge a command talks to, and as whom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec
import typer

from gateway.cli.configuration import gather
from gateway.errors import GatewayError, Misconfigured, Refused, Unavailable
from gateway.settings import Settings, loopback
from gateway.up import Running, running

T = TypeVar("T")

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

    def ask(
        self, method: str, path: str, within: float, headers: Mapping[str, str] | None = None, **asked: Any
    ) -> httpx.Response:
        """Return what the edge answers ``within`` seconds, be it a refusal.

        Raises :class:`Refused` for what no header can hold, and :class:`Unavailable`.
        """
        sent = {"authorization": f"Bearer {self.token}"} if self.token else {}
        sent |= headers or {}
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable()):
                # Not which value: it may be the token, which the client's own error would show.
                raise Refused(f"the {name} of the request is not printable ASCII", "use other characters")
        try:
            return httpx.request(
                method, self.url + path, headers=sent, timeout=within, trust_env=False, follow_redirects=False, **asked
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self.away(error) from None


class Answer(msgspec.Struct, frozen=True):
    """A refusal as problem+json tells it."""

    detail: str = ""
    #: ``urn:topic-gateway:`` and the error's code.
    type: str = ""


class RefusedByEdge(GatewayError):
    """The edge said no; its words are passed on as they are."""

    code = "refused"
    whose = "caller"


def detail_of(answer: httpx.Response) -> str:
    """Return what a problem+json says, or the status where it is none."""
    try:
        detail = msgspec.json.decode(answer.content, type=Answer).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"the edge answered {answer.status_code}, and not in its own words; is it a topic gateway?"
    return detail or f"the edge answered {answer.status_code}"


def read(answer: httpx.Response, type: type[T]) -> T:
    """Return what a success says; raises :class:`RefusedByEdge` for others, and where no edge of ours said it."""
    if answer.is_success:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(answer.content, type=type)
    raise RefusedByEdge(detail_of(answer))


def find(url: str, token_file: Path | None, config: Path | None, role: Literal["user", "operator"] = "user") -> Target:
    """Return the edge that is named, else the running one, else the one of the settings.

    A token is never an argument: every user of the machine may read those. The one that ``gateway up`` keeps for a
    ``role`` goes to this machine alone; the operator's to that very edge, for others may listen where none runs.
    """
    token = os.environ.get("GATEWAY_TOKEN", "").strip() if token_file is None else _read(token_file)
    settings = gather(config).settings
    found = running(settings)
    if not url:
        url = found.edge if found is not None else _of(settings)
    no_edge = Misconfigured(f"{url!r} is no edge", "write http://HOST:PORT")
    try:
        parts = urlsplit(url)
        _ = parts.port  # out of range raises, too
        (parts.hostname or "").encode("idna")  # as whoever resolves it will
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise no_edge from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise no_edge
    if not token and loopback(parts.hostname) and (role == "user" or _is(found, parts)):
        with suppress(OSError):  # there is none, or another user's
            token = (Path(settings.gateway.data) / f"{role}.token").read_text(encoding="utf-8").strip()
    return Target(url.rstrip("/"), token)


def _is(found: Running | None, named: SplitResult) -> bool:
    if found is None:
        return False
    own = urlsplit(found.edge)
    return (own.scheme, own.hostname, own.port) == (named.scheme, named.hostname, named.port)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"{file} cannot be read", "name a file with a token in it") from None


def _of(settings: Settings) -> str:
    host = f"[{settings.edge.host}]" if ":" in settings.edge.host else settings.edge.host
    return f"{'https' if settings.edge.tls_cert else 'http'}://{host}:{settings.edge.port}"

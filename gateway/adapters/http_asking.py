"""How a service asks another over HTTP: by the gateway's own address, with a key of its own, within bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import httpx
import msgspec
from starlette.requests import Request

from gateway import limits
from gateway.adapters.http_bounds import TooSlow, check_plain
from gateway.adapters.tokens import load_api_key
from gateway.errors import Busy, Denied, GatewayError, Misconfigured, TurnedDown, Unavailable
from gateway.service import Context

T = TypeVar("T")
_URN = "urn:topic-gateway:"
_API = "/api/"


class NotLetIn(Unavailable):
    """A service whose key is not good there: the operator's to mend, and nothing is lost until then."""

    code = "not_let_in"
    whose = "operator"


class WrongAnswer(GatewayError):
    """An answer of another service that is not what was agreed on."""

    code = "wrong_answer"
    status = 502
    whose = "operator"


class Asking:
    """One service's way to the routes of those that it ``asks``."""

    def __init__(self, group: str, asks: Collection[str], origin: Callable[[], str], key: Callable[[], str]) -> None:
        """``origin``: ``http://HOST:PORT`` of the gateway. ``key`` is read at each ask: it may be rotated."""
        self._group, self._key = group, key
        self._prefixes = tuple(f"/{one.replace('.', '/')}/" for one in asks)
        self._origin = origin

    @property
    def origin(self) -> str:
        """The gateway's address, as its services and clients reach it; paths are put behind it."""
        return self._origin().rstrip("/")

    async def ask(self, method: str, path: str, body: object, headers: Mapping[str, str], within: float) -> bytes:
        """See :func:`ask`."""
        if not f"{path.partition('?')[0]}/".startswith(self._prefixes):
            group = "api" if path.startswith(_API) else ".".join(path.split("/")[1:3])
            raise Misconfigured(f"service {self._group!r} asks {path[:200]!r}", f"Service(…, asks=[{group!r}])")
        check_plain(path.partition("?")[0].encode())
        try:
            said = {"authorization": f"Bearer {self._key()}"}
        except Misconfigured as error:
            raise NotLetIn(error.detail, error.remedy) from None
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        if content and not isinstance(body, bytes):
            said["content-type"] = "application/json"
        try:
            async with asyncio.timeout(within):
                request = self._http.build_request(
                    method,
                    self.origin + path,
                    content=content,
                    headers={**said, **headers},
                    timeout=httpx.Timeout(None, pool=within / 2),
                )
                answer = await self._http.send(request, stream=True)
                try:
                    data = await _read(answer, path)
                finally:
                    await answer.aclose()
        except httpx.PoolTimeout:
            raise Busy(f"{self._group} asks {limits.ASKS_AT_ONCE} at once", "ask again", retry_after=1.0) from None
        except (TimeoutError, httpx.TimeoutException):
            raise TooSlow(f"{path} did not answer in time", "ask again: it may have been done") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{path}: {type(error).__name__}", "is the gateway up?") from None
        _judge(path, answer, data)
        return _result(path, data) if path.startswith(_API) else data

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        # No proxy of the environment, no redirect: what is sent is for this address alone. No connection is kept, for
        # one that the other side closes at this moment would fail an ask that nobody saw; so nothing is to be closed.
        return httpx.AsyncClient(
            limits=httpx.Limits(max_connections=limits.ASKS_AT_ONCE, max_keepalive_connections=0),
            trust_env=False,
            verify=ssl.create_default_context(),
        )


def configured(group: str, asks: Collection[str], origin: str, key_file: Path) -> Asking:
    """Return the way of a service's process; raises :class:`Misconfigured` where it knows no origin or has no key."""
    if asks and not origin:
        raise Misconfigured(f"service {group!r} asks others, and gateway.origin is not set", "set it: http://HOST:PORT")
    if asks:
        load_api_key(key_file)
    return Asking(group, asks, lambda: origin, lambda: load_api_key(key_file))


class _Asks(Protocol):
    asking: Asking


@overload
async def ask(
    of: Context | Request,
    method: str,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str] = ...,
    within: float = ...,
) -> None: ...
@overload
async def ask(
    of: Context | Request,
    method: str,
    path: str,
    body: object = None,
    *,
    returns: type[T],
    headers: Mapping[str, str] = ...,
    within: float = ...,
) -> T: ...
async def ask(
    of: Context | Request,
    method: str,
    path: str,
    body: object = None,
    *,
    returns: Any = None,
    headers: Mapping[str, str] | None = None,
    within: float = limits.ASK_WITHIN,
) -> Any:
    """Ask a route of another service, ``/APP/SERVICE/…``, as this one, and return its answer as ``returns``.

    Or the gateway's server API, ``POST /api/METHOD``, where ``api`` is among its ``asks``: then ``returns`` is of the
    ``result``, and an ``error`` raises as below, 103 as 403, 100 and 111 as a 5xx.

    ``of``: what this service does now, a delivery's context or a route's request; the asked one is among its ``asks``.
    ``body``: bytes as they are, anything else as JSON. ``returns``: any type that msgspec decodes; without, nothing is.
    ``within``: seconds for all of it. Nothing is asked twice by itself.

    Raises :class:`Unavailable` where there is no answer, none yet, or a 5xx, 408 or 429: a handler that lets it pass is
    given its event again, so the asked route takes the same twice for one. :class:`NotLetIn`, one of these, where the
    key is not good (401, 403). :class:`TurnedDown` for any other answer that is no success, with its ``answered`` and
    ``word``; :class:`WrongAnswer` for a body that is not of the type.
    """
    data = await _asking(of).ask(method, path, body, headers or {}, within)
    if returns is None:
        return None
    try:
        return msgspec.json.decode(data, type=returns)
    except msgspec.MsgspecError as error:
        raise WrongAnswer(f"{path} answered what was not agreed on: {error}", "see what it answers") from None


def origin(of: Context | Request) -> str:
    """Return the gateway's address, ``https://HOST[:PORT]``, for links that leave; raises :class:`Misconfigured`."""
    return _asking(of).origin


def _asking(of: Any) -> Asking:
    found: _Asks = of.state.service if isinstance(of, Request) else of
    return found.asking


async def _read(answer: httpx.Response, path: str) -> bytes:
    data = bytearray()
    async for chunk in answer.aiter_bytes():
        data += chunk
        if len(data) > limits.ASK_ANSWER_BYTES:
            raise WrongAnswer(f"{path} answered more than {limits.ASK_ANSWER_BYTES} bytes", "ask for less")
    return bytes(data)


class _Told(msgspec.Struct, frozen=True):
    code: int
    message: str = ""


class _Answer(msgspec.Struct, frozen=True):
    """Of the server API: one of the two (docs/protocol.md)."""

    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Told | None = None


def _result(path: str, data: bytes) -> bytes:
    try:
        said = msgspec.json.decode(data, type=_Answer)
    except msgspec.MsgspecError as error:
        raise WrongAnswer(f"{path} answered what was not agreed on: {error}", "see what it answers") from None
    match said.error:
        case None:
            return bytes(said.result)
        case _Told(Denied.reply, message):
            raise NotLetIn(f"{path}: {message}", "see the grants of that topic")
        case _Told(Unavailable.reply | Busy.reply, message):
            raise Unavailable(f"{path}: {message}", "ask again")
        case _Told(code, message):
            raise TurnedDown(f"{path} answered {code} {message}", code)


class _Problem(msgspec.Struct, frozen=True):
    type: str = ""


def _judge(path: str, answer: httpx.Response, data: bytes) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    if status in (401, 403):
        raise NotLetIn(f"{path} answered {status}", "see which keys it takes: gateway token --api-key")
    if status >= 500 or status in (408, 429):
        after = answer.headers.get("retry-after", "")
        pause = min(float(after), limits.ASK_AFTER) if after.isascii() and after.isdigit() else None
        raise Unavailable(f"{path} answered {status}", "ask again", retry_after=pause)
    try:
        type = msgspec.json.decode(data, type=_Problem).type
    except msgspec.MsgspecError:
        type = ""
    raise TurnedDown(f"{path} answered {status}", status, type.removeprefix(_URN) if type.startswith(_URN) else "")

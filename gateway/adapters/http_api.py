"""The server API over HTTP, in the form that PyPI's ``cent`` speaks: JSON in, ``result`` or ``error`` out."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import limits
from gateway.adapters.http import Guarded, body_of, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_problem import NO_STORE
from gateway.core.wire import HistoryResult, PresenceResult, PresenceStatsResult, Since
from gateway.errors import BadPayload, GatewayError, NotAvailable, Refused


class _Publishing(msgspec.Struct, frozen=True, kw_only=True):
    data: msgspec.Raw = msgspec.Raw(b"")
    #: Instead of ``data``, for topics of bytes.
    b64data: str = ""
    idempotency_key: str = ""
    #: What this server does not do; refused where it is asked for.
    skip_history: bool = False
    tags: dict[str, str] = {}
    delta: bool = False

    def payload(self) -> bytes:
        """Return what to publish; raises :class:`Refused`."""
        if self.skip_history or self.tags or self.delta:
            raise NotAvailable("skip_history, tags and delta are not offered", "a topic's declaration decides")
        if bool(self.b64data) == bool(bytes(self.data)):
            raise BadPayload("there is no data, or twice", "send data, or b64data")
        try:
            return base64.b64decode(self.b64data, validate=True) if self.b64data else bytes(self.data)
        except binascii.Error as e:
            raise BadPayload(f"b64data is not base64: {e}", "use RFC 4648, section 4") from None


class Publish(_Publishing, frozen=True):
    channel: str


class Broadcast(_Publishing, frozen=True):
    channels: list[str]


class _OfUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One connection where ``client`` names it, else all of ``user``.

    What is not heeded (``session``, ``override``) is refused: without it the command would mean more than was asked.
    """

    user: str
    client: str = ""


class Subscribe(_OfUser, frozen=True, kw_only=True):
    channel: str
    #: What came after it is sent first.
    recover_since: Since | None = None


class Refresh(_OfUser, frozen=True, kw_only=True):
    """When its connections end, in seconds since 1970; or that they are over."""

    expire_at: int = 0
    expired: bool = False


class Unsubscribe(_OfUser, frozen=True, kw_only=True):
    channel: str


class Reason(msgspec.Struct, frozen=True):
    """What a client is told: 3500 to 3999 and 4500 to 4999 are final for an SDK."""

    code: int = 0
    reason: str = ""


class Disconnect(_OfUser, frozen=True, kw_only=True):
    """Not those of the ``whitelist``."""

    whitelist: list[str] = []
    disconnect: Reason | None = None


class OfChannel(msgspec.Struct, frozen=True):
    channel: str


class History(msgspec.Struct, frozen=True):
    channel: str
    limit: int = 0
    since: Since | None = None
    reverse: bool = False


class Channels(msgspec.Struct, frozen=True):
    """Those with subscribers that overlap the filter ``pattern``; all where there is none."""

    pattern: str = "#"


class Info(msgspec.Struct, frozen=True):
    """Of every edge."""


class Done(msgspec.Struct, frozen=True):
    """Nothing to say but that."""


class Published(msgspec.Struct, frozen=True, omit_defaults=True):
    offset: int = 0
    epoch: str = ""


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the two."""

    result: Published | None = None
    error: _Error | None = None


class Responses(msgspec.Struct, frozen=True):
    responses: list[Answer]


class Count(msgspec.Struct, frozen=True):
    num_clients: int


class Counts(msgspec.Struct, frozen=True):
    """By channel, which may be a filter; those that the asker may read."""

    channels: dict[str, Count]


class Node(msgspec.Struct, frozen=True):
    """One edge."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class Nodes(msgspec.Struct, frozen=True):
    nodes: list[Node]


class Server(Protocol):
    """What the bearer of one key may do; every method raises ``errors`` only."""

    async def publish(self, channel: str, data: bytes, idempotency: str) -> Published: ...
    async def subscribe(self, asked: Subscribe) -> Done: ...
    async def refresh(self, asked: Refresh) -> Done: ...
    async def unsubscribe(self, asked: Unsubscribe) -> Done: ...
    async def disconnect(self, asked: Disconnect) -> Done: ...
    async def presence(self, channel: str) -> PresenceResult: ...
    async def presence_stats(self, channel: str) -> PresenceStatsResult: ...
    async def history(self, asked: History) -> HistoryResult: ...
    async def channels(self, asked: Channels) -> Counts: ...
    async def info(self) -> Nodes: ...


class Api(Guarded, Protocol):
    def server(self, key: str) -> Server:
        """Return what the bearer of ``key`` may do; raises :class:`BadToken` and :class:`Denied`."""


#: Method → what it takes.
REQUESTS: Final[dict[str, type[msgspec.Struct]]] = {
    "publish": Publish,
    "broadcast": Broadcast,
    "subscribe": Subscribe,
    "refresh": Refresh,
    "unsubscribe": Unsubscribe,
    "disconnect": Disconnect,
    "presence": OfChannel,
    "presence_stats": OfChannel,
    "history": History,
    "channels": Channels,
    "info": Info,
}
#: What others of this form offer and we do not.
_ABSENT: Final = ("history_remove",)


class _Batch(msgspec.Struct, frozen=True):
    """Commands in order, each an object of one key. What ``parallel`` says makes no difference here."""

    commands: list[dict[str, msgspec.Raw]]


def routes(api: Api) -> list[Route]:
    """Return ``POST /api/{method}``. Errors of a command are answered with 200, as clients of this form expect."""

    async def call(request: Request) -> Response:
        check_origin(request, api)
        server = api.server(bearer(request))
        method = request.path_params["method"]
        body = await body_of(request, limits.API_BODY_BYTES)
        if method == "batch":
            return _json({"replies": await _replies(api, server, body)})
        if method not in REQUESTS and method not in _ABSENT:
            return Response(status_code=404, headers=NO_STORE)
        try:
            return _json({"result": await _do(server, method, body)})
        except GatewayError as e:
            api.refused(e)
            return _json({"error": _told(e)})

    return [Route("/api/{method}", typed(call, api), methods=["POST"])]


async def _replies(api: Api, server: Server, body: bytes) -> list[dict[str, Any]]:
    batch = _read(body, _Batch)
    if len(batch.commands) > limits.API_COMMANDS:
        raise Refused(f"the batch has {len(batch.commands)} commands", f"send at most {limits.API_COMMANDS}")
    replies: list[dict[str, Any]] = []
    for command in batch.commands:
        try:
            if len(command) != 1:
                raise BadPayload("a command of a batch has one key", "name one method")
            ((method, params),) = command.items()
            replies.append({method: await _do(server, method, bytes(params))})
        except GatewayError as e:
            api.refused(e)
            replies.append({"error": _told(e)})
    return replies


async def _do(server: Server, method: str, body: bytes) -> msgspec.Struct:
    if method not in REQUESTS:
        raise NotAvailable(f"this server does not offer {method[:40]!r}", "see docs/protocol.md")
    match _read(body or b"{}", REQUESTS[method]):
        case Publish() as asked:
            return await server.publish(asked.channel, asked.payload(), asked.idempotency_key)
        case Broadcast() as asked:
            return await _broadcast(server, asked)
        case Subscribe() as asked:
            return await server.subscribe(asked)
        case Refresh() as asked:
            return await server.refresh(asked)
        case Unsubscribe() as asked:
            return await server.unsubscribe(asked)
        case Disconnect() as asked:
            return await server.disconnect(asked)
        case History() as asked:
            return await server.history(asked)
        case Channels() as asked:
            return await server.channels(asked)
        case OfChannel(channel) if method == "presence":
            return await server.presence(channel)
        case OfChannel(channel):
            return await server.presence_stats(channel)
    return await server.info()


async def _broadcast(server: Server, asked: Broadcast) -> Responses:
    if len(asked.channels) > limits.API_COMMANDS:
        raise Refused(f"{len(asked.channels)} channels at once", f"send at most {limits.API_COMMANDS}")
    answers: list[Answer] = []
    for channel in asked.channels:
        try:
            answers.append(Answer(await server.publish(channel, asked.payload(), asked.idempotency_key)))
        except GatewayError as e:
            answers.append(Answer(error=_told(e)))
    return Responses(answers)


def _read(body: bytes, type: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadPayload(f"not what this method takes: {e}", "see docs/protocol.md") from None
    except RecursionError:
        raise BadPayload("the JSON is nested too deep", "send a flatter one") from None


def _told(error: GatewayError) -> _Error:
    return _Error(error.reply, str(error) or error.code)


def _json(answer: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(answer), headers=NO_STORE, media_type="application/json")

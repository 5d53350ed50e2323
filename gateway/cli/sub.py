"""``gateway sub``: a WebSocket client of the Centrifugal protocol, that comes back and misses nothing."""

from __future__ import annotations

import asyncio
import base64
import random
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from gateway import limits
from gateway.cli.configuration import Config, Json
from gateway.cli.shown import Closed, Shown, put, shown
from gateway.cli.target import RefusedByEdge, Target, TokenFile, Url, find

#: Reasons that no new try mends.
_FINAL = (range(3500, 4000), range(4500, 5000))


class Pub(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    tags: dict[str, str] = {}
    offset: int = 0


class _Unsubscribe(msgspec.Struct):
    code: int = 0
    reason: str = ""


class _Push(msgspec.Struct):
    channel: str = ""
    pub: Pub | None = None
    unsubscribe: _Unsubscribe | None = None


class _Subscribed(msgspec.Struct):
    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    publications: list[Pub] = []
    recovered: bool = False
    was_recovering: bool = False


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    temporary: bool = False


class Message(msgspec.Struct):
    """A reply or a push; with nothing in it, a ping."""

    id: int = 0
    error: _Error | None = None
    connect: dict[str, Any] | None = None
    subscribe: _Subscribed | None = None
    push: _Push | None = None


class Place(msgspec.Struct):
    """Where one subscription stands; an empty epoch: nowhere that could be returned to."""

    filter: str
    epoch: str = ""
    offset: int = 0
    told: bool = False
    #: Whether it was said that a cut may lose events here.
    warned: bool = False


class Enough(Exception):
    """As many events were shown as were asked for."""


class Subscriber:
    """Subscriptions that outlive their connection. ``show`` gets each event once; ``say`` what a person must know."""

    def __init__(
        self, target: Target, filters: list[str], show: Callable[[Shown], None], say: Callable[[str], None]
    ) -> None:
        self._target = target
        self._places = [Place(filter) for filter in dict.fromkeys(filters)]
        self._show = show
        self._say = say
        #: Commands sent and not answered: id -> place.
        self._asked: dict[int, Place] = {}
        self._number = 0
        self._failures = 0
        #: When it was last said that the edge is away: 0 where only the cut was told, None while it is there.
        self._away: float | None = None

    async def run(self) -> None:
        """Show events until cancelled; raises :class:`Unavailable` where the first connection fails, and
        :class:`RefusedByEdge` for what no new try mends."""
        while True:
            try:
                async with asyncio.timeout(limits.SUB_WITHIN):
                    socket = await connect(self._target.websocket, compression=None, proxy=None, max_size=None)
                try:
                    await self._session(socket)
                finally:
                    await socket.close()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and any(closed.rcvd.code in final for final in _FINAL):
                    raise RefusedByEdge(closed.rcvd.reason) from None
                self._say(f"cut off ({closed.rcvd.reason if closed.rcvd else 'no goodbye'}): coming back")
                self._away = 0.0
            except (OSError, InvalidHandshake) as error:
                if not self._number:
                    raise self._target.away(error) from None
                self._gone(f"no edge answers at {self._target.url} ({error})")
            pause = min(limits.SUB_BACKOFF[1], limits.SUB_BACKOFF[0] * 2 ** min(self._failures, 10))
            self._failures += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    def _gone(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if not self._away or now - self._away > limits.AWAY_TOLD_EVERY:
            self._away = now
            self._say(f"{why}: coming back")

    async def _session(self, socket: ClientConnection) -> None:
        self._asked.clear()
        await self._send(socket, connect={"token": self._target.token, "name": "gateway-cli"})
        while True:
            try:
                async with asyncio.timeout(limits.SUB_SILENT):
                    frame = await socket.recv(decode=False)
            except TimeoutError:
                self._gone("the edge is silent")
                return
            for line in frame.split(b"\n"):
                await self._receive(socket, msgspec.json.decode(line, type=Message))

    async def _receive(self, socket: ClientConnection, message: Message) -> None:
        if message.error is not None:
            await self._refused(socket, message.id, message.error)
        elif message.connect is not None:
            self._failures = 0
            if self._away is not None:
                self._away = None
                self._say("back")
            for place in self._places:
                await self._subscribe(socket, place)
        elif message.subscribe is not None:
            self._subscribed(self._asked.pop(message.id), message.subscribe)
        elif message.push is not None:
            await self._pushed(socket, message.push)
        elif not message.id:
            await socket.send("{}", text=True)

    async def _pushed(self, socket: ClientConnection, push: _Push) -> None:
        place = next((place for place in self._places if place.filter == push.channel), None)
        if place is None:
            return
        if push.pub is not None:
            self._take(place, push.pub)
        elif push.unsubscribe is not None:
            if push.unsubscribe.code < 2500:
                raise RefusedByEdge(f"unsubscribed from {place.filter}: {push.unsubscribe.reason}")
            await self._subscribe(socket, place)

    async def _refused(self, socket: ClientConnection, id: int, error: _Error) -> None:
        place = self._asked.pop(id, None)
        if place is None or not error.temporary:
            raise RefusedByEdge(error.message)
        await asyncio.sleep(limits.SUB_BACKOFF[0])
        await self._subscribe(socket, place)

    async def _subscribe(self, socket: ClientConnection, place: Place) -> None:
        ask: dict[str, object] = {"channel": place.filter}
        if place.epoch:
            ask |= {"recover": True, "epoch": place.epoch, "offset": place.offset}
        await self._send(socket, place, subscribe=ask)

    async def _send(self, socket: ClientConnection, place: Place | None = None, **command: object) -> None:
        self._number += 1
        if place is not None:
            self._asked[self._number] = place
        await socket.send(msgspec.json.encode({"id": self._number, **command}), text=True)

    def _subscribed(self, place: Place, result: _Subscribed) -> None:
        if result.was_recovering and not result.recovered:
            self._say(f"{place.filter}: the log no longer has all that happened meanwhile; something is missing here")
            place.offset = 0
        for pub in result.publications:
            self._take(place, pub)
        if place.told and not result.recoverable and not place.warned:
            place.warned = True
            self._say(f"{place.filter} spans partitions: what came while the line was cut is not shown")
        place.told = True
        place.epoch = result.epoch if result.recoverable else ""
        place.offset = max(place.offset, result.offset) if result.recoverable else 0

    def _take(self, place: Place, pub: Pub) -> None:
        if pub.offset and place.epoch:
            if pub.offset <= place.offset:
                return
            place.offset = pub.offset
        self._show(_shown(place, pub))


def run(
    filters: Annotated[list[str], typer.Argument(metavar="FILTER...", help="Topics, or filters with + and #.")],
    count: Annotated[int | None, typer.Option("-n", help="End after so many events.", min=1)] = None,
    url: Url = "",
    token_file: TokenFile = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show the events of FILTER... as they come, and after a cut what was missed. Ctrl-C ends it."""
    left = count or 0

    def show(event: Shown) -> None:
        nonlocal left
        put(event.json() if json else event.line())
        left -= 1
        if not left:
            raise Enough

    try:
        asyncio.run(Subscriber(find(url, token_file, config), filters, show, _say).run())
    except (KeyboardInterrupt, Enough, Closed):
        return


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def _shown(place: Place, pub: Pub) -> Shown:
    tags = pub.tags
    topic, id, ts, type = tags.get("topic", ""), tags.get("id", ""), tags.get("ts", ""), tags.get("content_type", "")
    data = bytes(pub.data)
    if type:
        text = msgspec.json.decode(data, type=str)
        data = base64.b64decode(text) if tags.get("encoding") == "base64" else text.encode()
    epoch = int(place.epoch) if place.epoch.isdigit() else 0
    return shown(topic, id, int(ts) if ts.isdigit() else 0, data, type, offset=pub.offset, epoch=epoch)

"""The room: what one says in a chat reaches everybody in it, by all of its way, beside events that need no service."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from benchmarks import loads, machine, up
from benchmarks.results import Row, Section
from benchmarks.shop import Connections
from chat.keys import subscription_token
from chat.topics import watched
from gateway.edge.process import WEBSOCKET_PATH
from tests.gateways import Client, client

_METHOD = (
    "`gateway up` with chat, every process on one core; clients on the other. {clients:,} members of a room, each a "
    "user with a connection and a subscription token of its own, watch it, and a topic that no service hears. "
    "{senders} of them say {count} messages by rpc, {rate} a second, whether or not the last is answered. Received: "
    "from the sender's clock in the text, taken as it is sent, to the receiver's. In a room a message is a command "
    "in the log, that a worker judges, numbers and commits (SQLite, WAL, `synchronous=FULL`), and a fact in the log; "
    "published to the plain topic, the same JSON is one event in the log (`appendfsync always`). Answered: the sender "
    "has its number in the room, or for the plain topic knows that it is in the log. C loop: frames of {bytes} bytes "
    "to as many clients. The run fails unless as many messages are received as sent times clients, and the room kept "
    "each once."
)
_MARKER: Final = "sent:"
#: The payload's own time in the C loop.
_FLOOR_MARKER: Final = '"ts":'
_PLAIN: Final = "plain/room"
_TOPIC: Final = '[[topics]]\npattern = "plain/{room}"\nwrite = ["user"]\nread = ["user"]\n'
#: Characters of a text: somebody says a sentence.
_TEXT: Final = 100
#: Who joins at one time.
_AT_ONCE: Final = 8
#: Seconds of the C loop, which is steady.
_FLOOR: Final = 1.0
_CUTS: Final = "p50", "p99"


class Load(msgspec.Struct, frozen=True):
    """How many watch, and how much is said in each of so many rounds."""

    clients: int
    senders: int
    rate: int
    count: int
    rounds: int


class Heard(msgspec.Struct, frozen=True):
    """Milliseconds from sent to received, and to answered; bytes of a frame."""

    received: loads.Latency
    answered: tuple[float, float]
    size: float


Say = Callable[[Client, str], Awaitable[None]]


class Room:
    """A room with members, and those who speak there."""

    def __init__(self, on: up.Up, load: Load, id: str, folder: Path) -> None:
        self._on, self._load, self._id = on, load, id
        self._port = httpx.URL(on.running.edge).port or 80
        self._tokens = folder / "tokens"
        now, lines = time.time(), list[str]()
        for name in _names(load.clients):
            mine = subscription_token(name, watched(id), now, 600)
            lines.append(f"{on.token('user', name)}\t{mine}\n")
        self._tokens.write_text("".join(lines))

    def watched(self) -> loads.Load:
        """Let all members connect and watch; returns when they do."""
        self._until(0)
        commands = (
            '{"id":1,"connect":{"token":"{t}"}}',
            f'{{"id":2,"subscribe":{{"channel":"{watched(self._id)}","token":"{{u}}"}}}}',
            f'{{"id":3,"subscribe":{{"channel":"{_PLAIN}"}}}}',
        )
        most, within = self._load.count * self._load.clients, self._load.count / self._load.rate + up.WITHIN
        arguments = ["-c", str(self._load.clients), "-t", str(within), "-w", "0", "-p", str(self._port)]
        arguments += ["-u", WEBSOCKET_PATH, "-T", str(self._tokens), "-R", "{}", "-l", _MARKER, "-n", str(most)]
        for text in commands:
            arguments += ["-m", f"text:{text}"]
        load = loads.Load("wsload", arguments, within)
        load.ready()
        self._until(2 * self._load.clients)
        return load

    def _until(self, subscriptions: int) -> None:
        """Wait until the edge has so many."""
        url, found = self._on.running.edge, [-1.0]

        with self._on.http() as http:

            def there() -> bool:
                found[0] = up.metric(http, url, "gateway_subscriptions")
                return found[0] == subscriptions

            up.until(there, lambda: True, lambda: f"{found[0]:g} of {subscriptions} subscriptions")

    def heard(self, say: Say) -> Heard:
        """Say it all, and return how soon everybody had it."""
        with self.watched() as load:
            answers = asyncio.run(self._said(say))
            received = load.result(loads.Received)
        assert received.lost_conns == 0, received
        assert received.lat_us is not None, received
        assert received.msgs == received.lat_us.n == self._load.count * self._load.clients, received
        answers.sort()
        cuts = (answers[len(answers) // 2], answers[int(len(answers) * 0.99)])
        return Heard(received.lat_us, cuts, received.bytes / received.msgs)

    async def _said(self, say: Say) -> list[float]:
        took = list[float]()
        url = f"ws://127.0.0.1:{self._port}{WEBSOCKET_PATH}"

        async def once(one: Client) -> None:
            began = time.monotonic()
            await say(one, f"{_MARKER}{time.time_ns()}".ljust(_TEXT, "."))
            took.append((time.monotonic() - began) * 1000)

        async with AsyncExitStack() as stack:
            names = _names(self._load.senders)
            speak = [await stack.enter_async_context(client(url, self._on.token("user", one))) for one in names]
            began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for n in range(self._load.count):
                    await asyncio.sleep(max(0.0, began + n / self._load.rate - time.monotonic()))
                    tasks.create_task(once(speak[n % len(speak)]), name=f"message {n}")
        return took

    async def in_room(self, one: Client, text: str) -> None:
        data = {"id": str(uuid.uuid4()), "text": text}
        reply = await one.ask("rpc", method=f"chat/rooms/{self._id}/send", data=data)
        assert reply["rpc"]["data"]["seq"], reply

    async def plain(self, one: Client, text: str) -> None:
        """Publish what the room makes of a message, numbers apart."""
        entry = {"seq": 1_000, "kind": "message", "author": "user-000", "at": time.time_ns() // 1_000_000}
        reply = await one.ask("publish", channel=_PLAIN, data={**entry, "id": str(uuid.uuid4()), "text": text})
        assert "publish" in reply, reply


def _names(count: int) -> list[str]:
    return [f"user-{n:04d}" for n in range(count)]


async def _joined(on: up.Up, load: Load, id: str) -> None:
    """Have everybody but its owner join a public room."""
    connections, waiting = Connections(httpx.URL(on.running.edge).port or 80), iter(_names(load.clients)[1:])

    async def some() -> None:
        for name in waiting:
            await connections.post(f"/chat/rooms/{id}/join", on.token("user", name), b"")

    async with asyncio.TaskGroup() as tasks:
        for n in range(_AT_ONCE):
            tasks.create_task(some(), name=f"joins {n}")
    connections.close()


async def _known(on: up.Up, id: str) -> None:
    """Wait until the edge believes chat's tokens: it asks for the key of an issuer when it meets one."""
    url, name = on.running.edge.replace("http", "ws", 1) + WEBSOCKET_PATH, _names(1)[0]
    token = subscription_token(name, watched(id), time.time(), 600)
    async with client(url, on.token("user", name)) as one, asyncio.timeout(up.WITHIN):
        while "subscribe" not in await one.ask("subscribe", channel=watched(id), token=token):  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(up.LOOK)


def _made(on: up.Up) -> str:
    headers = {"authorization": f"Bearer {on.token('user', _names(1)[0])}"}
    with on.http() as http:
        said = http.post("/chat/rooms/", json={"name": "Everybody", "key": "1"}, headers=headers).raise_for_status()
    return str(said.json()["id"])


def _kept(on: up.Up, id: str) -> int:
    """Count the messages that the room has, by its history."""
    headers = {"authorization": f"Bearer {on.token('user', _names(1)[0])}"}
    found, after = 0, ""
    with on.http() as http:
        while True:
            said = http.get(f"/chat/rooms/{id}/history?limit=500&after={after}", headers=headers).raise_for_status()
            page: dict[str, Any] = said.json()
            found += len([one for one in page["items"] if one["kind"] == "message"])
            if page["next"] is None:
                return found
            after = page["next"]


@contextmanager
def _signing(file: Path) -> Iterator[None]:
    """Let chat and us sign subscription tokens with one key: they last longer than those it gives away."""
    before = os.environ.get("CHAT_SIGNING_FILE")
    os.environ["CHAT_SIGNING_FILE"] = str(file)
    try:
        yield
    finally:
        del os.environ["CHAT_SIGNING_FILE"]
        if before is not None:
            os.environ["CHAT_SIGNING_FILE"] = before


def _floor(folder: Path, load: Load, size: int) -> loads.Latency:
    how = loads.Counting(_FLOOR_MARKER, warm_up=1.3, timed=True)
    with (
        loads.floor(folder, load.clients, 1, load.rate, size) as (_, port),
        loads.watchers(port, how, load.clients, _FLOOR) as watching,
    ):
        received = watching.result(loads.Received)
    assert received.lost_conns == 0, received
    assert received.lat_us is not None, "nothing arrived"
    return received.lat_us


def run(folder: Path, quick: bool) -> Section:
    load = Load(20, 4, 20, 10, 1) if quick else Load(1_000, 20, 20, 70, 3)
    here = folder / "room"
    here.mkdir()
    rooms, plains, floors = list[Heard](), list[Heard](), list[loads.Latency]()
    with (
        _signing(here / "chat.pem"),
        up.gateway(here, ["chat"], (machine.SERVER_CORE,), more=_TOPIC) as on,
        machine.warm(),
    ):
        id = _made(on)
        asyncio.run(_joined(on, load, id))
        asyncio.run(_known(on, id))
        room = Room(on, load, id, here)
        for _ in range(load.rounds):
            plains.append(room.heard(room.plain))
            rooms.append(room.heard(room.in_room))
            floors.append(_floor(here, load, round(rooms[-1].size)))
        kept = _kept(on, id)
    assert kept == load.count * load.rounds, f"the room has {kept} messages of {load.count * load.rounds}"
    method = _METHOD.format(**msgspec.structs.asdict(load), bytes=round(rooms[-1].size))
    return Section("Chat room", method, tuple(_rows(rooms, plains, floors)))


def _rows(rooms: Sequence[Heard], plains: Sequence[Heard], floors: Sequence[loads.Latency]) -> Iterator[Row]:
    for cut in _CUTS:
        ours = tuple(getattr(one.received, cut) / 1000 for one in rooms)
        beside = tuple(getattr(one.received, cut) / 1000 for one in plains)
        yield Row(f"sent → received, {cut}", "ms", ours, "the plain topic", beside)
        yield Row(
            f"sent → received, {cut}",
            "ms",
            ours,
            "C loop of `send()`",
            tuple(getattr(one, cut) / 1000 for one in floors),
        )
    for n, cut in enumerate(_CUTS):
        ours, beside = (tuple(one.answered[n] for one in some) for some in (rooms, plains))
        yield Row(f"sent → answered, {cut}", "ms", ours, "the plain topic", beside)

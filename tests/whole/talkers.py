"""People who chat by WebSocket and HTTP: each says a thing until it is acknowledged, and watches what all say."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, Final

import httpx
import websockets

from tests.chat.ledger import Acked, Said
from tests.gateways import Client, client
from tests.whole.customers import Account
from tests.whole.stage import asked

#: Seconds between two messages of one talker, and that a connection lasts before it is cut: tokens last longer.
EVERY: Final = 0.8
LIFE: Final = (10.0, 40.0)
#: What happens to a connection whose other end is killed.
CUT: Final = (OSError, TimeoutError, websockets.WebSocketException)


class Again(Exception):
    """What the edge cannot do now."""


class View:
    """A room as one client shows it: it goes on where it was, and trusts what resumed without asking."""

    def __init__(self, room: str) -> None:
        self.room, self.channel = room, f"chat/rooms/{room}/messages"
        self.shown: list[Said] = []
        self.position: dict[str, Any] = {}
        #: What no gateway may do: a hole that it did not tell of, a number that is two things.
        self.wrong: list[str] = []

    @property
    def last(self) -> int:
        return self.shown[-1]["seq"] if self.shown else 0

    def take(self, entry: Said, *, live: bool) -> None:
        """Show what is next; what is shown already comes again where somebody was killed, and must be the same."""
        seq = entry["seq"]
        if seq == self.last + 1:
            self.shown.append(entry)
        elif seq > self.last:
            self.wrong.append(f"{self.room}: {seq} came after {self.last}")
            self.shown.append(entry)
        elif live and self.shown[seq - 1].get("id") != entry.get("id"):
            self.wrong.append(f"{self.room}: {seq} came twice, and was not the same")


class Talker:
    """One user with one connection, in some rooms."""

    def __init__(self, account: Account, ws: str, rooms: list[str], seed: int) -> None:
        self.account, self._ws, self._dice = account, ws, random.Random(f"{seed} {account.mail}")
        self.views = {f"chat/rooms/{room}/messages": View(room) for room in rooms}
        self.acked: list[Acked] = []
        #: Room → its last number, once all is said and done.
        self.ends: dict[str, int] = {}
        self.resumed = 0
        self._pending: tuple[str, str, dict[str, Any]] | None = None
        self._said = 0

    @property
    def busy(self) -> bool:
        """Something was said, and is not acknowledged yet."""
        return self._pending is not None

    @property
    def done(self) -> bool:
        return bool(self.ends) and all(view.last >= self.ends[view.room] for view in self.views.values())

    async def talks(self, stop: asyncio.Event) -> None:
        """Talk until ``stop``, then watch until all is seen."""
        while not self.done:
            try:
                async with client(self._ws) as one:
                    await self._enter(one)
                    await self._stay(one, stop, time.monotonic() + self._dice.uniform(*LIFE))
                    one.connection.transport.abort()
            except (Again, *CUT):
                await asyncio.sleep(0.2)

    async def _enter(self, one: Client) -> None:
        _good(await one.ask("connect", token=await self.account.token()))
        for channel, view in self.views.items():
            given = await self.account.asks("POST", f"/chat/rooms/{view.room}/tokens", {"channel": channel})
            assert given.is_success, given.text
            wanted = {"recover": True, **view.position} if view.position else {}
            found = _good(await one.ask("subscribe", channel=channel, token=given.json()["token"], **wanted))[
                "subscribe"
            ]
            if found.get("recovered"):
                self.resumed += 1
            else:
                # What the gateway does not promise to have; what came live since may be in it already.
                for entry in await history(self.account, view.room, view.last):
                    view.take(entry, live=False)
            for pub in found.get("publications", []):
                view.take(pub["data"], live=True)
            view.position = {"epoch": found["epoch"], "offset": found.get("offset", 0)}

    async def _stay(self, one: Client, stop: asyncio.Event, until: float) -> None:
        due = time.monotonic() + EVERY * self._dice.random()
        while not self.done and time.monotonic() < until and one.close_code is None:
            self._watch(one)
            if time.monotonic() > due and not (stop.is_set() and self._pending is None):
                due = time.monotonic() + EVERY * (0.5 + self._dice.random())
                await self._speak(one)
            await asyncio.sleep(0.05)
        self._watch(one)

    def _watch(self, one: Client) -> None:
        coming, one.pushes[:] = list(one.pushes), []
        for push in coming:
            if (view := self.views.get(push["channel"])) is not None:
                if "unsubscribe" in push:
                    raise Again  # it lost its place, and says so
                if (pub := push.get("pub")) is not None:
                    view.take(pub["data"], live=True)
                    view.position["offset"] = pub.get("offset", view.position["offset"])

    async def _speak(self, one: Client) -> None:
        if self._pending is None:
            self._pending = self._next()
        room, what, data = self._pending
        topic = f"chat/rooms/{room}/{what}"
        if self._said % 3 == 0:  # as somebody without a WebSocket does; asked again inside
            path, headers = f"/topics/{topic}?wait=5s", {"authorization": f"Bearer {await self.account.token()}"}
            answer = await asked(self.account.http, "POST", path, data, headers)
            assert answer.is_success, answer.text
            told = answer.json()
        else:
            told = _good(await one.ask("rpc", method=topic, data=data))["rpc"]["data"]
        if told.get("error") == "too_fast":
            await asyncio.sleep(told["retry_after"])
            return
        assert "error" not in told, told
        if what == "send":
            self.acked.append(Acked(room, self.account.user, data["id"], data["text"], told["seq"]))
        self._pending = None

    def _next(self) -> tuple[str, str, dict[str, Any]]:
        self._said += 1
        room, id = self._dice.choice(list(self.views.values())).room, f"{self.account.user}-{self._said}"
        mine = [one for one in self.acked if one.room == room]
        if mine and self._dice.random() < 0.1:
            return room, "edit", {"id": id, "seq": mine[-1].seq, "text": f"{mine[-1].text}, or so"}
        return room, "send", {"id": id, "text": f"{id} to {room}"}


async def history(account: Account, room: str, after: int = 0) -> list[Said]:
    """Return the entries of a room behind number ``after``, all pages of them."""
    found, cursor = list[Said](), str(after)
    while cursor:
        page = await account.asks("GET", f"/chat/rooms/{room}/history?after={cursor}")
        assert page.is_success, page.text
        found += page.json()["items"]
        cursor = page.json()["next"]
    return found


def _good(reply: dict[str, Any]) -> dict[str, Any]:
    if "error" in reply:
        assert reply["error"].get("temporary"), reply
        raise Again
    return reply


async def rooms_of(accounts: list[Account], names: list[str]) -> list[str]:
    """Make rooms with everybody in them."""
    made = []
    for name in names:
        answer = await accounts[0].asks("POST", "/chat/rooms/", {"name": name, "key": name, "kind": "public"})
        assert answer.status_code in (httpx.codes.OK, httpx.codes.CREATED), answer.text
        made.append(str(answer.json()["id"]))
        for other in accounts[1:]:
            joined = await other.asks("POST", f"/chat/rooms/{made[-1]}/join")
            assert joined.is_success, joined.text
    return made

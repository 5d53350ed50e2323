"""People who chat in tests: by HTTP and by WebSocket, on a real gateway."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat.app import app
from gateway import App
from gateway.testing import Gateway, running
from tests.gateways import Client, client
from tests.servers import eventually

_NUMBERS = itertools.count(1)
#: A hang guard, ten times what the slowest honest test takes on a busy machine.
WITHIN = 60.0

Said = dict[str, Any]


def new_id() -> str:
    return f"id-{next(_NUMBERS)}"


class Person:
    """Somebody who chats."""

    def __init__(self, chat: Chat, name: str) -> None:
        self.chat, self.name = chat, name
        self._token = chat.gateway.token(f"user:{name}")

    async def asks(self, method: str, path: str, body: object = None, **params: object) -> httpx.Response:
        return await self.chat.http.request(
            method,
            f"/chat/rooms/{path}",
            json=body,
            params={name: str(value) for name, value in params.items()},
            headers={"authorization": f"Bearer {self._token}"},
        )

    async def gets(self, method: str, path: str, body: object = None, **params: object) -> Any:
        """As `asks`, of what must go well."""
        answer = await self.asks(method, path, body, **params)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def makes(self, kind: str = "public", *others: Person) -> str:
        """Make a room with ``others`` in it."""
        room = str((await self.gets("POST", "", {"name": "A room", "key": new_id(), "kind": kind}))["id"])
        for other in others:
            if kind == "public":
                await other.gets("POST", f"{room}/join")
            else:
                await self.gets("PUT", f"{room}/members/{other.name}")
        return room

    async def history(self, room: str, after: int | None = None, **params: object) -> list[Said]:
        """Follow all pages behind ``after``."""
        found, cursor = list[Said](), "" if after is None else str(after)
        while True:
            page = await self.gets("GET", f"{room}/history", after=cursor, **params)
            found += page["items"]
            if page["next"] is None:
                return found
            cursor = page["next"]

    async def unread(self, room: str) -> tuple[int, int]:
        """Up to where is read, and how many are not."""
        for found in (await self.gets("GET", ""))["items"]:
            if found["id"] == room:
                return found["read_seq"], found["unread"]
        pytest.fail("not in that room")

    @asynccontextmanager
    async def device(self) -> AsyncIterator[Device]:
        async with client(self.chat.ws, self._token) as one:
            yield Device(self, one)


class Device:
    """One connection of somebody."""

    def __init__(self, person: Person, client: Client) -> None:
        self.person, self.client = person, client

    async def watches(self, room: str, name: str = "messages", **more: Any) -> Said:
        """Subscribe with a token that the person gets; returns the reply."""
        channel = f"chat/rooms/{room}/{name}"
        given = await self.person.gets("POST", f"{room}/tokens", {"channel": channel})
        reply = await self.client.ask("subscribe", channel=channel, token=given["token"], **more)
        assert "subscribe" in reply, reply
        result: Said = reply["subscribe"]
        return result

    async def notices(self) -> None:
        reply = await self.client.ask("subscribe", channel=f"chat/users/{self.person.name}/notices")
        assert "subscribe" in reply, reply

    async def does(self, room: str, what: str, id: str = "", **more: object) -> Said:
        """Ask by rpc until it is answered: a service that is away answers later, and once."""
        data = {"id": id or new_id(), **more}
        while True:
            reply = await self.client.ask("rpc", method=f"chat/rooms/{room}/{what}", data=data)
            if "rpc" in reply:
                answer: Said = reply["rpc"]["data"]
                return answer
            assert reply["error"].get("temporary"), reply

    async def says(self, room: str, text: str, id: str = "") -> Said:
        return await self.does(room, "send", id, text=text)

    def heard(self, channel: str) -> list[Said]:
        """All that came on ``channel``, each event once: a relay that died may have told one twice."""
        pubs = [push["pub"] for push in self.client.pushes if push["channel"] == channel and "pub" in push]
        return [pub["data"] for pub in {pub["tags"]["id"]: pub for pub in pubs}.values()]

    def entries(self, room: str) -> list[Said]:
        return self.heard(f"chat/rooms/{room}/messages")

    def told(self, kind: str) -> list[Said]:
        return [one for one in self.heard(f"chat/users/{self.person.name}/notices") if one["kind"] == kind]

    async def until(self, met: Callable[[], object]) -> None:
        await eventually(met, within=WITHIN)

    async def hears(self, room: str, text: str) -> None:
        await self.until(lambda: text in [entry.get("text") for entry in self.entries(room)])


class Chat:
    """What runs."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self.gateway, self.http = gateway, http
        self.ws = gateway.url.replace("http", "ws", 1) + "/connection/websocket"

    def person(self, name: str) -> Person:
        """Somebody nobody knows yet."""
        return Person(self, f"{name}-{next(_NUMBERS)}")


@asynccontextmanager
async def open_chat(
    folder: Path, databases: Mapping[str, str] | None = None, *, beside: Sequence[App] = ()
) -> AsyncIterator[Chat]:
    """Run chat as README.md says, ``beside`` other applications."""
    with pytest.MonkeyPatch.context() as environment:
        # One key for all chats of a run: a test may open a second one, and settings are read when they are needed.
        environment.setenv("CHAT_SIGNING_FILE", str(folder.parent / "signing.pem"))
        async with running(app, *beside, edge=True, databases=databases) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=WITHIN, trust_env=False) as http:
                yield Chat(gateway, http)


def seqs(entries: list[Said]) -> list[int]:
    return [entry["seq"] for entry in entries]


def texts(entries: list[Said]) -> list[str]:
    return [entry["text"] for entry in entries if entry["kind"] == "message" and "text" in entry]

"""A page that was cut off: the offset heals what the gateway still has, the numbers tell of all else, HTTP fills it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from chat import limits
from gateway.adapters.log.keys import log_key
from tests.chat.ledger import Acked, faults
from tests.chat.talk import WITHIN, Chat, Device, Person, Said, new_id, open_chat, seqs
from tests.journeys.sdks import python_sdk

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Page:
    """What a page does: it trusts numbers alone. Live entries and history may come in any order, and twice."""

    def __init__(self, person: Person, room: str) -> None:
        self.person, self.room = person, room
        self.channel = f"chat/rooms/{room}/messages"
        self.position: dict[str, Any] = {}
        self.entries: dict[int, Said] = {}

    @property
    def last(self) -> int:
        """Up to where nothing is missing."""
        seq = 0
        while seq + 1 in self.entries:
            seq += 1
        return seq

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Opened]:
        """Connect, resume, fetch what is missing; at the end the connection is cut."""
        async with self.person.device() as device:
            found = await device.watches(self.room, recover=bool(self.position), **self.position)
            opened = Opened(self, device, found)
            opened.take(found.get("publications", []))
            self.position = {"epoch": found["epoch"], "offset": found.get("offset", 0)}
            await self.fill()
            yield opened
            opened.drain()
            device.client.connection.transport.abort()

    async def fill(self) -> None:
        for entry in await self.person.history(self.room, after=self.last, limit=3):
            self.entries[entry["seq"]] = entry


class Opened:
    def __init__(self, page: Page, device: Device, reply: Said) -> None:
        self.page, self.device = page, device
        self.recovered, self.missed = reply.get("recovered", False), len(reply.get("publications", []))

    def take(self, pubs: list[Said]) -> None:
        for pub in pubs:
            self.page.entries.setdefault(pub["data"]["seq"], pub["data"])
            self.page.position["offset"] = pub.get("offset", self.page.position.get("offset", 0))

    def drain(self) -> None:
        self.take([p["pub"] for p in self.device.client.pushes if p["channel"] == self.page.channel and "pub" in p])


async def test_before_any_message_and_twice_with_nothing_new(chat: Chat) -> None:
    ann = chat.person("ann")
    room = await ann.makes()
    page = Page(ann, room)
    async with page.open():
        pass
    for _ in range(2):
        async with page.open() as opened:
            assert (opened.recovered, opened.missed) == (True, 0)
    assert sorted(page.entries) == [1]
    assert await ann.history(room, after=1) == []
    assert await ann.history(room, after=10**6) == []
    assert seqs(await ann.history(room, back="true")) == [1]
    assert await ann.history(room, after=1, back="true") == []


async def test_what_was_missed_comes_once_and_in_order(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    page = Page(bob, room)
    async with ann.device() as of_ann:
        async with page.open():
            await of_ann.says(room, "before")
        for n in range(10):  # more than one page of HTTP
            await of_ann.says(room, str(n))
        async with page.open() as opened:
            assert opened.recovered is True
            assert opened.missed >= 10
        async with page.open() as opened:
            assert (opened.recovered, opened.missed) == (True, 0)
    assert sorted(page.entries) == list(range(1, 14)) == seqs(await bob.history(room, limit=4))


async def test_another_epoch(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    for epoch in ("12345", "nonsense"):
        page = Page(bob, room)
        page.position = {"epoch": epoch, "offset": 1}
        async with page.open() as opened:
            assert (opened.recovered, opened.missed) == (False, 0)
        assert sorted(page.entries) == [1, 2]


async def test_older_than_what_the_gateway_keeps(tmp_path: Path) -> None:
    async with open_chat(tmp_path) as chat:  # its edge has not seen anything yet that it could remember
        ann = chat.person("ann")
        room = await ann.makes()
        headers = {"authorization": f"Bearer {chat.gateway.token(f'user:{ann.name}')}"}
        positions = list[dict[str, Any]]()
        for n in range(5):
            sent = await chat.http.post(
                f"/topics/chat/rooms/{room}/send", json={"id": new_id(), "text": str(n)}, headers=headers
            )
            assert sent.status_code == 201, sent.text
            positions.append({"epoch": str(sent.json()["epoch"]), "offset": sent.json()["offset"]})
        await chat.gateway.at_rest(within=WITHIN)
        with redis.Redis.from_url(chat.gateway._log_url) as admin:
            for place in chat.gateway._log.partitions():
                admin.xtrim(log_key(place), maxlen=1, approximate=False)
        page = Page(ann, room)
        page.position = positions[0]
        async with page.open() as opened:
            assert opened.recovered is False
        assert sorted(page.entries) == list(range(1, 7))
        async with page.open() as opened:
            assert (opened.recovered, opened.missed) == (True, 0)


async def test_while_others_talk_and_the_service_dies(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    page = Page(bob, room)
    acked = list[Acked]()
    async with ann.device() as of_ann:

        async def talk() -> None:
            for n in range(100):
                id = new_id()
                acked.append(Acked(room, ann.name, id, str(n), (await of_ann.says(room, str(n), id))["seq"]))

        talking = asyncio.create_task(talk(), name="ann talks")
        for cut in range(6):
            async with page.open() as opened:
                await opened.device.until(lambda opened=opened: opened.device.entries(room) or talking.done())  # type: ignore[misc]  # bound in the loop
            if cut == 3:
                async with chat.gateway.away("chat.rooms", killed=True):
                    pass
        await talking
        async with page.open() as opened:
            assert opened.recovered is True
    assert sorted(page.entries) == list(range(1, 103))
    assert [page.entries[seq].get("text") for seq in range(3, 103)] == [str(n) for n in range(100)]
    shown = [page.entries[seq] for seq in sorted(page.entries)]
    assert faults(acked, {room: await ann.history(room)}, {(room, bob.name): shown}) == []


async def test_a_real_sdk_heals_a_cut_and_goes_when_it_is_sent_out(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("private", bob)
    channel = f"chat/rooms/{room}/messages"
    tokens = [(await bob.gets("POST", f"{room}/tokens", {"channel": channel}))["token"] for _ in range(3)]
    async with python_sdk() as sdk, ann.device() as of_ann:
        await sdk.connect(chat.ws, chat.gateway.token(f"user:{bob.name}"))
        await sdk.subscribe(channel, tokens=tokens)
        await sdk.until("subscribed", channel=channel, within=WITHIN)
        await of_ann.says(room, "one")
        await sdk.until("publication", channel=channel, within=WITHIN)
        cut = {"user": bob.name, "disconnect": {"code": 3000, "reason": "cut"}}
        headers = {"authorization": f"Bearer {chat.gateway.token('operator:root')}"}
        assert (await chat.http.post("/api/disconnect", json=cut, headers=headers)).json() == {"result": {}}
        await sdk.until("connecting", 2, within=WITHIN)
        await of_ann.says(room, "two")
        await sdk.until("publication", 2, channel, within=WITHIN)
        assert [entry["text"] for entry in sdk.data(channel)] == ["one", "two"]
        assert await sdk.rpc(f"chat/rooms/{room}/send", {"id": "mine", "text": "three"}) == {
            "seq": 5,
            "at": (await bob.history(room))[-1]["at"],
        }
        await ann.gets("DELETE", f"{room}/members/{bob.name}")
        ended = await sdk.until("unsubscribed", channel=channel, within=WITHIN)
        assert ended[-1]["code"] == 2000
        await of_ann.says(room, "without him")
        await chat.gateway.at_rest(within=WITHIN)
        assert "without him" not in str(sdk.said)

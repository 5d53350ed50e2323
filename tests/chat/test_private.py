"""Private rooms: who is no member gets nothing on any door, and who is sent out hears no more."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest

from tests.chat.talk import WITHIN, Chat, Device, texts
from tests.doors import SHUT, answers

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the treasure is under the oak"


async def test_who_is_no_member_gets_nothing(chat: Chat) -> None:
    ann, bob, eve = chat.person("ann"), chat.person("bob"), chat.person("eve")
    room = await ann.makes("private", bob)
    lobby = await ann.makes("public", eve)
    channel = f"chat/rooms/{room}/messages"
    async with ann.device() as of_ann, bob.device() as of_bob, eve.device() as of_eve, eve.device() as other:
        await of_bob.watches(room)
        await of_eve.watches(lobby)  # what she may have, she gets
        await of_eve.notices()
        # With a token that is good for another room, and with one that is somebody else's.
        own = (await eve.gets("POST", f"{lobby}/tokens", {"channel": f"chat/rooms/{lobby}/messages"}))["token"]
        bobs = (await bob.gets("POST", f"{room}/tokens", {"channel": channel}))["token"]
        await other.client.connection.send(json.dumps({"id": 90, "subscribe": {"channel": channel, "token": own}}))
        assert await other.client.closed() == 3500
        async with eve.device() as third:
            await third.client.connection.send(json.dumps({"id": 90, "subscribe": {"channel": channel, "token": bobs}}))
            assert await third.client.closed() == 3500
        # Writing.
        assert (await of_eve.does(room, "send", text="hi"))["error"] == "no_room"
        assert (await of_eve.does(room, "edit", seq=1, text="hi"))["error"] == "no_room"
        assert (await of_eve.does(room, "delete", seq=1))["error"] == "no_room"
        for topic in ("messages", "typing", "gone"):
            reply = await of_eve.client.ask("publish", channel=f"chat/rooms/{room}/{topic}", data={})
            assert reply["error"]["code"] in (103, 107), topic
        assert (await of_ann.says(room, SECRET))["seq"] == 3
        await of_bob.hears(room, SECRET)
        # Chat's routes: as if there was no such room.
        asked = [
            ("GET", "", None), ("POST", "/join", None), ("POST", "/leave", None), ("GET", "/members", None),
            ("PUT", f"/members/{eve.name}", None), ("DELETE", f"/members/{bob.name}", None),
            ("GET", "/presence", None), ("GET", "/history", None), ("POST", "/tokens", {"channel": channel}),
            ("PUT", "/read", {"seq": 1}), ("POST", "/typing", None),
        ]  # fmt: skip
        for verb, path, body in asked:
            answer, nowhere = [await eve.asks(verb, place + path, body) for place in (room, "0" * 24)]
            assert (answer.status_code, answer.text) == (404, nowhere.text), (verb, path)
        for listing in ("", "public"):
            assert room not in (await eve.asks("GET", listing, limit=500)).text
        # The gateway's own: the topic and whatever covers it.
        filters = (channel, f"chat/rooms/{room}/typing", "chat/rooms/+/messages", f"chat/rooms/{room}/#", "chat/#", "#")
        for filter in filters:
            doors = await answers(chat.http, of_eve.client, chat.gateway.token(f"user:{eve.name}"), filter)
            assert {door for door, code in doors.items() if code not in SHUT} == set(), filter
        # All that she was given until now: what was said elsewhere, and not a word of that.
        await of_ann.says(lobby, "done")
        await of_eve.hears(lobby, "done")
        everything = json.dumps([of_eve.client.pushes, other.client.pushes])
        assert "done" in everything
        assert SECRET not in everything
        assert room not in json.dumps(
            [p for p in of_eve.client.pushes if p["channel"] == f"chat/rooms/{lobby}/messages"]
        )


async def test_nor_by_the_doors_of_servers_and_of_other_kinds(chat: Chat) -> None:
    ann, bob, eve = chat.person("ann"), chat.person("bob"), chat.person("eve")
    room, lobby = await ann.makes("private", bob), await ann.makes("public", eve)
    channel = f"chat/rooms/{room}/messages"
    async with ann.device() as of_ann, bob.device() as of_bob, eve.device() as of_eve:
        await of_bob.watches(room)
        await of_eve.watches(lobby)
        # Notices of others, where an invitation would be told.
        for filter in (f"chat/users/{bob.name}/notices", "chat/users/+/notices", "chat/users/#"):
            assert (await of_eve.client.ask("subscribe", channel=filter))["error"]["code"] == 103, filter
        told = []
        for who in (f"user:{eve.name}", f"viewer:{eve.name}", "operator:root", "service:other", "service:chat", ""):
            headers = {"authorization": f"Bearer {chat.gateway.token(who)}"} if who else {}
            for method in ("presence", "presence_stats", "history", "subscribe"):
                asked = {"channel": channel, **({"user": eve.name} if method == "subscribe" else {})}
                answer = await chat.http.post(f"/api/{method}", json=asked, headers=headers)
                if answer.status_code == httpx.codes.OK:
                    assert answer.json()["error"]["code"] == 103, (who, method, answer.text)
                else:
                    assert answer.status_code in (401, 403), (who, method, answer.text)
                told.append(answer.text)
            for name in (channel, "chat/#"):
                for path in ("/events", "/history", ""):
                    answer = await chat.http.get(f"/topics/{quote(name, safe='')}{path}", headers=headers)
                    assert answer.status_code in (400, 401, 403, 404), (who, path, answer.text)
                    told.append(answer.text)
            # Written by nobody of these, whether they wait for the answer or not.
            for wait in ("", "?wait=5s"):
                sent = {"id": "forged", "text": "forged"}
                answer = await chat.http.post(f"/topics/chat/rooms/{room}/send{wait}", json=sent, headers=headers)
                assert answer.status_code in (401, 403) or who == f"user:{eve.name}", (who, answer.text)
                told.append(answer.text)
            for document in ("/asyncapi.json", "/openapi.json"):
                told.append((await chat.http.get(document, headers=headers)).text)
        assert (await of_ann.says(room, SECRET))["seq"] == 3
        await of_bob.hears(room, SECRET)
        await of_ann.says(lobby, "done")
        await of_eve.hears(lobby, "done")
        everything = json.dumps([told, of_eve.client.pushes])
        assert SECRET not in everything
        assert channel not in json.dumps(of_eve.client.pushes)
        assert texts(of_bob.entries(room)) == texts(await ann.history(room)) == [SECRET]


async def test_who_is_sent_out_hears_no_more(chat: Chat) -> None:
    ann, bob, eve = chat.person("ann"), chat.person("bob"), chat.person("eve")
    room = await ann.makes("private", bob, eve)
    lobby = await ann.makes("public", eve)
    async with ann.device() as of_ann, bob.device() as of_bob, eve.device() as phone, eve.device() as laptop:
        await of_bob.watches(room)
        for device in (phone, laptop):
            await device.watches(room)
            await device.watches(room, "typing")
            await device.watches(lobby)
            await device.notices()
        await of_ann.says(room, "all hear this")
        for device in (of_bob, phone, laptop):
            await device.hears(room, "all hear this")
        assert (await bob.asks("DELETE", f"{room}/members/{eve.name}")).status_code == 403
        await ann.gets("DELETE", f"{room}/members/{eve.name}")
        for device in (phone, laptop):
            await device.until(lambda device=device: len(_ended(device)) == 2)  # type: ignore[misc]  # bound in the loop
            assert sorted(_ended(device)) == [(f"chat/rooms/{room}/{name}", 2000) for name in ("messages", "typing")]
        assert [one["room"] for one in phone.told("left")] == [room]
        await of_ann.says(room, SECRET)
        await of_bob.hears(room, SECRET)
        await of_ann.says(lobby, "done")
        for device in (phone, laptop):
            await device.hears(lobby, "done")
            assert SECRET not in json.dumps(device.client.pushes)
        assert (await phone.says(room, "still there?"))["error"] == "no_room"
        channel = f"chat/rooms/{room}/messages"
        assert (await eve.asks("POST", f"{room}/tokens", {"channel": channel})).status_code == 404
        assert (await eve.asks("GET", f"{room}/history")).status_code == 404
        # Asked in again she sees all of it.
        await ann.gets("PUT", f"{room}/members/{eve.name}")
        await phone.watches(room)
        assert texts(await eve.history(room)) == ["all hear this", SECRET]
        assert (await eve.unread(room))[1] == 0


async def test_the_server_that_cuts_may_be_away(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving is done at once; the subscription ends as soon as somebody can be asked."""
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("private", bob)
    async with bob.device() as of_bob:
        await of_bob.watches(room)
        with monkeypatch.context() as broken:
            broken.setattr(chat.gateway, "_url", "http://127.0.0.1:1")
            await bob.gets("POST", f"{room}/leave")
            assert (await bob.asks("GET", f"{room}/history")).status_code == 404
            assert (await ann.asks("GET", f"{room}/presence")).status_code == 503
        await of_bob.until(lambda: _ended(of_bob))
    await chat.gateway.at_rest(within=WITHIN)
    assert await chat.gateway.dead_letters() == []


async def test_who_is_let_in_again_too_soon_is_told_twice(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("private", bob)
    async with bob.device() as of_bob:
        await of_bob.notices()
        with monkeypatch.context() as broken:
            broken.setattr(chat.gateway, "_url", "http://127.0.0.1:1")
            await ann.gets("DELETE", f"{room}/members/{bob.name}")
            await ann.gets("PUT", f"{room}/members/{bob.name}")
            await of_bob.until(lambda: of_bob.told("joined"))
            await of_bob.watches(room)
        await of_bob.until(lambda: _ended(of_bob) and len(of_bob.told("joined")) == 2)
        await of_bob.watches(room)


def _ended(device: Device) -> list[tuple[str, int]]:
    return [(push["channel"], push["unsubscribe"]["code"]) for push in device.client.pushes if "unsubscribe" in push]

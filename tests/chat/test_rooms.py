"""Rooms and who is in them: made once, joined, left, handed on; and two who talk alone."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from accounts.app import app as accounts
from chat import limits
from chat.routes import ROUTES
from chat.settings import signing_file
from chat.tables import MEMBERS, PEOPLE
from gateway import App
from tests.chat.talk import WITHIN, Chat, new_id, open_chat, texts

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_key_is_one_room(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    new = {"name": "Tea", "key": new_id()}
    first = await ann.asks("POST", "", new)
    assert (first.status_code, first.json()["role"]) == (201, "owner")
    assert (await ann.gets("POST", "", new)) == first.json()
    assert (await bob.gets("POST", "", new))["id"] != first.json()["id"]
    assert (await ann.asks("POST", "", {"name": "", "key": "k"})).status_code == 422
    assert (await chat.person("a b").asks("GET", "")).json()["type"].endswith(":bad_name")
    assert (await chat.http.get("/chat/rooms/")).status_code == 401


async def test_join_and_leave(chat: Chat) -> None:
    ann, bob, cat = chat.person("ann"), chat.person("bob"), chat.person("cat")
    room = await ann.makes("public", bob, cat)
    assert (await bob.gets("POST", f"{room}/join"))["seq"] == 3  # who is in it joins no second time
    async with bob.device() as of_bob:
        await of_bob.notices()
        await ann.gets("POST", f"{room}/leave")
        members = (await cat.gets("GET", f"{room}/members"))["items"]
        assert {one["user"]: one["role"] for one in members} == {bob.name: "owner", cat.name: "member"}
        # Anybody may look into a public room; only members write.
        assert len(await ann.history(room)) == 4
        async with ann.device() as of_ann:
            assert (await of_ann.says(room, "hi"))["error"] == "not_member"
        assert (await ann.asks("PUT", f"{room}/read", {"seq": 1})).status_code == 403
        assert (await ann.asks("POST", f"{room}/leave")).status_code == 403
        await bob.gets("DELETE", f"{room}/members/{cat.name}")
        await bob.gets("DELETE", f"{room}/members/{cat.name}")
        await bob.gets("POST", f"{room}/leave")
        await of_bob.until(lambda: of_bob.told("left"))
    assert [(one["kind"], one["author"], one["member"]) for one in await ann.history(room, after=3)] == [
        ("left", ann.name, ann.name),
        ("left", bob.name, cat.name),
        ("left", bob.name, bob.name),
    ]
    assert room not in [one["id"] for one in (await bob.gets("GET", ""))["items"]]


async def test_lists_come_in_pages(chat: Chat) -> None:
    ann = chat.person("ann")
    made = sorted([await ann.makes() for _ in range(5)])
    for listing, wanted in (("", made), ("public", made)):
        found, after = list[str](), ""
        while True:
            page = await ann.gets("GET", listing, limit=2, after=after)
            assert len(page["items"]) <= 2
            found += [one["id"] for one in page["items"]]
            if (after := page["next"]) is None:
                break
        assert [id for id in found if id in made] == wanted
        assert len(found) == len(set(found))
    for bad in ("x", "-1", "1" * 17):
        assert (await ann.asks("GET", f"{made[0]}/history", after=bad)).status_code == 400


async def test_who_may_let_in(chat: Chat) -> None:
    ann, bob, cat = chat.person("ann"), chat.person("bob"), chat.person("cat")
    room = await ann.makes("private", bob)
    assert (await bob.asks("PUT", f"{room}/members/{cat.name}")).status_code == 403
    assert (await ann.asks("PUT", f"{room}/members/a%20b")).status_code == 422
    async with cat.device() as of_cat:
        await of_cat.notices()
        await ann.gets("PUT", f"{room}/members/{cat.name}")
        await ann.gets("PUT", f"{room}/members/{cat.name}")
        await of_cat.until(lambda: of_cat.told("joined"))
        assert [one["room"] for one in of_cat.told("joined")] == [room]
    assert len(await cat.history(room)) == 3


async def test_the_document_has_every_route(chat: Chat) -> None:
    headers = {"authorization": f"Bearer {chat.gateway.token('user:ann')}"}
    paths = (await chat.http.get("/openapi.json", headers=headers)).json()["paths"]
    assert {f"/chat/rooms{route.path.removesuffix('/')}" for route in ROUTES} <= paths.keys()
    asked = paths["/chat/rooms/{room}/history"]["get"]
    assert {one["name"] for one in asked["parameters"]} == {"room", "after", "limit", "back"}
    assert {"200", "400", "404"} <= asked["responses"].keys()


async def test_nobody_is_in_too_many_rooms(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes()
    monkeypatch.setattr(limits, "ROOMS_MOST", 1)
    assert (await ann.asks("POST", "", {"name": "Two", "key": new_id()})).status_code == 409
    monkeypatch.setattr(limits, "MEMBERS_MOST", 1)
    assert (await bob.asks("POST", f"{room}/join")).json()["type"].endswith(":full")
    monkeypatch.undo()


async def test_nobody_makes_rooms_and_members_faster_than_by_hand(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, cat = chat.person("ann"), chat.person("bob"), chat.person("cat")
    room, mine = await ann.makes("public"), await bob.makes("private")
    monkeypatch.setattr(limits, "MOVES", 2)
    monkeypatch.setattr(limits, "MOVE_EVERY", 3_600_000)
    key = new_id()
    await bob.gets("POST", "", {"name": "Tea", "key": key})  # his second
    later = [
        await bob.asks("POST", f"{room}/join"),
        await bob.asks("PUT", f"{mine}/members/{cat.name}"),
        await bob.asks("PUT", f"direct/{cat.name}"),
        await bob.asks("POST", "", {"name": "Tea", "key": new_id()}),
    ]
    for refused in later:
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:topic-gateway:too_fast")
        assert int(refused.headers["retry-after"]) > 0
    # What changes nothing costs nothing, and others may.
    await bob.gets("POST", "", {"name": "Tea", "key": key})
    await bob.gets("PUT", f"{mine}/members/{bob.name}")
    await cat.gets("POST", f"{room}/join")
    assert [one["user"] for one in (await ann.gets("GET", f"{room}/members"))["items"]] == [ann.name, cat.name]
    # Nothing was done by halves.
    monkeypatch.setattr(limits, "MOVE_EVERY", 1)
    assert (await bob.gets("PUT", f"direct/{cat.name}"))["seq"] == 2


async def test_who_has_no_account_any_more_is_in_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORGET_PAGE", 2)
    async with open_chat(tmp_path, beside=[App("accounts", accounts.topics)]) as chat:
        ann, bob = chat.person("ann"), chat.person("bob")
        made = [await ann.makes(kind, bob) for kind in ("public", "private", "public")]
        await ann.gets("PUT", "me", {"name": "Ann Smith"})
        alone = (await ann.gets("PUT", f"direct/{bob.name}"))["id"]
        assert (await bob.gets("GET", alone))["other_name"] == "Ann Smith"
        async with ann.device() as of_ann:
            await of_ann.watches(alone)
            await of_ann.says(alone, "remember me")
            await chat.gateway.publish(f"accounts/users/{ann.name}/erased", {})
            await of_ann.until(lambda: any("unsubscribe" in push for push in of_ann.client.pushes))
        await chat.gateway.at_rest(within=WITHIN)
        assert (await ann.gets("GET", ""))["items"] == []
        listed = {one["id"]: one for one in (await bob.gets("GET", ""))["items"]}
        assert {listed[room]["role"] for room in made} == {"owner"}
        assert (listed[alone]["other"], listed[alone]["other_name"]) == ("", "")
        assert texts(await bob.history(alone)) == ["remember me"]
        async with chat.gateway.database("chat.rooms") as db:
            for table in (MEMBERS, PEOPLE):
                said = str((await db.execute(table.select())).all())
                assert ann.name not in said
                assert "Ann Smith" not in said
        assert await chat.gateway.dead_letters() == []


async def test_people_are_called_as_they_like(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    await bob.gets("PUT", "me", {"name": " Bob "})
    names = {one["user"]: one["name"] for one in (await ann.gets("GET", f"{room}/members"))["items"]}
    assert names == {ann.name: "", bob.name: "Bob"}
    await bob.gets("PUT", "me", {"name": ""})
    assert {one["name"] for one in (await ann.gets("GET", f"{room}/members"))["items"]} == {""}
    assert (await bob.asks("PUT", "me", {"name": "x" * 101})).status_code == 422


async def test_two_talk_alone(chat: Chat) -> None:
    ann, bob, eve = chat.person("ann"), chat.person("bob"), chat.person("eve")
    room = (await ann.gets("PUT", f"direct/{bob.name}"))["id"]
    assert (await bob.gets("PUT", f"direct/{ann.name}"))["id"] == room
    assert (await eve.gets("PUT", f"direct/{ann.name}"))["id"] != room
    assert [one["other"] for one in (await bob.gets("GET", ""))["items"]] == [ann.name]
    assert (await ann.gets("GET", room))["other"] == bob.name
    async with ann.device() as of_ann, bob.device() as of_bob, eve.device() as of_eve:
        await of_bob.watches(room)
        await of_ann.says(room, "between us")
        await of_bob.hears(room, "between us")
        assert (await of_eve.says(room, "hi"))["error"] == "no_room"
    assert (await eve.asks("GET", f"{room}/history")).status_code == 404
    assert (await bob.asks("POST", f"{room}/leave")).status_code == 403
    assert (await bob.asks("PUT", f"{room}/members/{eve.name}")).status_code == 403
    assert texts(await bob.history(room)) == ["between us"]
    assert (await bob.unread(room))[1] == 1


async def test_the_gateway_can_read_the_key(chat: Chat) -> None:
    """`tokens.keys.jwks` of the gateway leads to this route."""
    ann = chat.person("ann")
    room = await ann.makes()
    channel = f"chat/rooms/{room}/messages"
    given = await ann.gets("POST", f"{room}/tokens", {"channel": channel})
    (jwk,) = (await chat.http.get("/chat/rooms/.well-known/jwks.json")).json()["keys"]
    claims = jwt.decode(given["token"], jwt.PyJWK(jwk), algorithms=["EdDSA"], audience="topic-gateway")
    assert (claims["sub"], claims["channel"], claims["iss"]) == (ann.name, channel, "chat")
    assert claims["exp"] - claims["iat"] == given["expires_in"] == limits.TOKEN_LIFE
    assert "d" not in jwk
    assert signing_file().stat().st_mode & 0o77 == 0
    assert (await ann.asks("POST", f"{room}/tokens", {"channel": f"chat/rooms/{room}/gone"})).status_code == 400

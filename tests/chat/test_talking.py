"""What people do in rooms: talk in order, once, not too fast; change what they said; see what is unread."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from chat import limits
from chat.tables import LOG
from gateway import limits as bounds
from tests.chat.talk import WITHIN, Chat, Device, Person, new_id, seqs, texts
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_talk_in_order(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, bob.device() as of_bob:
        for device in (of_ann, of_bob):
            await device.watches(room)
        answers = [await (of_bob if n % 2 else of_ann).says(room, f"line {n}") for n in range(6)]
        assert [answer["seq"] for answer in answers] == [3, 4, 5, 6, 7, 8]  # both have joined before
        for device in (of_ann, of_bob):
            await device.hears(room, "line 5")
            assert texts(device.entries(room)) == [f"line {n}" for n in range(6)]
            assert {entry["author"] for entry in device.entries(room)} == {ann.name, bob.name}
    past = await ann.history(room)
    assert seqs(past) == [1, 2, *range(3, 9)]
    assert [entry["kind"] for entry in past[:3]] == ["joined", "joined", "message"]
    assert seqs(await bob.history(room, back="true", limit=3)) == seqs(past)[::-1]


async def test_the_same_id_is_the_same_message(chat: Chat) -> None:
    ann = chat.person("ann")
    room = await ann.makes()
    async with ann.device() as one, ann.device() as other:
        await one.watches(room)
        first = await one.says(room, "once", id="mine")
        again = await asyncio.gather(*(device.says(room, "once", id="mine") for device in (one, other) * 3))
        assert again == [first] * 6
        # An edit under an id that a message has is no message.
        edited = await one.does(room, "edit", id="mine", seq=first["seq"], text="for all")
        assert edited["seq"] == first["seq"] + 1
        deleted = [await one.does(room, "delete", id="mine", seq=first["seq"]) for _ in range(2)]
        assert [answer["seq"] for answer in deleted] == [first["seq"] + 2] * 2
        # Nobody waits for what is published; it is the same message too.
        await one.client.ask("publish", channel=f"chat/rooms/{room}/send", data={"id": "mine", "text": "once"})
        assert (await one.says(room, "twice"))["seq"] == first["seq"] + 3
        await one.hears(room, "twice")
        assert (texts(one.entries(room)), texts(await ann.history(room))) == (["once", "twice"], ["twice"])


async def test_many_writers_leave_no_gap(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    writers = [chat.person("writer") for _ in range(20)]
    room = await writers[0].makes("public", *writers[1:])
    async with AsyncExitStack() as ends:
        devices = [await ends.enter_async_context(writer.device()) for writer in writers]
        await devices[0].watches(room)

        async def write(n: int) -> None:
            for m in range(50):
                answer = await devices[n].says(room, f"{n}/{m}")
                assert answer["seq"], answer

        asyncio.get_running_loop().set_debug(False)  # it would take most of the time
        try:
            await asyncio.gather(*(write(n) for n in range(20)))
        finally:
            asyncio.get_running_loop().set_debug(True)
        await devices[0].until(lambda: len(devices[0].entries(room)) == 1_000)
        live = devices[0].entries(room)
    past = await writers[1].history(room, limit=500)
    assert seqs(past) == list(range(1, 1_021))
    assert seqs(live) == list(range(21, 1_021))
    assert texts(live) == texts(past)
    for n in range(20):
        assert [text for text in texts(past) if text.startswith(f"{n}/")] == [f"{n}/{m}" for m in range(50)]


async def test_killed_in_the_middle_nothing_is_lost_or_doubled(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, bob.device() as of_bob:
        await of_bob.watches(room)
        for n in range(60):
            data = {"id": f"id-of-{n}", "text": str(n)}
            for _ in range(1 + n % 2):  # who is unsure says it again
                reply = await of_ann.client.ask("publish", channel=f"chat/rooms/{room}/send", data=data)
                assert "publish" in reply, reply
            if n % 20 == 10:
                async with chat.gateway.away("chat.rooms", killed=True):
                    pass  # what it had in hand comes again
        await chat.gateway.at_rest(within=WITHIN)
        await of_bob.hears(room, "59")
        assert texts(of_bob.entries(room)) == texts(await bob.history(room)) == [str(n) for n in range(60)]
        assert seqs(await bob.history(room)) == list(range(1, 63))
        # What was answered by nobody yet is answered as it was done.
        assert (await of_ann.says(room, "0", id="id-of-0"))["seq"] == 3
    assert await chat.gateway.dead_letters() == []


async def test_only_its_author_changes_a_message(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, bob.device() as of_bob:
        await of_bob.watches(room)
        said = await of_ann.says(room, "teh secret")
        seq = said["seq"]
        assert (await of_bob.does(room, "edit", seq=seq, text="mine"))["error"] == "not_yours"
        assert (await of_bob.does(room, "delete", seq=seq))["error"] == "not_yours"
        assert (await of_ann.does(room, "edit", seq=1, text="no message"))["error"] == "no_message"
        edit_id = new_id()
        edited = await of_ann.does(room, "edit", edit_id, seq=seq, text="the secret")
        assert edited == await of_ann.does(room, "edit", edit_id, seq=seq, text="the secret")
        (now,) = [entry for entry in await bob.history(room) if entry["seq"] == seq]
        assert (now["text"], now["edited"]) == ("the secret", edited["seq"])
        deleted = await of_ann.does(room, "delete", seq=seq)
        assert [edited["seq"], deleted["seq"]] == [seq + 1, seq + 2]  # in the same log
        assert (await of_ann.does(room, "edit", seq=seq, text="again"))["error"] == "no_message"
        await of_bob.until(lambda: len(of_bob.entries(room)) == 3)
        kinds = [(entry["kind"], entry.get("of")) for entry in of_bob.entries(room)]
        assert kinds == [("message", None), ("edited", seq), ("deleted", seq)]
        past = await bob.history(room, after=seq - 1)
        assert [entry.get("text") for entry in past] == [None] * 3
        assert past[0]["deleted"] is True
    async with chat.gateway.database("chat.rooms") as db:
        assert "secret" not in str((await db.execute(LOG.select().where(LOG.c.room == room))).all())


async def test_who_is_too_fast_is_told_when(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BURST", 3)
    monkeypatch.setattr(limits, "EVERY", 3_600_000)
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, bob.device() as of_bob:
        await of_ann.notices()
        for n in range(3):
            assert (await of_ann.says(room, str(n), id=f"n{n}"))["seq"]
        refused = await of_ann.says(room, "too much", id="hasty")
        assert refused["error"] == "too_fast"
        assert 3_000 < refused["retry_after"] <= 3_600
        await of_ann.until(lambda: of_ann.told("refused"))
        assert [one["id"] for one in of_ann.told("refused")] == ["hasty"]
        assert (await of_ann.says(room, "0", id="n0"))["seq"] == 3  # what is there costs nothing
        assert (await of_bob.says(room, "others may"))["seq"] == 6
        monkeypatch.setattr(limits, "EVERY", 1)
        assert (await of_ann.says(room, "too much", id="hasty"))["seq"] == 7  # refused is not repeated
    assert await chat.gateway.dead_letters() == []


async def test_unread_is_right_on_all_devices(chat: Chat) -> None:
    ann, bob = chat.person("ann"), chat.person("bob")
    room = await ann.makes("public", bob)
    async with ann.device() as of_ann, bob.device() as phone, bob.device() as laptop:
        for device in (phone, laptop):
            await device.notices()
        said = [(await of_ann.says(room, str(n)))["seq"] for n in range(4)]
        await phone.says(room, "my own do not count")
        await of_ann.does(room, "edit", seq=said[0], text="nor do edits")
        assert await bob.unread(room) == (2, 4)
        await of_ann.does(room, "delete", seq=said[3])
        assert (await bob.unread(room))[1] == 3
        assert await bob.gets("PUT", f"{room}/read", {"seq": said[1]}) == {"read_seq": said[1], "unread": 1}
        for device in (phone, laptop):
            await device.until(lambda device=device: device.told("read"))  # type: ignore[misc]  # bound in the loop
            assert [(one["read_seq"], one["unread"]) for one in device.told("read")] == [(said[1], 1)]
        # Never back, and never past what is there; who says nothing new tells nobody.
        assert (await bob.gets("PUT", f"{room}/read", {"seq": 1}))["read_seq"] == said[1]
        assert await bob.gets("PUT", f"{room}/read", {"seq": 10_000}) == {"read_seq": 9, "unread": 0}
        await laptop.until(lambda: len(laptop.told("read")) == 2)
        assert await bob.unread(room) == (9, 0)
        assert (await ann.unread(room))[1] == 1


async def test_typing_leaves_no_trace(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, eve = chat.person("ann"), chat.person("bob"), chat.person("eve")
    room = await ann.makes("private", bob)
    async with bob.device() as of_bob, eve.device() as of_eve:
        await of_bob.watches(room, "typing")
        monkeypatch.setattr(limits, "TYPING_EVERY", 3_600_000)
        for _ in range(3):
            await ann.gets("POST", f"{room}/typing")
        monkeypatch.setattr(limits, "TYPING_EVERY", 0)
        await bob.gets("POST", f"{room}/typing")
        typing = f"chat/rooms/{room}/typing"
        await of_bob.until(lambda: {"user": bob.name} in of_bob.heard(typing))
        assert of_bob.heard(typing) == [{"user": ann.name}, {"user": bob.name}]
        assert (await eve.asks("POST", f"{room}/typing")).status_code == 404
        assert (await of_eve.client.ask("publish", channel=typing, data={"user": ann.name}))["error"]["code"] == 103
        assert await of_bob.watches(room) is not None
        assert of_bob.entries(room) == []
    assert {entry["kind"] for entry in await ann.history(room)} == {"joined"}


async def test_presence_is_of_users(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "PRESENCE_LINGER", 0.3)
    monkeypatch.setattr(bounds, "PRESENCE_BEAT", 0.2)
    ann, bob, cem = (chat.person(name) for name in ("ann", "bob", "cem"))
    room = await ann.makes("public", bob, cem)

    async def there(*people: Person) -> bool:
        users = (await ann.gets("GET", f"{room}/presence"))["users"]
        return bool(users == sorted(person.name for person in people))

    def breaks(device: Device) -> None:
        device.client.connection.transport.abort()

    assert await there()
    async with bob.device() as phone, bob.device() as tablet, bob.device() as laptop, cem.device() as of_cem:
        async with ann.device() as of_ann:
            await of_ann.watches(room, join_leave=True)
            for device in (phone, tablet, laptop, of_cem):
                await device.watches(room)
            await eventually(lambda: there(ann, bob, cem), within=WITHIN)
            await phone.client.ask("unsubscribe", channel=f"chat/rooms/{room}/messages")
            breaks(tablet)
            breaks(of_cem)
            # Once nobody waits for Cem to come back, nobody waits for the tablet.
            await eventually(lambda: there(ann, bob), within=WITHIN)
            breaks(laptop)
            await eventually(lambda: there(ann), within=WITHIN)
            await of_ann.until(lambda: ("leave", bob.name) in moves(of_ann))
            assert [moves(of_ann).count((what, bob.name)) for what in ("join", "leave")] == [1, 1]


def moves(device: Device) -> list[tuple[str, str]]:
    """Who came and left, as ``device`` was told."""
    pushes = device.client.pushes
    return [(what, push[what]["info"]["user"]) for push in pushes for what in ("join", "leave") if what in push]

"""Chat on PostgreSQL, where transactions run side by side: the same promises."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from chat import limits
from tests.chat.talk import WITHIN, new_id, open_chat, seqs, texts
from tests.databases import new_database, postgres


async def test_a_crowd_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BURST", 1_000)
    with postgres() as server:
        async with (
            open_chat(tmp_path, {"chat.rooms": new_database(server, "chat_rooms")}) as chat,
            AsyncExitStack() as ends,
        ):
            people = [chat.person("writer") for _ in range(5)]
            new = {"name": "Crowd", "key": new_id()}
            (room,) = {
                made["id"] for made in await asyncio.gather(*(people[0].gets("POST", "", new) for _ in range(4)))
            }
            # Who joins writes into the same log as who talks, by another transaction at the same time.
            devices = [await ends.enter_async_context(person.device()) for person in people]
            await devices[0].watches(room)

            async def talk(n: int) -> None:
                await people[n].gets("POST", f"{room}/join")
                for m in range(10):
                    assert (await devices[n].says(room, f"{n}/{m}"))["seq"]
                    await people[n].gets("PUT", f"{room}/read", {"seq": m + 1})

            await asyncio.gather(*(talk(n) for n in range(5)))
            past = await people[0].history(room, limit=20)
            assert seqs(past) == list(range(1, 56))
            await devices[0].until(lambda: len(devices[0].entries(room)) >= 54)
            live = devices[0].entries(room)
            assert seqs(live) == sorted(seqs(live))
            assert texts(live) == texts(past)
            for n in range(5):
                assert [text for text in texts(past) if text.startswith(f"{n}/")] == [f"{n}/{m}" for m in range(10)]
            await devices[0].does(
                room,
                "delete",
                seq=next(e["seq"] for e in past if e["author"] == people[0].name and e["kind"] == "message"),
            )
            await people[0].gets("POST", f"{room}/leave")
            await chat.gateway.at_rest(within=WITHIN)
            assert await chat.gateway.dead_letters() == []

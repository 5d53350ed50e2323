"""chat by its own document: it is valid and whole, and every route answers what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import requests
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from chat import limits
from chat.app import app
from chat.service import service
from gateway.adapters.http_operation import operations
from tests.chat.talk import Person, new_id, open_chat
from tests.fuzz import test_http_paths
from tests.fuzz.test_http_paths import asked, bearing


def test_every_route_says_what_it_is() -> None:
    found = list(operations("chat.rooms", service))
    assert {(one.method, one.path) for one in found} == {
        (method, f"/chat/rooms{route.path.removesuffix('/')}")
        for route in service.routes
        for method in route.methods - {"HEAD"}
    }
    for one in found:
        assert one.summary.endswith("."), one.id
        assert one.grants, one.id


@pytest.mark.parametrize("kind", ["user", "operator"])
async def test_every_route_answers_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(limits, "MOVES", 1_000)  # as a fuzzer would else hear of little more
    async with open_chat(tmp_path) as chat:
        alice, bob = Person(chat, "alice"), Person(chat, "bob")
        rooms = [await alice.makes("private", bob), await bob.makes(), await alice.makes("public", bob)]
        monkeypatch.setitem(test_http_paths.GOOD, "room", tuple(rooms))
        async with alice.device() as device:
            await device.says(rooms[0], "hello", new_id())
        reader = chat.gateway.token("operator:root")
        document = await asyncio.to_thread(
            requests.get, f"{chat.gateway.url}/openapi.json", headers=bearing(reader), timeout=30
        )
        assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document.json())] == []
        who = bearing(chat.gateway.token(f"{kind}:alice"))
        await asyncio.to_thread(asked, chat.gateway.url, reader, who, f"/{app.name}/")

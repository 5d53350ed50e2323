"""Services over HTTP: an operator sees how far each is, lets one rest and go on; nobody else learns anything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import token
from tests.letters import audited, door, problem
from tests.servers import eventually
from tests.web.stage import shop


async def test_an_operator_lets_a_service_rest_and_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    async with shop(tmp_path) as stage, door(stage.edge) as http:

        async def states() -> list[dict[str, Any]]:
            return list((await http.get("/groups")).json()["groups"])

        async def serving() -> bool:
            found = await states()
            return len(found) == 8 and all(one["holder"] and not one["paused"] and not one["lag"] for one in found)

        await eventually(serving)
        assert {one["group"] for one in await states()} == {"shop.stock"}
        paused = (await http.post("/groups/shop.stock/pause")).json()
        assert (paused["group"], paused["paused"]) == ("shop.stock", True)
        assert sorted(paused["partitions"]) == sorted(one["partition"] for one in await states())

        async def resting() -> bool:
            return not any(one["holder"] for one in await states())

        await eventually(resting)
        await stage.order("o-1", "tea")
        assert sum(one["lag"] for one in await states()) == 1
        assert not (await http.post("/groups/shop.stock/resume")).json()["paused"]
        await eventually(lambda: stage.reserved == ["o-1"])
        assert [line.partition(": ")[2].rpartition(" in ")[0] for line in audited(caplog)] == [
            "pause shop.stock",
            "resume shop.stock",
        ]
        assert all(line.startswith("operator:root, http 127.0.0.1: ") for line in audited(caplog))


async def test_nobody_but_an_operator_learns_or_changes_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path) as stage:
        async with door(stage.edge, {"Authorization": f"Bearer {token('eve')}"}) as eve:
            problem(await eve.get("/groups"), 403, "denied")
            problem(await eve.post("/groups/shop.stock/pause"), 403, "denied")
            page = {"Origin": "https://elsewhere.example"}
            problem(await eve.get("/groups", headers=page), 403, "denied")
        async with door(stage.edge, {}) as nobody:
            problem(await nobody.post("/groups/shop.stock/pause"), 401, "bad_token")
        async with door(stage.edge) as http:
            problem(await http.post("/groups/shop.nothing/pause"), 404, "not_available")
            assert not any(one["paused"] for one in (await http.get("/groups")).json()["groups"])
    assert any("user:eve" in line and "denied to list services" in line for line in audited(caplog))

"""Dead letters over HTTP: an operator finds, reads, mends, replays and drops them, and may go away meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway import App, Context, Rejected, Service, Topic, limits
from gateway.adapters.child import Server
from gateway.adapters.log import Log
from gateway.app import declare, services
from gateway.core.event import Meta
from gateway.settings import Settings
from gateway.worker import Worker
from tests.gateways import app_logs, running_edge, token
from tests.journeys.steps import step
from tests.letters import STRAYS, audited, bury, door, left, lines, problem
from tests.servers import eventually

SHOP = [Topic(pattern="shop/orders/{order}/placed", key="{order}", write=("operator",), read=("operator",))]


class Order(msgspec.Struct):
    item: str


@asynccontextmanager
async def stock(url: str, handle: Callable[..., Awaitable[object]]) -> AsyncIterator[Worker]:
    """A worker of the service ``shop.stock``."""
    service = Service("stock")
    service.on("shop/orders/{order}/placed")(handle)
    apps = [App("shop", topics=SHOP, services=[service])]
    declared = declare(Settings(), apps)
    services(declared, apps)
    log = await Log.open(url, app_logs(SHOP))
    worker = Worker(log, declared, "shop.stock", service, lease=2.0, beat=0.05)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop), name="worker")
    try:
        await eventually(lambda: running.done() or not worker.unready())
        yield worker
    finally:
        stop.set()
        await running
        await log.close()


async def test_what_a_service_rejected_is_mended_by_an_operator(
    log_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    reserved: list[str] = []

    async def handle(order: Order, context: Context) -> None:
        if order.item != "tea":
            raise Rejected(f"we sell tea, not {order.item}")
        reserved.append(context.event.id)

    async with running_edge(log_server, SHOP) as edge, stock(log_server, handle), door(edge) as http:
        for n, item in enumerate(("coffee", "milk", "bread")):
            asked = http.post(f"/topics/shop/orders/{n}/placed", json={"item": item}, headers={"Event-Id": f"o-{n}"})
            assert (await asked).status_code == 201

        async def listed() -> list[dict[str, Any]]:
            answer = await http.get("/dead", params={"group": "shop.stock", "reason": "rejected", "topic": "shop/#"})
            rows: list[dict[str, Any]] = answer.json()["letters"]
            return sorted(rows, key=lambda row: str(row["id"]))

        await eventually(lambda: _many(listed, 3))
        step("a list tells what each is, without its payload")
        coffee, milk, bread = await listed()
        assert (coffee["group"], coffee["reason"], coffee["id"]) == ("shop.stock", "rejected", "o-0")
        assert (coffee["topic"], coffee["attempts"], coffee["size"]) == ("shop/orders/0/placed", 1, 17)
        assert "we sell tea" in coffee["error"]
        assert abs(coffee["when"] / 1000 - time.time()) < 600
        step("a letter is read whole")
        at = coffee["address"]
        whole = (await http.get(f"/dead/{at}")).json()
        assert (whole["payload"], whole["type"]) == ({"item": "coffee"}, "application/json")
        assert whole["worker"]
        assert "Traceback" in whole["traceback"]
        assert (whole["meta"]["via"], whole["meta"]["producer"]) == ("http", "operator:root")
        step("a payload that its topic does not take is refused, and the letter stays")
        problem(await http.put(f"/dead/{at}", content=b'{"item":'), 422, "bad_payload")
        assert (await http.get(f"/dead/{at}")).status_code == 200
        step("with another payload it is handled, once, under its own id")
        edited = await http.put(f"/dead/{at}", json={"item": "tea"})
        assert (edited.status_code, edited.json()) == (200, {"replayed": at})
        await eventually(lambda: reserved == ["o-0"])
        assert "replayed, edited or dropped" in problem(
            await http.put(f"/dead/{at}", json={"item": "tea"}), 404, "no_letter"
        )
        problem(await http.get(f"/dead/{at}"), 404, "no_letter")
        step("what would be done can be asked before")
        which = {"which": {"group": "shop.stock"}}
        *rows, last = lines(await http.post("/dead/replay", json={**which, "dry_run": True}))
        assert sorted(row["id"] for row in rows) == ["o-1", "o-2"]
        assert last == {"end": "dry_run", "done": 2, "left_out": 0}
        assert await _many(listed, 2)
        step("one is dropped by its address, however often it is named; the other goes back, and is rejected again")
        named = {"letters": [milk["address"], milk["address"], at]}
        first, second, last = lines(await http.post("/dead/drop", json=named))
        assert first == {"done": 1, "left_out": 0, "why": ""}
        assert (second["done"], second["left_out"]) == (1, 1)
        assert at in second["why"]
        assert last == {"end": "done", **second}
        assert lines(await http.post("/dead/replay", json=which))[-1] == {"end": "done", "done": 1, "left_out": 0}

        async def again() -> bool:
            return [row["id"] for row in await listed() if row["address"] != bread["address"]] == ["o-2"]

        await eventually(again)
        assert reserved == ["o-0"]
    step("the audit log names who, from where, and what")
    who = "operator:root, http 127.0.0.1"
    told = audited(caplog)
    assert [line.split(" of ")[0] for line in told] == [
        f"{who}: edit {at}",
        f"{who}: drop {milk['address']}",
        f"{who}: replay {bread['address']}",
    ]
    assert told[0].endswith("of shop.stock, rejected o-0")


async def _many(listed: Callable[[], Awaitable[list[dict[str, Any]]]], count: int) -> bool:
    return len(await listed()) == count


async def test_a_device_s_message_that_never_was_in_the_log_is_published_if_it_may_be_now(log_server: str) -> None:
    async with running_edge(log_server) as edge, door(edge) as http:
        (refused,) = await bury(edge, id="m-1")
        (cbor,) = await bury(edge, id="m-2", data=b"\xa1\x61", meta=Meta(ts=5, type="application/cbor"))
        (stray,) = await bury(edge, place=STRAYS, reason="undeclared", topic="nobody/knows", data=b"{}", id="m-3")
        step("all are listed, and bytes that are no JSON come in base64 with their type")
        rows = (await http.get("/dead")).json()["letters"]
        assert [row["address"] for row in rows] == [refused, cbor, stray]
        assert {row["error"] for row in rows} == {"bad"}
        whole = (await http.get(f"/dead/{cbor}")).json()
        assert (base64.b64decode(whole["base64"]), whole["type"]) == (b"\xa1\x61", "application/cbor")
        assert "payload" not in whole
        step("what is refused again is left out, with the reason")
        *_, last = lines(await http.post("/dead/replay", json={"letters": [refused, stray]}))
        assert (last["end"], last["done"], last["left_out"]) == ("done", 0, 2)
        assert "nobody/knows" in last["why"]
        step("mended, it is in the log under its own id")
        problem(await http.put(f"/dead/{refused}", content=b"{"), 422, "still_refused")
        problem(await http.put(f"/dead/{stray}", content=b"1"), 404, "unknown_topic")
        assert (await http.put(f"/dead/{refused}", json={"t": 1})).status_code == 200
        assert (await http.put(f"/dead/{cbor}", json={"t": 2})).status_code == 200
        place = edge.edge.declared.find("devices/7/telemetry").partition
        records = await edge.log.recent_deliveries(place, 10)
        assert sorted((one.event.id, one.event.data) for one in records) == [("m-1", b'{"t":1}'), ("m-2", b'{"t":2}')]
        problem(await http.put(f"/dead/{refused}", json={"t": 1}), 404, "no_letter")
        step("of two who mend it at once one is told that it is gone, and one payload is published")
        (twice,) = await bury(edge, id="m-4")
        put = [http.put(f"/dead/{twice}", json={"t": n}) for n in (4, 5)]
        assert sorted(answer.status_code for answer in await asyncio.gather(*put)) == [200, 404]
        assert [one.event.id for one in await edge.log.recent_deliveries(place, 10)].count("m-4") == 1
        step("what no topic claims can be dropped")
        assert lines(await http.post("/dead/drop", json={"letters": [stray]}))[-1]["done"] == 1
        assert (await http.get("/dead")).json() == {"letters": [], "next": None}


async def test_pages_follow_one_another_over_all_partitions(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(log_server) as edge, door(edge) as http:
        places = [*edge.log.partitions(), STRAYS]
        everything = [at for place in places for at in await bury(edge, 3, place)]
        (rare,) = await bury(edge, place=STRAYS, reason="rare")

        async def walk(**params: str) -> tuple[list[str], int]:
            seen: list[str] = []
            pages, after = 0, ""
            while True:
                answer = await http.get("/dead", params={**params, "after": after})
                assert answer.status_code == 200, answer.text
                told = answer.json()
                seen += [row["address"] for row in told["letters"]]
                pages += 1
                after = told["next"]
                if after is None:
                    return seen, pages

        assert (await walk())[0] == [*everything, rare]
        seen, pages = await walk(limit="2")
        assert seen == [*everything, rare]
        assert pages == (len(everything) + 1) // 2 + 1
        step("a page that looks at no more than its bound may be empty, and the next one goes on")
        monkeypatch.setattr(limits, "DEAD_SEEN", 5)
        seen, pages = await walk(reason="rare")
        assert seen == [rare]
        assert pages > len(everything) // 5
        monkeypatch.setattr(limits, "DEAD_SEEN", 1_000)
        monkeypatch.setattr(limits, "DEAD_SEEN_BYTES", 2)
        assert (await walk(reason="rare"))[0] == [rare]
        step("a cursor whose letter is gone stays a cursor")
        lines(await http.post("/dead/drop", json={"letters": [everything[0]]}))
        assert (await http.get("/dead", params={"after": everything[0], "limit": "1"})).json()["next"] == everything[1]


async def test_everything_goes_only_where_everything_is_asked_for(log_server: str) -> None:
    async with running_edge(log_server) as edge, door(edge) as http:
        letters = await bury(edge, 5)
        assert "nothing says which letters" in problem(
            await http.post("/dead/drop", json={"which": {}}), 400, "bad_request"
        )
        assert await left(edge) == letters
        *_, last = lines(await http.post("/dead/drop", json={"all": True, "limit": 3}))
        assert last == {"end": "done", "done": 3, "left_out": 0}
        assert await left(edge) == letters[3:]
        assert lines(await http.post("/dead/drop", json={"all": True}))[-1]["done"] == 2


async def test_who_goes_away_stops_the_work_between_two_letters(
    log_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    async with running_edge(log_server) as edge, door(edge) as http:
        letters = await bury(edge, 500)
        async with http.stream("POST", "/dead/drop", json={"all": True, "rate": 100}) as answer:
            told = answer.aiter_lines()
            for n in range(1, 4):
                assert json.loads(await anext(told))["done"] == n
            assert edge.edge.desk.changes == 1
        await eventually(lambda: edge.edge.desk.changes == 0)
        await edge.edge.desk.letters.end()
        there = await left(edge)
        gone = len(letters) - len(there)
        assert 3 <= gone < 500
        assert there == letters[gone:]
        assert [line.split(" of ")[0].split()[-1] for line in audited(caplog)] == letters[:gone]


async def test_no_letter_is_left_half_done_by_whoever_goes_away(
    log_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    async with running_edge(log_server) as edge, door(edge) as http:
        partition = edge.edge.declared.find("devices/7/telemetry").partition
        for cut in range(12):
            letters = await bury(edge, 40, data=b"1", id="")
            caplog.clear()
            async with http.stream("POST", "/dead/replay", json={"letters": letters}) as answer:
                told = answer.aiter_lines()
                for _ in range(cut):
                    await anext(told)
            await eventually(lambda: edge.edge.desk.changes == 0)
            await eventually(lambda: not edge.edge.desk.letters.under_way)
            kept = await left(edge)
            published = {one.event.id for one in await edge.log.recent_deliveries(partition, 1_000)}
            assert published.isdisjoint(kept)
            gone = [at for at in letters if at not in kept]
            assert published >= set(gone)
            assert [line.split(" of ")[0].split()[-1] for line in audited(caplog)] == gone
            await http.post("/dead/drop", json={"all": True})


async def test_a_change_ends_with_its_server_and_says_so(log_server: str) -> None:
    async with running_edge(log_server) as edge, door(edge) as http:
        await bury(edge, 20)
        asked = {"all": True, "rate": 0.1}
        async with http.stream("POST", "/dead/drop", json=asked) as answer:
            told = answer.aiter_lines()
            assert json.loads(await anext(told))["done"] == 1
            edge.stop.set()
            last = json.loads(await anext(told))
            assert (last["end"], last["done"]) == ("failed", 1)
            assert last["problem"]["type"] == "urn:topic-gateway:unavailable"
            with pytest.raises(StopAsyncIteration):
                await anext(told)


async def test_a_change_ends_with_its_token(log_server: str) -> None:
    short = {"Authorization": f"Bearer {token('root', kind='operator', seconds=3)}"}
    async with running_edge(log_server) as edge, door(edge, short) as http:
        await bury(edge, 200)
        *_, last = lines(await http.post("/dead/drop", json={"all": True, "rate": 20}))
        assert (last["end"], last["problem"]["type"]) == ("failed", "urn:topic-gateway:token_expired")
        assert 0 < last["done"] == 200 - len(await left(edge))


async def test_few_changes_run_at_a_time(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEAD_CHANGES", 1)
    async with running_edge(log_server) as edge, door(edge) as http:
        await bury(edge, 20)
        async with http.stream("POST", "/dead/drop", json={"all": True, "rate": 0.1}) as answer:
            await anext(answer.aiter_lines())
            problem(await http.post("/dead/drop", json={"all": True}), 429, "busy")
        await eventually(lambda: edge.edge.desk.changes == 0)
        assert lines(await http.post("/dead/drop", json={"all": True}))[-1] == {
            "end": "done",
            "done": 19,
            "left_out": 0,
        }


async def test_a_group_with_too_much_parked_ends_a_replay(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARKED", 2)
    async with running_edge(log_server) as edge, door(edge) as http:
        lease = await edge.log.groups.take("devices.0", "devices.twins", "w", "earliest", 60.0)
        assert lease is not None
        await bury(edge, 3, group="devices.twins", data=b"{}")
        (other,) = await bury(edge, group="devices.others", data=b"{}")
        *_, last = lines(await http.post("/dead/replay", json={"which": {"group": "devices.twins"}}))
        assert (last["end"], last["done"], last["problem"]["type"]) == ("failed", 2, "urn:topic-gateway:limit")
        step("a group that has not begun takes nothing back")
        *_, last = lines(await http.post("/dead/replay", json={"letters": [other]}))
        assert (last["end"], last["left_out"]) == ("done", 1)
        assert "devices.others" in last["why"]


async def test_without_a_log_server_nothing_is_done_and_it_may_be_asked_again(
    fresh_log_server: Callable[..., Server],
) -> None:
    server = fresh_log_server()
    async with running_edge(server.url) as edge, door(edge) as http:
        (there,) = await bury(edge, data=b"{}")
        server.stop()
        problem(await http.get("/dead"), 503, "unavailable")
        problem(await http.put(f"/dead/{there}", content=b"{}"), 503, "unavailable")
        *_, last = lines(await http.post("/dead/replay", json={"letters": [there]}))
        assert (last["end"], last["done"], last["problem"]["retryable"]) == ("failed", 0, True)

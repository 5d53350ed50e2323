"""The fleet on PostgreSQL, where transactions run side by side: the same promises."""

from __future__ import annotations

import asyncio

import pytest

from devices.app import app
from devices.events import Alert, Document, Window
from tests.databases import new_database, postgres
from tests.devices.fleet import HOUR, WITHIN, open_fleet


@pytest.mark.timeout(400)  # forty seconds of work where the machine is busy
async def test_a_fleet_on_postgresql() -> None:
    with postgres() as server:
        databases = {f"devices.{one.name}": new_database(server, f"devices_{one.name}") for one in app.services}
        async with open_fleet(databases) as fleet:
            await fleet.done("POST", "/devices/registry/", {"device": "pg-0"})
            rule = {"kind": "above", "devices": "pg-*", "metric": "temp", "threshold": 30, "clear": 25}
            await fleet.done("PUT", "/devices/alerting/rules/hot", rule)
            await fleet.done(
                "PUT", "/devices/alerting/rules/quiet", {"kind": "silent", "devices": "pg-*", "after": 0.5}
            )
            names = [f"pg-{n}" for n in range(8)]
            await asyncio.gather(
                *(fleet.says(name, *((n, HOUR + n * 20_000, 20.0 + n * 3) for n in range(6))) for name in names)
            )
            async with fleet.gateway.away("devices.storage"):
                late = [{"boot": "b", "seq": n, "ts": HOUR + 1, "m": {"temp": 2.0}} for n in (5, 6)]
                await asyncio.gather(*(fleet.gateway.publish(f"devices/{name}/telemetry", late) for name in names))
            for name in names:
                await fleet.gateway.event(f"devices/{name}/alerts/hot", within=WITHIN)
            await fleet.gateway.event("devices/*/alerts/quiet", within=WITHIN)
            # Questions and readings of one device side by side with looks, and a rule that changes meanwhile.
            for n in range(5):
                await asyncio.gather(
                    fleet.done("PUT", "/devices/alerting/rules/hot", rule | {"devices": f"pg-{'*' if n % 2 else '0'}"}),
                    *(fleet.says(name, (10 + n, HOUR + 119_000 + n, 40.0)) for name in names),
                )
            await fleet.done("PUT", "/devices/alerting/rules/hot", rule)
            await asyncio.gather(*(fleet.says(name, (15, HOUR + 119_900, 40.0)) for name in names))
            await fleet.rests()
            await fleet.done("DELETE", "/devices/alerting/rules/quiet")
            await fleet.rests()
            for name in names:
                told = await fleet.gateway.events(f"devices/{name}/alerts/hot", 1)
                whats = [one.json(Alert).what for one in {one.id: one for one in told}.values()]
                assert whats == [("firing", "resolved")[n % 2] for n in range(len(whats))]
            for name in names:
                (hour,) = (await fleet.get(f"/devices/storage/{name}/series/temp?begin={HOUR}&level=hour"))["items"]
                assert (hour["count"], hour["min"], hour["max"]) == (13, 2.0, 40.0)
                (run,) = (await fleet.get(f"/devices/storage/{name}/losses"))["items"]
                assert (run["received"], run["doubled"], run["lost"]) == (13, 1, 3)
                for rest in (f"losses?after={run['ts']}/{run['boot']}", "latest?after=temp"):
                    assert (await fleet.get(f"/devices/storage/{name}/{rest}"))["items"] == []
                said = await fleet.gateway.events(f"devices/{name}/windows/temp", 2, within=WITHIN)
                assert {one.json(Window).start for one in said} == {HOUR}
                assert said[-1].json(Window).count == 4
            page = await fleet.get("/devices/storage/pg-0/series/temp?limit=3&begin=0")
            assert (
                len((await fleet.get(f"/devices/storage/pg-0/series/temp?begin=0&after={page['next']}"))["items"]) == 10
            )
            assert len((await fleet.get("/devices/alerting/alerts"))["items"]) == 8
            # Shadows that are changed from two sides at once, the first time too.
            for n in range(10):
                await asyncio.gather(
                    *(fleet.gateway.publish(f"devices/{one}/shadow/update", {"reported": {"n": n}}) for one in names),
                    *(fleet.done("PATCH", f"/devices/shadow/{one}", {"desired": {"n": n}}) for one in names),
                )
            await fleet.rests()
            for name in names:
                said = await fleet.gateway.events(f"devices/{name}/shadow", 20, within=WITHIN)
                assert [one.json(Document).version for one in said] == list(range(1, 21))
                assert (await fleet.get(f"/devices/shadow/{name}"))["delta"] == {}
            assert len((await fleet.get("/devices/shadow/?pending=false"))["items"]) == 8
            await fleet.done("POST", "/devices/registry/pg-0/suspend")
            await fleet.rests()
            assert len((await fleet.get("/devices/alerting/alerts?limit=3"))["items"]) == 3
            assert await fleet.gateway.dead_letters() == []

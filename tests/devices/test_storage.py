"""Storage: every reading once, rollups that late data corrects, the newest by event time, and what was lost."""

from __future__ import annotations

from typing import Any

import pytest

from devices.events import Wrong
from tests.devices.fleet import HOUR, WITHIN, Fleet
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def rolled(fleet: Fleet, device: str, level: str) -> list[dict[str, Any]]:
    items = (await fleet.get(f"/devices/storage/{device}/series/temp?begin={HOUR}&level={level}"))["items"]
    return list(items)


async def lost(fleet: Fleet, device: str) -> list[dict[str, Any]]:
    return list((await fleet.get(f"/devices/storage/{device}/losses"))["items"])


async def test_late_data_corrects_the_rollups_and_nothing_counts_twice(fleet: Fleet) -> None:
    await fleet.says("late", (1, HOUR + 1_000, 10.0), (3, HOUR + 61_000, 30.0))
    await fleet.rests()
    assert await rolled(fleet, "late", "hour") == [{"start": HOUR, "count": 2, "mean": 20.0, "min": 10.0, "max": 30.0}]
    late = [{"boot": "b", "seq": n, "ts": HOUR + 2_000, "m": {"temp": 2.0}} for n in (1, 2, 3)]
    await fleet.gateway.publish("devices/late/telemetry", late)  # 1 and 3 are there already
    await fleet.rests()
    assert await rolled(fleet, "late", "hour") == [{"start": HOUR, "count": 3, "mean": 14.0, "min": 2.0, "max": 30.0}]
    assert [item["count"] for item in await rolled(fleet, "late", "minute")] == [2, 1]
    assert [item["seq"] for item in await rolled(fleet, "late", "raw")] == [1, 2, 3]
    (newest,) = (await fleet.get("/devices/storage/late/latest"))["items"]
    assert (newest["ts"], newest["value"], newest["stale"]) == (HOUR + 61_000, 30.0, True)
    assert newest["age"] > 0
    (fresh,) = (await fleet.get("/devices/storage/late/latest?stale_after=99999999"))["items"]
    assert fresh["stale"] is False
    (run,) = await lost(fleet, "late")
    assert (run["received"], run["doubled"], run["lost"]) == (3, 2, 0)


async def test_a_gap_is_counted_until_it_closes(fleet: Fleet) -> None:
    await fleet.says("gap", (1, HOUR, 1.0), (5, HOUR + 5, 1.0))
    await fleet.rests()
    assert [run["lost"] for run in await lost(fleet, "gap")] == [3]
    await fleet.says("gap", (3, HOUR + 3, 1.0))
    await fleet.says("gap", (1, HOUR + 9, 1.0), boot="c")
    await fleet.rests()
    assert [(run["boot"], run["lost"]) for run in await lost(fleet, "gap")] == [
        ("c", 0),
        ("b", 2),
    ]


async def test_pages_hold_all_of_it_once(fleet: Fleet) -> None:
    many = [{"boot": "b/1", "seq": n, "ts": HOUR + n // 2 * 60_000, "m": {"temp": n}} for n in range(25)]
    await fleet.gateway.publish("devices/pages/telemetry", many)
    await fleet.rests()
    series, six = f"/devices/storage/pages/series/temp?begin={HOUR}", HOUR + 6 * 60_000
    assert [one["value"] for one in await fleet.pages(f"{series}&level=raw&limit=4")] == list(range(25))
    minutes = await fleet.pages(f"{series}&level=minute&limit=4")
    assert minutes[:2] == [
        {"start": HOUR + n * 60_000, "count": 2, "mean": 2 * n + 0.5, "min": 2.0 * n, "max": 2.0 * n + 1}
        for n in (0, 1)
    ]
    assert [one["start"] for one in minutes] == [HOUR + n * 60_000 for n in range(13)]
    # From its begin, of minutes the one that this is in, up to before its end.
    part = f"/devices/storage/pages/series/temp?limit=4&end={six}"
    raw = await fleet.pages(f"{part}&level=raw&begin={HOUR + 60_000}")
    assert [one["value"] for one in raw] == list(range(2, 12))
    assert await fleet.pages(f"{part}&level=minute&begin={HOUR + 119_999}") == minutes[1:6]
    # The finest that has so few rows.
    for points, level in ((60, "minute"), (59, "hour")):
        said = await fleet.get(f"{series}&end={HOUR + 3_600_000}&points={points}")
        assert (said["level"], said["items"]) == (level, await rolled(fleet, "pages", level))
    assert await rolled(fleet, "pages", "minute") == minutes


async def test_losses_and_last_values_come_in_pages(fleet: Fleet) -> None:
    for n in range(5):  # three are as new as each other, and two
        made = {"boot": f"b/{n}", "seq": 1, "ts": HOUR + n // 3, "m": {f"m{n}": n}}
        await fleet.gateway.publish("devices/starts/telemetry", made)
    await fleet.rests()
    path = "/devices/storage/starts"
    assert [one["boot"] for one in await fleet.pages(f"{path}/losses?limit=2")] == [f"b/{n}" for n in (4, 3, 2, 1, 0)]
    assert [one["metric"] for one in await fleet.pages(f"{path}/latest?limit=2")] == [f"m{n}" for n in range(5)]
    assert (await fleet.ask("GET", f"{path}/losses?after=x")).status_code == 400


@pytest.mark.parametrize("query", ["level=day", "limit=0", "after=x", "begin=noon", "nothing=1", "begin=1&begin=2"])
async def test_a_bad_query_is_refused(fleet: Fleet, query: str) -> None:
    assert (await fleet.ask("GET", f"/devices/storage/x/series/temp?{query}")).status_code == 400


async def test_level_and_points_are_one_too_many(fleet: Fleet) -> None:
    assert (await fleet.ask("GET", "/devices/storage/x/series/temp?level=raw&points=3")).status_code == 400


async def test_a_bad_reading_is_a_dead_letter_and_harms_nobody_beside_it(fleet: Fleet) -> None:
    await fleet.gateway.publish("devices/bad/telemetry", {"boot": 1, "seq": 1, "ts": HOUR - 10**9, "m": {"temp": 1}})
    for n in range(20):
        await fleet.says(f"beside-{n}", (1, HOUR, 1.0))
    await fleet.says("bad", (2, HOUR, 2.0))
    await fleet.rests()
    letters = [one for one in await fleet.gateway.dead_letters() if one.topic == "devices/bad/telemetry"]
    assert [(one.reason, "from when it arrived" in one.error) for one in letters] == [("rejected", True)]
    assert [item["value"] for item in await rolled(fleet, "bad", "raw")] == [2.0]
    for n in range(20):
        assert len(await rolled(fleet, f"beside-{n}", "raw")) == 1


async def test_a_bad_reading_is_mended_and_replayed_and_counts_once(fleet: Fleet) -> None:
    for seq in (1, 2, 4):
        await fleet.says("mend", (seq, HOUR + seq * 1000, float(seq)))
    bad = {"boot": "b", "seq": 3, "ts": HOUR + 3000, "m": {"temp": "warm"}}
    id = await fleet.gateway.publish("devices/mend/telemetry", bad, by="device:mend")
    await fleet.rests()
    (told,) = await fleet.gateway.events("devices/mend/errors", 1, within=WITHIN)
    assert told.json(Wrong) == Wrong(id, "reading 0: temp is str, no number")
    assert [run["lost"] for run in await lost(fleet, "mend")] == [1]
    (row,) = (await fleet.get("/dead?group=devices.storage&topic=devices/mend/telemetry"))["letters"]
    assert (row["reason"], row["error"]) == ("rejected", "reading 0: temp is str, no number")
    place = row.get("address") or row["id"]
    replayed = await fleet.ask("PUT", f"/dead/{place}", {**bad, "m": {"temp": 3.0}})
    assert replayed.is_success, replayed.text
    # The device has mended itself, too.
    await fleet.says("mend", (3, HOUR + 3000, 3.0))

    async def counted() -> bool:
        return [run["doubled"] for run in await lost(fleet, "mend")] == [1]

    await eventually(counted, within=WITHIN)
    await fleet.rests()
    assert [item["value"] for item in await rolled(fleet, "mend", "raw")] == [1.0, 2.0, 3.0, 4.0]
    assert await rolled(fleet, "mend", "hour") == [{"start": HOUR, "count": 4, "mean": 2.5, "min": 1.0, "max": 4.0}]
    (run,) = await lost(fleet, "mend")
    assert (run["received"], run["lost"]) == (4, 0)
    again = await fleet.ask("PUT", f"/dead/{place}", {**bad, "m": {"temp": 3.0}})
    assert again.status_code == 404
    assert len(await fleet.gateway.events("devices/mend/errors")) == 1


async def test_killed_with_readings_in_hand_it_loses_and_doubles_nothing(fleet: Fleet) -> None:
    for round in range(3):
        for n in range(20):
            await fleet.says(f"killed-{n % 5}", (round * 20 + n, HOUR + n, 1.0))
        async with fleet.gateway.away("devices.storage", killed=True):
            await fleet.says("killed-0", (1000 + round, HOUR, 1.0))
    await fleet.gateway.at_rest(within=WITHIN)
    counts = [(await rolled(fleet, f"killed-{n}", "hour"))[0]["count"] for n in range(5)]
    assert counts == [15, 12, 12, 12, 12]
    for n in range(5):
        assert len(await rolled(fleet, f"killed-{n}", "raw")) == counts[n]


@pytest.mark.parametrize(("by", "status"), [("", 401), ("user:ann", 403), ("viewer:ann", 200), ("operator:root", 200)])
async def test_people_read_with_a_token(fleet: Fleet, by: str, status: int) -> None:
    for path in ("latest", "series/temp", "losses"):
        assert (await fleet.ask("GET", f"/devices/storage/late/{path}", by=by)).status_code == status

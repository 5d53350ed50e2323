"""Analytics: windows close by the watermark, late data revises them, and what is unusual is told."""

from __future__ import annotations

import math

import pytest

from devices import limits
from devices.analytics.sketch import quantiles, with_values
from devices.events import Window
from tests.devices.fleet import HOUR, WITHIN, Fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")
MINUTE = limits.WINDOW


async def test_a_sketch_knows_quantiles_after_it_was_put_away() -> None:
    sketch = b""
    for n in range(0, 10_000, 1_000):
        sketch = with_values(sketch, [float(value) for value in range(n, n + 1_000)])
    for found, rank in zip(quantiles(sketch), (0.5, 0.9, 0.99), strict=True):
        assert math.isclose(found, rank * 10_000, abs_tol=400)
    assert len(sketch) < 6_000


async def windows(fleet: Fleet, device: str, count: int) -> list[Window]:
    return [
        one.json(Window) for one in await fleet.gateway.events(f"devices/{device}/windows/temp", count, within=WITHIN)
    ]


async def test_a_window_is_told_once_and_revised_by_late_data(fleet: Fleet) -> None:
    await fleet.says("win", (1, HOUR, 1.0), (2, HOUR + 59_999, 3.0), (3, HOUR + MINUTE, 9.0))
    await fleet.rests()
    assert await windows(fleet, "win", 0) == []
    await fleet.says("win", (5, HOUR + MINUTE + limits.LATENESS, 9.0))
    (told,) = await windows(fleet, "win", 1)
    assert (told.start, told.end, told.count, told.mean, told.min, told.max) == (HOUR, HOUR + MINUTE, 2, 2.0, 1.0, 3.0)
    assert (told.p50, told.p99, told.score, told.unusual, told.revision) == (1.0, 3.0, None, False, 0)
    late = [{"boot": "b", "seq": n, "ts": HOUR + 30_000, "m": {"temp": 5.0}} for n in (2, 4)]
    await fleet.gateway.publish("devices/win/telemetry", late)  # 2 was there already
    told = (await windows(fleet, "win", 2))[1]
    assert (told.count, told.mean, told.max, told.revision) == (3, 3.0, 5.0, 1)


async def test_a_device_that_is_far_ahead_closes_no_window_of_another(fleet: Fleet) -> None:
    await fleet.says("behind", (1, HOUR, 1.0), (2, HOUR + 30_000, 3.0))
    await fleet.says("ahead", (1, HOUR, 9.0), (2, HOUR + 40 * MINUTE, 9.0))
    assert [one.start for one in await windows(fleet, "ahead", 1)] == [HOUR]
    await fleet.says("behind", (3, HOUR + 59_000, 5.0))
    await fleet.rests()
    assert await windows(fleet, "behind", 0) == []
    marks = {name: await fleet.get(f"/devices/analytics/{name}/watermark") for name in ("behind", "ahead")}
    assert {name: (one["watermark"], one["late"]) for name, one in marks.items()} == {
        "behind": (HOUR + 59_000 - limits.LATENESS, 0),
        "ahead": (HOUR + 40 * MINUTE - limits.LATENESS, 0),
    }
    await fleet.says("behind", (4, HOUR + MINUTE + limits.LATENESS, 7.0))
    (told,) = await windows(fleet, "behind", 1)
    assert (told.start, told.count, told.mean, told.revision) == (HOUR, 3, 3.0, 0)
    assert len(await windows(fleet, "ahead", 1)) == 1


async def test_what_is_later_than_late_is_counted(fleet: Fleet) -> None:
    await fleet.says("slow", (1, HOUR, 1.0), (2, HOUR - 2 * limits.WINDOW_KEPT, 1.0))
    await fleet.rests()
    said = await fleet.get("/devices/analytics/slow/watermark")
    assert said == {"newest": HOUR, "watermark": HOUR - limits.LATENESS, "late": 1}
    assert (await fleet.ask("GET", "/devices/analytics/never/watermark")).status_code == 404


async def test_what_is_unusual_is_told(fleet: Fleet) -> None:
    steady = [(n, HOUR + n * MINUTE, 20.0 + n % 3) for n in range(12)]
    await fleet.says("odd", *steady, (12, HOUR + 12 * MINUTE, 90.0), (13, HOUR + 14 * MINUTE, 20.0))
    told = await windows(fleet, "odd", 13)
    assert [one.unusual for one in told] == [False] * 12 + [True]
    assert told[12].score is not None
    assert told[12].score > limits.UNUSUAL


async def test_a_kill_loses_and_doubles_nothing(fleet: Fleet) -> None:
    for n in range(30):
        await fleet.says("shot", (n, HOUR + n * 10_000, float(n)))
        if n % 10 == 5:
            async with fleet.gateway.away("devices.analytics", killed=True):
                await fleet.says("shot", (100 + n, HOUR + n * 10_000, float(n)))
    await fleet.says("shot", (999, HOUR + 400_000, 0.0))
    await fleet.rests()
    last = {one.start: one for one in await windows(fleet, "shot", 5)}
    assert sum(one.count for one in last.values()) == 33

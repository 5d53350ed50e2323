"""A log that is open takes in more applications: what opening checks is checked, and what was open goes on."""

import pytest

from gateway.adapters.log import AppLog
from gateway.errors import Misconfigured
from tests.contracts.log_running import P, draft, offsets, running
from tests.servers import eventually

MORE = AppLog("more", "fast", 3600.0, 100)


async def test_a_new_application_is_appended_to_and_followed(log_server: str) -> None:
    async with running(log_server) as log:
        before = offsets(await log.append(P, [draft("devices/1", "a")]))
        await log.adopt([MORE], 1, {"more/+": "{x}"})
        await log.adopt([MORE], 1, {"more/+": "{x}"})  # again: it is there
        assert len(offsets(await log.append("more.0", [draft("more/1", "b")]))) == 1
        assert offsets(await log.append(P, [draft("devices/1", "c")])) == [before[0] + 1]
        assert (log.durability("more"), log.unready()) == ("fast", [])
        assert set(log.partitions()) == {P, "more.0"}
        (last,) = await log.recent_deliveries("more.0", 1)
        assert last.event.id == "b"


async def test_what_the_server_cannot_give_is_not_taken_in(log_server: str) -> None:
    async with running(log_server) as log:
        with pytest.raises(Misconfigured, match="no replica"):
            await log.adopt([AppLog("more", "replica", 3600.0, 100)], 1, {})
        await log.adopt([], 1, {"kept/+": "{x}"})
        with pytest.raises(Misconfigured, match=r"written with key kept/\+ = {x}"):
            await log.adopt([MORE], 1, {"kept/+": "{y}"})
        assert log.partitions() == (P,)
        await eventually(lambda: not log.unready())
        assert offsets(await log.append(P, [draft("devices/1", "d")]))


async def test_what_is_refused_leaves_no_key_behind(log_server: str) -> None:
    async with running(log_server) as log:
        await log.adopt([], 1, {"kept/+": "{x}"})
        with pytest.raises(Misconfigured, match=r"written with key kept/\+ = {x}"):
            await log.adopt([MORE], 1, {"more/+": "{x}", "kept/+": "{y}"})
        await log.adopt([MORE], 1, {"more/+": "{y}", "kept/+": "{x}"})

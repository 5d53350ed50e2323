"""Cursors that cannot be honoured: refused where they were never ours, and `lost` said aloud where the past is gone."""

from __future__ import annotations

import pytest
import redis as redis_client

from gateway.adapters.log.keys import log_key
from gateway.core.declared import Topic
from tests.gateways import TOPICS, running_edge, token
from tests.journeys.event_source import publisher, source
from tests.journeys.steps import step
from tests.servers import eventually

ALL = "devices/+/telemetry"


def moved(cursor: str, **to: int) -> str:
    """``cursor`` with another epoch or offset in its first part."""
    first, _, rest = cursor.partition(",")
    place, _, at = first.rpartition(":")
    epoch, _, offset = at.partition("-")
    return f"{place}:{to.get('epoch', epoch)}-{to.get('offset', offset)}" + (f",{rest}" if rest else "")


@pytest.mark.parametrize("filter", ["devices/7/telemetry", ALL])
async def test_a_tampered_cursor_is_refused(log_server: str, filter: str) -> None:
    async with running_edge(log_server) as edge:
        async with source(edge.port, filter) as one:
            good = one.last_id
        first = good.partition(",")[0]
        for bad in [
            good.replace("devices.", "rooms."),
            good.replace("devices.", "devices.9"),
            moved(good, offset=-1),
            moved(good, offset=2**63),
            moved(good, epoch=-1),
            moved(good, epoch=10**30),
            f"{good},{first}",
            f"{good},",
            "x" * 5_000,
            "null",
            "0",
            "{}",
            "a" * 8_000,
        ]:
            step(f"{bad[:50]!r}: 400")
            async with source(edge.port, filter, bad) as refused:
                assert refused.refused is not None, bad
                assert refused.refused.status_code == 400
                assert refused.refused.json()["type"] == "urn:topic-gateway:bad_request"
        assert len(edge.edge.fanout) == 0


@pytest.mark.parametrize("filter", ["devices/7/telemetry", ALL])
@pytest.mark.parametrize("to", [{"epoch": 1}, {"epoch": 10**13}, {"offset": 2**62}, {"offset": 10**6}])
async def test_a_position_the_log_does_not_know_is_lost_aloud(log_server: str, filter: str, to: dict[str, int]) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, filter) as one:
            good = one.last_id
        await publish("devices/7/telemetry", "missed")
        async with source(edge.port, filter, moved(good, **to)) as back:
            await eventually(lambda: "lost" in back.names)
            ((_, lost), *others) = [e for e in back.events if e[0] == "lost"]
            assert lost == {"partition": good.partition(":")[0]}
            assert others == []
            step("after the notice the stream goes on, and can be resumed")
            await publish("devices/7/telemetry", "live")
            await eventually(lambda: "live" in back.data())
        async with source(edge.port, filter, back.last_id) as again:
            await publish("devices/7/telemetry", "more")
            await eventually(lambda: again.data() == ["more"])
            assert again.names == {"message"}


async def test_what_was_trimmed_is_lost_aloud(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, ALL) as one:
            await publish("devices/7/telemetry", 0)
            await eventually(lambda: one.events)
        for n in range(10):
            await publish("devices/7/telemetry", n)
            await publish("devices/8/telemetry", n)
        place, other = (edge.edge.declared.find(f"devices/{d}/telemetry").partition for d in (7, 8))
        assert place != other
    with redis_client.Redis.from_url(log_server) as admin:
        admin.xtrim(log_key(place), maxlen=3, approximate=False)
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, ALL, one.last_id) as back:
            await eventually(lambda: len(back.data("message")) == 10 and "lost" in back.names)
            assert [shown for name, shown in back.events if name == "lost"] == [{"partition": place}]
            assert {shown["tags"]["topic"] for name, shown in back.events if name == "message"} == {
                "devices/8/telemetry"
            }, "the other partitions lost nothing"


async def test_a_cursor_that_lacks_a_partition_has_lost_it(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, ALL) as one:
            first, _, rest = one.last_id.partition(",")
        step("as after a declaration that lets the filter meet more than it did")
        async with source(edge.port, ALL, rest) as back:
            await eventually(lambda: back.events)
            assert back.events == [("lost", {"partition": first.partition(":")[0]})]
            assert back.last_id.count(",") == one.last_id.count(",")
            for device in range(8):
                await publish(f"devices/{device}/telemetry", device)
            await eventually(lambda: sorted(back.data()) == list(range(8)))


async def test_topics_without_history_are_not_read_back(log_server: str) -> None:
    topics = (*TOPICS, Topic(pattern="whispers/{room}", write=("operator",), read=("user",), history=False))
    async with running_edge(log_server, topics) as edge, publisher(edge) as publish:
        async with source(edge.port, "whispers/1") as one:
            await publish("whispers/1", "heard")
            await eventually(lambda: one.data() == ["heard"])
        await publish("whispers/1", "not for those who were away")
        async with source(edge.port, "whispers/1", one.last_id) as back:
            await eventually(lambda: back.names == {"lost"})
            await publish("whispers/1", "heard again")
            await eventually(lambda: len(back.events) == 2)
            assert back.events[1][1]["data"] == "heard again"


async def test_what_was_lost_leaves_the_last_values(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        await publish("devices/7/status", json="online")
        async with source(edge.port, "devices/7/status") as one:
            await eventually(lambda: one.data() == ["online"])
            unknown = moved(one.last_id, epoch=1)
        step("a cursor of an epoch that never was: lost, and then what stands now")
        async with source(edge.port, "devices/7/status", unknown) as back:
            await eventually(lambda: [name for name, _ in back.events] == ["lost", "message"])
            assert back.data() == ["online"]


async def test_a_stream_ends_with_its_token(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        short = {"Authorization": f"Bearer {token('alice', seconds=2)}"}
        async with source(edge.port, "devices/7/telemetry", headers=short) as one:
            step("it comes back with the token it has, and is told that its time is over")
            await eventually(lambda: one.refused is not None, within=20)
            assert one.clean_ends == one.connects == 1
            answer = one.refused
        assert answer is not None
        assert answer.json()["type"] == "urn:topic-gateway:token_expired"

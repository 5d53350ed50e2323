"""The log on a cluster of several nodes: every part of it where its keys are, wherever that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.adapters import embedded
from gateway.adapters.log import AppLog, Log
from gateway.adapters.log.control import Notice
from gateway.adapters.log.replies import Reply
from gateway.adapters.log.servers import Servers, slot_of
from gateway.adapters.log.tickets import Ticket
from gateway.core.access import Grant, Principal
from gateway.core.event import Appended, Position
from gateway.errors import BadToken, Misconfigured, Unavailable
from tests.clusters import Cluster, cluster
from tests.contracts.group_running import LONG, done, letter
from tests.contracts.log_running import HANG, draft, following
from tests.servers import LOG_SERVERS

G = "devices.alerts"


@pytest.fixture(scope="module", params=sorted(LOG_SERVERS))
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
async def log(three: Cluster) -> AsyncIterator[Log]:
    for node in three.masters:
        node.admin.flushall()
    log = await Log.open(three.url, [AppLog("devices"), AppLog("chat", durability="fast")], partitions=4)
    running = asyncio.create_task(log.run())
    yield log
    running.cancel()
    await asyncio.wait([running])
    await log.close()


def test_slots_are_those_of_the_servers(three: Cluster) -> None:
    for tag in ("devices.0", "gateway", "a.17", "é"):
        assert slot_of(tag) == three.masters[0].admin.execute_command("CLUSTER", "KEYSLOT", f"{{{tag}}}:epochs")


async def test_partitions_are_where_their_keys_are(log: Log, three: Cluster) -> None:
    assert {three.of(partition) for partition in log.partitions()} == set(three.masters)
    for partition in log.partitions():
        tail = log.tail(partition)
        await tail.start(0)
        drafts = [draft(f"t/{n}", f"id-{n}", key="t", retain=True) for n in range(3)]
        assert all(isinstance(answer, Appended) for answer in await log.append(partition, drafts))
        assert [one.event.id for one in (await following(tail)).records] == ["id-0", "id-1", "id-2"]
        assert three.of(partition).admin.xlen(f"{{{partition}}}") == 4
        current = (await log.epochs(partition)).current
        walk = await log.walk(partition, "t", Position(current, 2))
        assert [one.event.id for one in walk.records] == ["id-1", "id-2"]
        assert [one.event.id for one in (await log.read(partition, Position(0, 0), 2_000)).records] == [
            *("id-0", "id-1", "id-2")
        ]
        assert await log.heads(partition, ["t"]) == [4]
        assert {one.event.topic for one in await log.last(partition, None, 9)} == {"t/0", "t/1", "t/2"}
    assert await log.trim() == 0


async def test_groups_take_what_is_on_several_nodes(log: Log) -> None:
    partitions = log.partitions()
    for partition in partitions:
        await log.append(partition, [draft("t/0", "id-0")])
        lease = await log.groups.take(partition, G, "w", "earliest", LONG)
        assert lease is not None
        (record,) = await log.recent_deliveries(partition, 1)
        await lease.settle(done(2), 2, [letter(record)])
        ((id, dead),) = await log.dead(partition)
        assert dead.id == "id-0"
        assert await log.groups.replay(partition, G, [id]) == {id: 2**52 + 1}
        await lease.renew()
        (again,) = await lease.fresh()
        assert (await lease.fetch([again]))[again.offset].event.id == "id-0"
        await lease.release()
    assert await log.groups.beat(G, "w") == ["w"]
    states = await log.groups.states(partitions)
    assert [(state.partition, state.cursor) for state in states] == [(partition, 2) for partition in partitions]


async def test_replies_are_heard_of_wherever_they_are(log: Log) -> None:
    hearing = log.replies.tail()
    assert (await asyncio.wait_for(anext(hearing), HANG)).lost
    for partition in log.partitions():
        await log.replies.send(partition, "id-0", Reply(data=partition.encode()))
        news = await asyncio.wait_for(anext(hearing), HANG)
        assert news.requests == [(partition, "id-0")]
    asked = [(partition, "id-0") for partition in reversed(log.partitions())]
    assert [one and one.data for one in await log.replies.stored_many([*asked, ("chat.0", "none")])] == [
        *(partition.encode() for partition, _ in asked),
        None,
    ]


async def test_what_is_the_gateway_s_own(log: Log) -> None:
    hearing = log.control.tail()
    assert (await asyncio.wait_for(anext(hearing), HANG)).lost
    await log.control.announce(Notice("kind", b"data"))
    assert (await asyncio.wait_for(anext(hearing), HANG)).notices == [Notice("kind", b"data")]
    await log.control.revoke("sub", "user:alice", 60, "a test")
    assert [one.name for one in await log.control.revoked()] == ["user:alice"]
    await log.tickets.put("secret", Ticket("t/#", Grant(Principal("user", "alice"), None)), 60)
    assert (await log.tickets.take("secret")).filter == "t/#"
    with pytest.raises(BadToken):
        await log.tickets.take("secret")
    await log.surveys.answer("survey", "edge", b"word")
    assert await log.surveys.take("survey", ["edge", "other"]) == [b"word", None]
    assert await log.edges.tell("edge", b"word") == [b"word"]
    bridge = log.bridge_lease("broker", "me", LONG)
    assert await bridge.take() == ""
    await log.fence(log.partitions(), "broker", bridge.term)
    await log.append("devices.0", [draft("t/0", "id-0")])
    (stored,) = await log.recent_deliveries("devices.0", 1)
    await log.bury("gateway.0", letter(stored))
    assert [dead.id for _, dead in await log.dead("gateway.0")] == ["id-0"]


async def test_any_node_of_the_url_will_do(three: Cluster) -> None:
    nobody = embedded.free_port()
    servers = await Servers.find(f"redis://127.0.0.1:{nobody},127.0.0.1:{three.masters[2].port}")
    assert (await servers.place("devices.0").find()).port == three.of("devices.0").port
    with pytest.raises(Unavailable, match=str(nobody)):
        await Servers.find(f"redis://127.0.0.1:{nobody}")


async def test_what_a_cluster_cannot_do(three: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="database 0 alone"):
        await Servers.find(f"redis://127.0.0.1:{three.masters[0].port}/1")
    with (
        embedded.valkey(tmp_path, port=embedded.free_port()) as alone,
        pytest.raises(Misconfigured, match="no cluster"),
    ):
        await Servers.find(f"redis://127.0.0.1:{alone.port},127.0.0.1:{alone.port}")


async def test_without_a_replica_of_each_node_replica_is_refused(three: Cluster) -> None:
    with pytest.raises(Misconfigured, match="has no replica"):
        await Log.open(three.url, [AppLog("devices", durability="replica")])


async def test_slots_that_nobody_has(three: Cluster) -> None:
    servers = await Servers.find(three.url)
    holder = three.of("devices.0")
    holder.admin.execute_command("CLUSTER", "DELSLOTS", slot_of("devices.0"))
    try:
        servers = await Servers.find(holder.url)
        with pytest.raises(Unavailable, match="no node of the cluster has slot"):
            await servers.place("devices.0").find()
    finally:
        holder.admin.execute_command("CLUSTER", "ADDSLOTS", slot_of("devices.0"))

"""What everyone may expect of the log, asked of Redis and of Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis.asyncio as client

from gateway import limits
from gateway.adapters.embedded import Server
from gateway.adapters.log import AppLog, DeadLetter, Log
from gateway.adapters.log.entry import checked
from gateway.adapters.log.servers import addresses
from gateway.core.event import Appended, Event, Meta, Position
from gateway.errors import Busy, KeyReused, LimitReached, Misconfigured, StorageFull, Unavailable
from tests.contracts.log_running import HANG, P, draft, offsets, running
from tests.servers import eventually

META = Meta(
    ts=1_700_000_000_123,
    type="image/png",
    producer="device:7",
    via="mqtt",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    cause="id-0",
    headers={"unit": "°C"},
    reply_to="reply.edge-1",
    correlation=b"\x00\xff",
    delivery=("session", 3),
)


async def test_what_is_appended_is_read_back_byte_for_byte(log_server: str) -> None:
    async with running(log_server) as log:
        event = Event("devices/é/telemetry", bytes(range(256)) + b"\r\n$5\r\n", "id-1", META)
        (answer,) = await log.append(P, [draft(event.topic, event.id, event.data, key="devices/é", meta=META)])
        epochs = await log.epochs(P)
        assert answer == Appended(Position(epochs.current, 2), "id-1")
        page = await log.read(P, Position(0, 0), 10)
        (record,) = page.records
        assert record.event == event
        assert (record.partition, record.epoch, record.offset, record.prev) == (P, epochs.current, 2, 0)
        assert page.position == answer.position
        assert not page.lost


async def test_an_entry_is_flat_and_readable_without_us(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/7/x", "id-1", b"1", key="devices/7", idempotency="user:1/k", meta=META)])
        control, fields = [entry for _, entry in await _entries(raw)]
        assert control == {b"ctl": b"epoch"}
        assert list(fields) == [b"topic", b"id", b"data", b"prev", b"meta", b"key", b"idem"]
        meta = msgspec.msgpack.decode(fields[b"meta"])
        assert meta["ts"] == META.ts
        assert list(meta)[-1] == "crc"
        assert meta.keys() - {"crc"} == msgspec.to_builtins(META).keys()


async def _entries(raw: Any) -> Any:
    return await raw.xrange("{devices.0}")


def test_meta_leaves_room_for_its_checksum() -> None:
    # A MessagePack map of 16 entries or more has another head, which `checked` does not write.
    assert len(Meta.__struct_fields__) < 15
    assert msgspec.msgpack.decode(checked(META, b"t", b"i", b"d"), type=Meta) == META


async def test_offsets_are_gapless_in_the_order_of_the_calls(log_server: str) -> None:
    async with running(log_server) as log:
        calls = [log.append(P, [draft("devices/1/x", f"{n}-{i}") for i in range(7)]) for n in range(200)]
        answers = await asyncio.gather(*calls)
        assert [offset for answer in answers for offset in offsets(answer)] == list(range(2, 2 + 1400))
        assert log.counters.appended == 1400
        assert log.counters.batches < 200  # what came while one was under way left together


async def test_a_call_larger_than_a_batch_keeps_its_order(log_server: str) -> None:
    async with running(log_server) as log:
        many = [draft("devices/1/x", str(i), bytes(5_000)) for i in range(2 * limits.APPEND_BATCH + 1)]
        assert offsets(await log.append(P, many)) == list(range(2, 2 + len(many)))


async def test_appending_nothing_is_nothing(log_server: str) -> None:
    async with running(log_server) as log:
        assert await log.append(P, []) == []


# --- one answer per idempotency key ---------------------------------------------------------------------------------


async def test_an_idempotency_key_is_answered_once_and_for_all(log_server: str) -> None:
    async with running(log_server) as log:
        first = draft("devices/1/x", "id-1", b"1", idempotency="user:1/k")
        again = draft("devices/1/x", "id-2", b"1", idempotency="user:1/k")
        other = draft("devices/1/x", "id-3", b"2", idempotency="user:1/k")
        elsewhere = draft("devices/2/x", "id-4", b"2", idempotency="user:1/k")
        one, two, three, four = await log.append(P, [first, again, other, elsewhere])
        assert isinstance(one, Appended)
        assert two == Appended(one.position, "id-1", duplicate=True)
        assert isinstance(three, KeyReused)
        assert isinstance(four, Appended)
        assert not four.duplicate
        assert [r.event.id for r in (await log.read(P, Position(0, 0), 10)).records] == ["id-1", "id-4"]
        assert log.counters.duplicates == 1


# --- last values ----------------------------------------------------------------------------------------------------


async def test_the_last_value_of_a_retained_topic_is_kept_and_an_empty_one_clears_it(log_server: str) -> None:
    async with running(log_server) as log:
        await log.append(
            P, [draft("devices/1/s", "a", b"1", retain=True), draft("devices/2/s", "b", b"2", retain=True)]
        )
        (answer,) = await log.append(P, [draft("devices/1/s", "c", b"\x003\n", retain=True, meta=META)])
        assert isinstance(answer, Appended)
        (record,) = await log.last(P, ["devices/1/s", "devices/9/s"], 10)
        assert record.event == Event("devices/1/s", b"\x003\n", "c", META)
        assert Position(record.epoch, record.offset) == answer.position
        assert {r.event.id for r in await log.last(P, None, 10)} == {"b", "c"}
        assert len(await log.last(P, None, 1)) == 1
        await log.append(P, [draft("devices/1/s", "d", b"", retain=True)])
        assert [r.event.id for r in await log.last(P, None, 10)] == ["b"]
        # It cleared the value, and it is an event as any other.
        assert (await log.read(P, answer.position, 10)).records[-1].event.id == "d"


async def test_a_retained_message_sent_by_the_broker_again_is_appended_once(log_server: str) -> None:
    async with running(log_server) as log:
        (was,) = await log.append(P, [draft("devices/1/s", "a", b"1", retain=True)])
        assert isinstance(was, Appended)
        same, new = await log.append(
            P,
            [
                draft("devices/1/s", "b", b"1", retain=True, replayed=True),
                draft("devices/1/s", "c", b"2", retain=True, replayed=True),
            ],
        )
        assert same == Appended(was.position, "a", duplicate=True)
        assert new == Appended(Position(was.position.epoch, was.position.offset + 1), "c")


async def test_one_topic_more_than_may_have_a_last_value_is_refused(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RETAINED_TOPICS", 1)
    async with running(log_server) as log:
        one, two, three = await log.append(P, [draft(f"devices/{t}/s", t, b"1", retain=True) for t in "aba"])
        assert isinstance(one, Appended)
        assert isinstance(two, LimitReached)
        assert isinstance(three, Appended)


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_a_full_server_refuses_the_impatient_at_once_and_the_patient_wait_in_order(log_server: str) -> None:
    async with running(log_server, retention=0.01, keep=0) as log, client.Redis.from_url(log_server) as raw:
        await log.append(P, [draft("devices/0/x", "before")])
        await raw.config_set("maxmemory", 1)
        try:
            refused = await log.append(P, [draft("devices/0/x", "no"), draft("devices/0/x", "no2")])
            assert [type(answer) for answer in refused] == [StorageFull, StorageFull]
            patient = [
                asyncio.create_task(log.append(P, [draft("devices/0/x", f"p{i}")], patient=True)) for i in range(5)
            ]
            await eventually(lambda: log.counters.retries > 2)
            (again,) = await log.append(P, [draft("devices/0/x", "still no")])
            assert isinstance(again, StorageFull)
            # Reading and trimming go on: that is how it drains.
            assert len((await log.read(P, Position(0, 0), 10)).records) == 1

            async def drained() -> bool:
                await log.trim()
                return await raw.xlen("{devices.0}") == 0

            await eventually(drained)
            patient[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await patient[2]
        finally:
            await raw.config_set("maxmemory", 0)
        await asyncio.wait_for(asyncio.gather(*patient[:2], *patient[3:]), HANG)
        assert [r.event.id for r in (await log.read(P, Position(0, 0), 10)).records] == ["p0", "p1", "p3", "p4"]
        assert offsets(await log.append(P, [draft("devices/0/x", "yes")]))


async def test_a_queue_at_its_bound_answers_busy(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "APPEND_QUEUE", 10)
    log = await Log.open(log_server, [AppLog("devices")], partitions=1)
    waiting = [asyncio.create_task(log.append(P, [draft("devices/0/x", str(i))])) for i in range(10)]
    await asyncio.sleep(0)
    (answer,) = await log.append(P, [draft("devices/0/x", "one more")])
    assert isinstance(answer, Busy)
    waiting[3].cancel()
    run = asyncio.create_task(log.run())
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), HANG)
    assert isinstance(answers[3], asyncio.CancelledError)
    # Who gave up before his turn is not in the log.
    assert [r.event.id for r in (await log.read(P, Position(0, 0), 20)).records] == list("012456789")
    run.cancel()
    await asyncio.wait([run])
    await log.close()


async def test_who_waits_when_the_log_closes_hears_it(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await raw.config_set("maxmemory", 1)
        waiting = asyncio.create_task(log.append(P, [draft("devices/0/x", "a")], patient=True))
        await eventually(lambda: log.counters.retries > 1)
        await raw.config_set("maxmemory", 0)
        await raw.config_set("maxmemory", 1)
    (answer,) = await asyncio.wait_for(waiting, HANG)
    async with client.Redis.from_url(log_server) as raw:
        await raw.config_set("maxmemory", 0)
    assert isinstance(answer, Unavailable)


async def test_a_partition_nobody_declared_is_a_mistake_of_ours(log_server: str) -> None:
    async with running(log_server) as log:
        with pytest.raises(Misconfigured, match=r"nothing\.0"):
            await log.append("nothing.0", [draft("x", "a")])


async def test_scripts_that_the_server_forgot_are_sent_again(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await raw.script_flush()
        assert offsets(await log.append(P, [draft("devices/0/x", "a")])) == [2]
        await raw.script_flush()
        assert (await log.walk(P, "devices/0/x", Position(0, 0), 5)).complete
        await raw.script_flush()
        assert await log.trim() == 0


# --- what must hold before anything is promised ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
async def test_a_server_that_gives_less_is_refused(log_server: str, setting: str, value: str, right: str) -> None:
    async with client.Redis.from_url(log_server) as raw:
        await raw.config_set(setting, value)
        try:
            with pytest.raises(Misconfigured, match=setting):
                await Log.open(log_server, [AppLog("devices", durability="disk")])
        finally:
            await raw.config_set(setting, right)


async def test_a_server_that_gives_less_after_a_reconnect_is_not_written_to(log_server: str) -> None:
    async with running(log_server, durability="disk") as log, client.Redis.from_url(log_server) as raw:
        await raw.config_set("appendfsync", "everysec")
        try:
            await raw.client_kill_filter(_type="normal", skipme=True)
            await eventually(lambda: log.down_since is not None)
            (answer,) = await log.append(P, [draft("devices/0/x", "a")])
            assert isinstance(answer, Misconfigured | Unavailable)
            assert log.state == "down"
        finally:
            await raw.config_set("appendfsync", "always")
        await asyncio.wait_for(log.wait_up(), HANG)
        assert offsets(await log.append(P, [draft("devices/0/x", "b")])) == [2]


async def test_durability_replica_without_a_replica_is_refused(log_server: str) -> None:
    with pytest.raises(Misconfigured, match="no replica"):
        await Log.open(log_server, [AppLog("devices", durability="replica")])


async def test_a_log_written_otherwise_is_refused(log_server: str) -> None:
    keys = {"devices/{id}/#": "devices/{id}"}
    await (await Log.open(log_server, [AppLog("devices")], partitions=2, keys=keys)).close()
    more = keys | {"chat/{room}/#": "chat/{room}"}
    await (await Log.open(log_server, [AppLog("devices")], partitions=2, keys=more)).close()
    with pytest.raises(Misconfigured, match="partitions = 2"):
        await Log.open(log_server, [AppLog("devices")], partitions=3, keys=keys)
    with pytest.raises(Misconfigured, match=r"devices/\{id\}/# = devices/\{id\}"):
        await Log.open(log_server, [AppLog("devices")], partitions=2, keys={"devices/{id}/#": "devices"})


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await Log.open("unix:///nowhere/at/all.sock", [AppLog("devices")])


@pytest.mark.parametrize("url", ["http://x", "redis://h:port", "unix://", "", "redis://h:99999", "redis://a:1,b:c"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="redis://host:port/0"):
        addresses(url)


def test_a_url_names_place_account_and_database() -> None:
    (there,) = addresses("rediss://me:p%40ss@log.example:7000/3")
    assert (there.host, there.port, there.database, there.user, there.password, there.tls) == (
        "log.example", 7000, 3, "me", "p@ss", True,
    )  # fmt: skip
    (there,) = addresses("unix:///run/log.sock?db=2")
    assert (there.path, there.database) == ("/run/log.sock", 2)
    assert [(one.place, one.password) for one in addresses("redis://me:x@a:1,b:2")] == [("a:1", "x"), ("b:2", "x")]


# --- epochs ---------------------------------------------------------------------------------------------------------


async def test_processes_that_open_a_log_at_once_agree_on_one_epoch(log_server: str) -> None:
    apps = [AppLog("devices")]
    logs = await asyncio.gather(*(Log.open(log_server, apps, partitions=1) for _ in range(8)))
    assert len({(await log.epochs(P)).current for log in logs}) == 1
    assert len((await logs[0].epochs(P)).first) == 1
    assert sum(log.counters.epoch_changes for log in logs) == 1
    for log in logs:
        await log.close()


@pytest.mark.parametrize("persistence", ["aof", "rdb", "none"])
async def test_every_life_of_the_server_is_an_epoch(fresh_log_server: Callable[..., Server], persistence: str) -> None:
    extra = {"aof": [], "rdb": ["appendonly no", "save 3600 1"], "none": ["appendonly no"]}[persistence]
    server = fresh_log_server(extra=extra)
    epochs = []
    for life in range(3):
        async with running(server.url, durability="fast") as log:
            (answer,) = await log.append(P, [draft("devices/0/x", str(life))])
            assert isinstance(answer, Appended)
            epochs.append(answer.position)
            assert log.counters.epoch_changes == 1
        server.restart()
    assert sorted({at.epoch for at in epochs}) == [at.epoch for at in epochs]
    forgets = persistence == "none"
    assert [at.offset for at in epochs] == ([2, 2, 2] if forgets else [2, 4, 6])
    async with running(server.url, durability="fast") as log:
        table = await log.epochs(P)
        assert [table.continuous(at) for at in epochs] == [not forgets] * 3


# --- dead letters ---------------------------------------------------------------------------------------------------


async def test_dead_letters_are_read_back_whole_and_in_pages(log_server: str) -> None:
    async with running(log_server) as log:
        letters = [
            DeadLetter("bad_payload", f"no JSON: {i}", "devices/1/x", b"\xff{", META, "device:1", 5, "devices.rules", i)
            for i in range(5)
        ]
        await log.bury_many(P, letters)
        await log.bury("gateway.0", DeadLetter("unknown_topic", "no topic", "x", b""))
        page = await log.dead(P, count=3)
        page += await log.dead(P, after=page[-1][0], count=3)
        assert [letter for _, letter in page] == letters
        assert [letter.reason for _, letter in await log.dead("gateway.0")] == ["unknown_topic"]


async def test_letters_of_undeclared_topics_stay_within_their_bound(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEAD_UNDECLARED_KEPT", 100)
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await log.bury_many("gateway.0", [DeadLetter("unknown_topic", str(i), "x", b"") for i in range(1_000)])
        # MAXLEN ~ trims whole nodes of at most 100 entries.
        assert await raw.xlen("{gateway.0}:dead") <= 200


async def test_health_tells_how_the_server_is(log_server: str) -> None:
    async with running(log_server) as log, client.Redis.from_url(log_server) as raw:
        await raw.config_set("maxmemory", "1gb")
        health = await log.health()
        await raw.config_set("maxmemory", 0)
        assert (health.up, health.role, health.disk_ok, log.state, log.down_since) == (True, "master", True, "up", None)
        assert 0 < health.memory_ratio < 1

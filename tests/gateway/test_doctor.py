"""The doctor, on real servers: every planted fault is told with its remedy, and a gateway that is well has none."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from gateway import App, Context, Event, Later, Service, limits
from gateway.adapters.child import Server
from gateway.adapters.log import AppLog, Log
from gateway.adapters.log.inspection import Inspection
from gateway.core.event import Draft
from gateway.doctor import Finding, Patient, examine, of_server
from tests.clusters import cluster
from tests.gateways import running_edge
from tests.journeys.shop import TOPICS, Counter, serving, working
from tests.sagas import SagaShop, saga_shop
from tests.servers import eventually

TOPIC = "shop/orders/7/reserve"
TEA = b'{"item":"tea","n":1}'


def patient(url: str, service: Service | None = None, **changes: Any) -> Patient:
    known = {"shop.stock": service or Counter().service}
    given = {"log_url": url, "gateway": "gateway", "partitions": limits.PARTITIONS, "databases": {}, "bridge": ""}
    return Patient(**{**given, "logs": [AppLog("shop")], "services": known, **changes})


@pytest.fixture
def raw(log_server: str) -> Iterator[Any]:
    """The log server as another program sees it."""
    with redis_client.Redis.from_url(log_server) as client:
        yield client


async def told(who: Patient) -> list[Finding]:
    return [finding async for finding in examine(who)]


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    """What is not well, by what was looked at; each has a remedy."""
    assert all(bool(one.remedy) == (one.state != "ok") for one in findings)
    return {one.checked: one for one in findings if one.state != "ok"}


@asynccontextmanager
async def shop(log_url: str, service: Service | None = None) -> AsyncIterator[tuple[Log, str]]:
    """An edge and a worker at work; the log of the edge, and the partition of `TOPIC`."""
    serves = service or Counter().service
    async with running_edge(log_url, TOPICS) as edge, serving(log_url, App("shop", topics=TOPICS, services=[serves])):
        yield edge.log, edge.edge.declared.find(TOPIC).partition


async def append(log: Log, partition: str, *payloads: bytes) -> None:
    drafts = [Draft(Event(TOPIC, data, f"e-{n}"), TOPIC) for n, data in enumerate(payloads)]
    answers = await log.append(partition, drafts)
    assert not any(isinstance(answer, Exception) for answer in answers), answers


async def finished(log: Log, partition: str) -> bool:
    begun = "shop.stock" in await log.groups.names(partition)
    return begun and (await log.groups.ask(partition, "shop.stock")).lag == 0


async def test_who_is_well_hears_nothing_else(log_server: str) -> None:
    async with shop(log_server) as (log, place):
        await append(log, place, *[TEA] * 5)
        findings = await told(patient(log_server))
        assert wrong(findings) == {}
        lines = {one.checked: one.found for one in findings}
        assert lines["edges"] == "1 live"
        assert lines["dead letters"] == "none"
        assert "all whole" in lines["log shop"]
        assert "group shop.stock" in lines


async def test_looking_changes_nothing(log_server: str, raw: Any) -> None:
    """Not even an empty server: a doctor that opened an epoch would be a writer."""
    await told(patient(log_server))
    assert raw.keys("*") == []


async def test_damaged_and_foreign_entries_and_holes_are_named(log_server: str, raw: Any) -> None:
    async with shop(log_server) as (log, place):
        await append(log, place, *[TEA] * 3)
        await eventually(lambda: finished(log, place), within=60)
        ((id, fields),) = raw.xrevrange(f"{{{place}}}", count=1)
        epoch = id.decode().partition("-")[0]
        flipped = raw.xadd(f"{{{place}}}", {**fields, b"data": TEA.replace(b"t", b"u", 1)}, f"{epoch}-*")
        foreign = raw.xadd(f"{{{place}}}", {"hello": "world"}, f"{epoch}-*")
        before = raw.xrange(f"{{{place}}}")
        raw.xdel(f"{{{place}}}", before[2][0])
        found = await told(patient(log_server))
        says = [one.found for one in found if one.state == "bad" and one.checked == f"log {place}"]
        assert any(
            f"{flipped.decode()} checksum; " in text or f"; {flipped.decode()} checksum" in text for text in says
        )
        assert any(f"{foreign.decode()} foreign" in text for text in says)
        assert "1 entries are missing between others" in says
        # It repairs nothing.
        assert raw.xlen(f"{{{place}}}") == len(before) - 1


async def test_a_scan_is_bounded_and_all_of_it_can_be_asked(log_server: str, raw: Any) -> None:
    async with shop(log_server) as (log, place):
        await append(log, place, TEA)
        ((id, fields),) = raw.xrevrange(f"{{{place}}}", count=1)
        epoch = id.decode().partition("-")[0]
        raw.xadd(f"{{{place}}}", {**fields, b"id": b"other"}, f"{epoch}-*")
        await append(log, place, *[TEA] * 4)
        assert f"log {place}" not in wrong(await told(patient(log_server, most=3)))
        assert f"log {place}" in wrong(await told(patient(log_server, most=1_000)))


@pytest.mark.parametrize("above", [f"{2**64 - 1}-{2**64 - 1}", "{epoch}-18446744073709551615"])
async def test_a_foreign_entry_above_all_of_ours_is_healed_by_the_words_of_the_remedy(
    log_server: str, raw: Any, above: str
) -> None:
    async with shop(log_server) as (log, place):
        await append(log, place, TEA)
        above = above.replace("{epoch}", str((await log.epochs(place)).current))
        raw.xadd(f"{{{place}}}", {"hello": "world"}, above)
        (answer,) = await log.append(place, [Draft(Event(TOPIC, TEA, "late"), TOPIC)])
        assert "gateway doctor" in str(answer)
        one = wrong(await told(patient(log_server)))[f"log {place}"]
        assert (one.state, above in one.found) == ("bad", True)
        raw.execute_command(*shlex.split(one.remedy.partition("ask again: ")[2]))
        await append(log, place, TEA)
        # The worker had read it, and has all of ours before it and after it.

        async def handled() -> bool:
            return (await log.groups.ask(place, "shop.stock")).cursor == 3

        await eventually(handled, within=60)
        assert wrong(await told(patient(log_server))) == {}


async def test_a_cursor_beyond_the_log_is_named(log_server: str, raw: Any) -> None:
    async with shop(log_server) as (log, place):
        await append(log, place, TEA)
        await eventually(lambda: finished(log, place), within=60)
    raw.hset(f"{{{place}}}:group:shop.stock", "cursor", 2**53)
    found = [one for one in await told(patient(log_server)) if "its cursor stands at" in one.found]
    assert [one.state for one in found] == ["bad"]
    assert "`gateway groups replay shop.stock --from" in found[0].remedy


async def test_a_group_that_nobody_serves(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCTOR_WATCH", 0.3)
    async with shop(log_server) as (log, place):
        await append(log, place, TEA)
        await eventually(lambda: finished(log, place), within=60)
    async with running_edge(log_server, TOPICS) as edge:
        await append(edge.log, place, TEA)
        findings = await told(patient(log_server))
        of_group = [one for one in findings if one.checked == "group shop.stock"]
        assert {(one.state, one.remedy) for one in of_group} == {("bad", "`gateway work shop.stock`")}
        assert of_group[0].found == "no worker lives"
        assert f"{place}: 1 entries behind, and nobody holds its lease" in [one.found for one in of_group]
        # The same group, of which this configuration knows nothing.
        stray = wrong(await told(patient(log_server, services={})))["group shop.stock"]
        assert "gateway groups forget shop.stock" in stray.remedy
        assert wrong(await told(patient(log_server, bridge="mine")))["bridge"].state == "bad"


async def test_a_group_that_stalls_and_one_that_is_parked(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCTOR_WATCH", 0.3)
    gate, stock = asyncio.Event(), Service("stock")

    @stock.on("shop/orders/{order}/reserve")
    async def reserve(order: dict[str, Any], context: Context) -> None:
        if order["item"] == "later":
            raise Later(3_000)
        await gate.wait()

    async with shop(log_server, stock) as (log, place):
        await append(log, place, TEA)
        one = wrong(await told(patient(log_server, stock)))["group shop.stock"]
        assert (one.state, "has not moved for" in one.found) == ("warn", True)
        gate.set()
        await eventually(lambda: finished(log, place), within=60)
        await append(log, place, b'{"item":"later"}')

        async def parked() -> bool:
            return (await log.groups.ask(place, "shop.stock")).parked == 1

        await eventually(parked, within=60)
        one = wrong(await told(patient(log_server, stock)))["group shop.stock"]
        assert (one.state, f"{place}: 1 parked, the first for" in one.found) == ("warn", True)
        for partition in log.partitions():
            await log.groups.pause(partition, "shop.stock")
        assert "is paused" in [finding.found for finding in await told(patient(log_server, stock))]


async def test_dead_letters_by_service_and_reason(log_server: str) -> None:
    counter = Counter()
    async with running_edge(log_server, TOPICS) as edge, working(log_server, counter):
        place = edge.edge.declared.find(TOPIC).partition
        await append(edge.log, place, b'{"item":"coffee"}', b'{"item":1}', b'{"item":"coffee"}')

        async def buried() -> bool:
            return len(await edge.log.dead(place)) == 3

        await eventually(buried, within=60)
        findings = await told(patient(log_server))
        says = {one.found: one.remedy for one in findings if one.checked == "dead letters"}
        assert list(says) == ["2 of shop.stock: rejected", "1 of shop.stock: schema"]
        assert "`gateway dead ls --reason schema --group shop.stock`" in says["1 of shop.stock: schema"]


def test_the_command_tells_it_by_line_and_by_exit_code(log_server: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        f'[log]\nurl = "{log_server}"\n[[topics]]\npattern = "rooms/{{room}}"\nread = ["anyone"]\n'
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.cli", "doctor", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    done = run()
    assert (done.returncode, done.stderr) == (1, "")
    assert "warn  edges: none lives\n      → `gateway edge`\n" in done.stdout
    assert "ok    broker: none is named; `gateway up` starts one\n" in done.stdout
    rows = [json.loads(line) for line in run("--json", "--all").stdout.splitlines()]
    assert {"checked": "edges", "state": "warn", "found": "none lives", "remedy": "`gateway edge`"} in rows


async def test_a_log_server_that_gives_too_little(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server(extra=("appendfsync everysec", "maxmemory 100mb"))
    one = wrong(await told(patient(server.url)))["log server"]
    assert "durability `disk` is declared, and the log server has appendfsync everysec" in one.found
    look = await Inspection.open(server.url, "gateway")
    state = await look.server("devices.0")
    await look.close()
    assert state.memory_bound == 100 * 2**20
    full = type(state)(**{**{name: getattr(state, name) for name in state.__struct_fields__}, "memory_bound": 1})
    assert [(finding.checked, finding.state) for finding in of_server(full)] == [("memory", "bad")]
    server.stop()
    findings = await told(patient(server.url))
    assert [(finding.checked, finding.state) for finding in findings] == [("log server", "bad")]
    assert "redis-check-aof" in findings[0].remedy


async def test_each_node_of_a_cluster_is_looked_at(tmp_path: Path) -> None:
    with cluster("valkey", tmp_path) as three:
        async with shop(three.url) as (log, _):
            places = {three.of(partition) for partition in log.partitions()}
            assert places == set(three.masters)
            found = await told(patient(three.url))
            assert [finding for finding in found if finding.state == "bad"] == []
            assert {f"log server 127.0.0.1:{node.port}" for node in places} <= {finding.checked for finding in found}
        away = three.of("shop.0")
        away.server.kill()
        judged = wrong(await told(patient(three.url)))
        assert f"127.0.0.1:{away.port} does not answer" in judged["log server"].found
        assert "shop.0" in judged["partitions"].found


async def test_a_database_that_is_away(log_server: str) -> None:
    service = SagaShop().services["orders"]
    url = "postgresql://gateway@127.0.0.1:1/orders"
    who = patient(log_server, services={"shop.orders": service}, databases={"shop.orders": url})
    one = wrong(await told(who))["database of shop.orders"]
    assert (one.state, "does not answer" in one.found) == ("bad", True)


async def test_a_saga_whose_timer_was_lost_and_an_outbox_that_waits(
    log_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("orders", "stock", "payments")}
    who = patient(
        log_server,
        services={"shop.orders": SagaShop().services["orders"]},
        databases={"shop.orders": urls["orders"]},
    )
    assert {one.checked: one.found for one in await told(who)}["database of shop.orders"].startswith("its file is made")
    async with saga_shop(log_server, urls) as at:
        await at.up("orders")
        await at.start("7")
        orders = at.stores["orders"]
        assert [(one.saga, one.running, one.overdue) for one in await orders.sagas(["checkout"])] == [
            ("checkout", 1, 0)
        ]
        assert "database of shop.orders" not in wrong(await told(who))
        # Its deadline is 30 s from now; long before that, it is as if it had been long ago.
        monkeypatch.setattr(limits, "DOCTOR_LATE", -1_000.0)
        assert [(one.running, one.overdue) for one in await orders.sagas(["checkout"])] == [(1, 1)]
        says = [one.found for one in await told(who) if one.checked == "database of shop.orders"]
        assert says == [
            "its outbox waits: the first event for 0 s",
            "saga checkout: 1 overdue, 0 asked 5 times in vain",
        ]

"""What is counted moves when it happens; documents, dashboard and alerts name what is counted, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from gateway import Context, Later, limits
from gateway.adapters.child import Server
from gateway.adapters.log.link import Link
from gateway.adapters.log.servers import Servers
from gateway.cli.alerts import ALERTS
from tests.bridges import COMMANDS, TELEMETRY, device, options, running_bridge
from tests.gateway.test_worker import Order, shop, stock
from tests.gateways import TOPICS, Running, client, running_edge, token
from tests.servers import DEVICE, eventually

ROOT = Path(__file__).parents[2]
ROOM = "rooms/7/messages"
#: A metric is made by one of these; the first two words of each line end in ``_total`` for Prometheus.
_MADE = re.compile(r'\b(Counter|counter|counted|Gauge|gauge|gauges|Histogram|of_service)\(\s*"(gateway_\w+)"')


def declared() -> set[str]:
    """Every metric that our code makes, as Prometheus names it; a histogram by its plain name."""
    made = [_MADE.findall(path.read_text()) for path in (ROOT / "gateway").rglob("*.py")]
    return {name + ("_total" if maker.lower().startswith("count") else "") for some in made for maker, name in some}


def series() -> set[str]:
    """The names that a query may ask for."""
    return {name + suffix for name in declared() for suffix in ("", "_bucket", "_count", "_sum")}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


class Timed:
    """A histogram of seconds, and the moment from which it was watched."""

    def __init__(self, registry: CollectorRegistry, name: str) -> None:
        self._registry, self._name, self._began = registry, name, time.time()

    def once(self) -> bool:
        """Whether it has one observation; fails where that is none of the time that has passed."""
        if value(self._registry, f"{self._name}_count") == 0:
            return False
        assert value(self._registry, f"{self._name}_count") == 1
        # Events know their time in whole milliseconds.
        assert 0 < value(self._registry, f"{self._name}_sum") <= time.time() - self._began + 0.001
        return True


def check_names(registry: CollectorRegistry) -> None:
    made = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    assert made <= declared(), "the search in the sources misses some"


# --- an edge ----------------------------------------------------------------------------------------------------------


class Counted:
    """The metrics of an edge, and how they differ from those at the start."""

    def __init__(self, running: Running) -> None:
        self.registry = running.edge.metrics_of.registry

    def __call__(self, name: str, **labels: str) -> float:
        return value(self.registry, name, **labels)


async def test_clients_are_counted_by_transport_and_sdk(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        counted = Counted(edge)
        js, other, sse = (
            {"transport": "websocket", "sdk": "js"},
            {"transport": "websocket", "sdk": "other"},
            {"transport": "sse", "sdk": "other"},
        )
        async with client(edge.ws) as alice, client(edge.ws, token("bob")) as bob:
            assert counted("gateway_connections", **other) == 2
            await alice.ask("connect", token=token(), name="js", version="5.3.0")
            await alice.ask("subscribe", channel=ROOM)
            await bob.ask("subscribe", channel=ROOM)
            await bob.ask("subscribe", channel="rooms/+/messages")
            await bob.ask("unsubscribe", channel="rooms/+/messages")
            assert [counted("gateway_connections", **one) for one in (js, other)] == [1, 1]
            assert [counted("gateway_subscriptions", **one) for one in (js, other)] == [1, 1]
            head = {"Authorization": f"Bearer {token()}", "Accept": "text/event-stream"}
            async with (
                httpx.AsyncClient() as http,
                http.stream("GET", f"{edge.http}/topics/rooms%2F7%2Fmessages/events", headers=head),
            ):
                await eventually(lambda: counted("gateway_connections", **sse) == 1)
                assert counted("gateway_subscriptions", **sse) == 1
        await eventually(lambda: not any(counted("gateway_connections", **one) for one in (js, other, sse)))
        assert not any(counted("gateway_subscriptions", **one) for one in (js, other, sse))
        check_names(edge.edge.metrics_of.registry)


async def test_messages_and_bytes_are_counted_in_and_out(log_server: str) -> None:
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice, client(edge.ws, token()) as bob:
        counted = Counted(edge)
        for one in (alice, bob):
            await one.ask("subscribe", channel=ROOM)
        before, heard, told = (counted(f"gateway_{name}_total") for name in ("offered_bytes", "received", "told"))
        data = "x" * 1000
        timed = Timed(counted.registry, "gateway_ingest_to_socket_seconds")
        await alice.ask("publish", channel=ROOM, data=data)
        await alice.until(1), await bob.until(1)
        assert timed.once()
        assert counted("gateway_offered_total") == 2
        assert 2 * 1000 < counted("gateway_offered_bytes_total") - before < 2 * 1500
        assert (counted("gateway_received_total"), counted("gateway_told_total")) == (heard + 1, told + 1)
        assert counted("gateway_received_bytes_total") > 1000
        assert counted("gateway_told_bytes_total") > 0
        assert counted("gateway_published_bytes_total", via="ws") == len(data) + 2


async def test_pings_are_timed(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_EVERY", 0.1)
    async with running_edge(log_server) as edge, client(edge.ws, token()):
        counted = Counted(edge)
        await eventually(lambda: counted("gateway_ping_seconds_count") > 0)
        assert 0 < counted("gateway_ping_seconds_sum") < limits.PONG_WITHIN * counted("gateway_ping_seconds_count")


async def test_a_resume_says_why_it_failed(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_ENTRIES", 1)
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice:
        counted = Counted(edge)
        first = (await alice.ask("subscribe", channel=ROOM))["subscribe"]
        place = edge.edge.declared.find(ROOM).partition
        for epoch, reason in (
            (first["epoch"], ""),
            ("mine", "unknown_position"),
            ("4711", "lost_epoch"),
            (first["epoch"], "not_kept"),
        ):
            await alice.ask("unsubscribe", channel=ROOM)
            if reason == "not_kept":
                for n in range(3):
                    await alice.ask("publish", channel=ROOM, data=n)
                await edge.log._links.own.ask("XTRIM", f"{{{place}}}", "MAXLEN", 1)
            await alice.ask("subscribe", channel=ROOM, recover=True, epoch=epoch, offset=first.get("offset", 0))
            recovered = "no" if reason else "yes"
            assert counted("gateway_resumes_total", recovered=recovered, reason=reason) == 1


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (4711, "other")])
async def test_a_clients_close_is_counted_by_codes_that_are_known(log_server: str, code: int, label: str) -> None:
    async with running_edge(log_server) as edge:
        counted = Counted(edge)
        async with websockets.connect(edge.ws) as one:
            await one.close(code)
        await eventually(lambda: counted("gateway_closes_total", by="client", code=label) == 1)
        async with websockets.connect(edge.ws) as one:
            one.transport.abort()
        await eventually(lambda: counted("gateway_closes_total", by="client", code="1006") == 1)
        async with client(edge.ws) as refused:
            await refused.connection.send(json.dumps({"id": 1, "connect": {"token": "bad"}}))
            assert await refused.closed() == 3500
        assert counted("gateway_closes_total", by="us", code="3500") == 1


async def test_a_log_server_that_stalls_or_drops_us_or_has_what_is_not_ours_shows(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAIL_BLOCK", 0.05)
    server = Link((await Servers.find(log_server)).place("gateway"))
    async with running_edge(log_server) as edge, client(edge.ws, token()) as alice:
        counted = Counted(edge)
        epoch = (await alice.ask("subscribe", channel=ROOM))["subscribe"]["epoch"]
        place = edge.edge.declared.find(ROOM).partition
        assert counted("gateway_log_corrupt_total") == 0
        await server.ask("XADD", f"{{{place}}}", f"{epoch}-*", "hello", "world")
        await eventually(lambda: counted("gateway_log_corrupt_total") == 1)
        await server.ask("CLIENT", "PAUSE", 2000, "ALL")
        await eventually(lambda: counted("gateway_tail_lag_seconds") > 0.3)
        await eventually(lambda: counted("gateway_tail_lag_seconds") == 0, 30)
        before = counted("gateway_log_reconnects_total")
        await server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", within=20)
        await eventually(lambda: counted("gateway_log_reconnects_total") > before + 1)
    await server.close()


# --- a bridge, a worker -----------------------------------------------------------------------------------------------


async def test_a_bridge_counts_bytes_both_ways(log_server: str, mosquitto: Callable[[], Server]) -> None:
    broker = mosquitto()
    async with running_bridge(log_server, options(broker), [*TOPICS, COMMANDS]) as bridge:
        registry = bridge.metrics.registry
        timed = Timed(registry, "gateway_mqtt_append_seconds")
        with device(broker) as pump:
            await pump.publish(TELEMETRY, b'{"t": 21}')
        await eventually(timed.once)
        await eventually(lambda: value(registry, "gateway_mqtt_received_bytes_total") == 9)
        async with running_edge(log_server, [*TOPICS, COMMANDS]) as edge, httpx.AsyncClient() as http:
            head = {"Authorization": f"Bearer {token('ops', kind='operator')}"}
            url = f"{edge.http}/topics/devices/{DEVICE}/commands/go"
            timed = Timed(registry, "gateway_mqtt_out_seconds")
            assert (await http.post(url, json=[1, 2], headers=head)).is_success
        await eventually(lambda: value(registry, "gateway_mqtt_published_bytes_total") == len(b"[1,2]"))
        await eventually(timed.once)
        check_names(registry)


def _block(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_worker_counts_dead_letters_and_how_late_its_loop_is(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOP_LOOKED_AT_EVERY", 0.01)

    async def handle(order: Order, context: Context) -> None:
        _block(0.3)
        raise ValueError

    async with shop(log_server, stock(handle)) as one, one.worker() as worker:
        registry = worker.metrics.registry
        await eventually(lambda: value(registry, "gateway_loop_delay_seconds_count") > 0)
        await one.place(1)
        await eventually(lambda: value(registry, "gateway_deliveries_total", service="shop.stock", end="dead") == 1)
        dead = [
            sample
            for family in registry.collect()
            if family.name == "gateway_dead_letters"
            for sample in family.samples
        ]
        assert [sample.value for sample in dead if sample.name.endswith("_total")] == [1]
        await eventually(lambda: value(registry, "gateway_loop_delay_seconds_sum") > 0.2)
        check_names(registry)


async def test_a_worker_shows_what_it_has_not_finished(log_server: str) -> None:
    going = asyncio.Event()

    async def handle(order: Order, context: Context) -> None:
        if order.n == 2:
            raise Later(600)
        await going.wait()

    async with shop(log_server, stock(handle)) as one, one.worker(lease=60.0) as worker:

        def shown(*names: str) -> list[float]:
            return [value(worker.metrics.registry, f"gateway_{name}", service="shop.stock") for name in names]

        began = time.time()
        await one.place(1, order="a", ts=int(began * 1000) - 300_000)
        await eventually(lambda: shown("pending", "parked") == [1, 0])
        await one.place(2, order="b", ts=int(began * 1000))
        await eventually(lambda: shown("pending", "parked") == [1, 1])
        (oldest,) = shown("oldest_unfinished_seconds")
        assert 300 < oldest <= 300.001 + time.time() - began
        going.set()
        await eventually(lambda: shown("pending", "parked") == [0, 1])
        (oldest,) = shown("oldest_unfinished_seconds")
        assert 0 < oldest <= 0.001 + time.time() - began


# --- documents, dashboard, alerts -------------------------------------------------------------------------------------


def test_the_document_lists_the_metrics_that_exist() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `gateway_")]
    assert set(re.findall(r"\bgateway_\w+", " ".join(rows))) == declared()


def printed(what: str) -> str:
    command = [sys.executable, "-m", "gateway.cli", "metrics", what]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def asked(expr: str) -> set[str]:
    """The metrics of a query, without what stands in quotes."""
    return set(re.findall(r"\bgateway_\w+", re.sub(r'"[^"]*"', "", expr)))


def test_the_dashboard_is_what_grafana_imports_and_asks_for_what_exists() -> None:
    board: dict[str, Any] = json.loads(printed("dashboard"))
    assert board["title"]
    assert board["schemaVersion"] > 30
    assert [(one["name"], one["type"], one["query"]) for one in board["templating"]["list"]] == [
        ("datasource", "datasource", "prometheus")
    ]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    charts = [panel for panel in panels if panel["type"] != "row"]
    targets = [(panel["title"], target) for panel in charts for target in panel["targets"]]
    assert all(target["datasource"]["uid"] == "${datasource}" and target["refId"] for _, target in targets)
    known = series()
    for title, target in targets:
        assert set() < asked(target["expr"]) <= known, title
    assert len({panel["title"] for panel in charts}) == len(charts)


def test_alerts_ask_for_what_exists_and_say_what_to_do(tmp_path: Path) -> None:
    text = printed("alerts")
    (group,) = YAML(typ="safe").load(text)["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "operating.md").read_text())
    anchors = {f"docs/operating.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    known = series()
    for rule, alert in zip(group["rules"], ALERTS, strict=True):
        assert rule["expr"] == alert.expr
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        assert set() < asked(rule["expr"]) <= known, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] in anchors
    if (promtool := shutil.which("promtool")) is not None:
        (tmp_path / "rules.yml").write_text(text)
        subprocess.run([promtool, "check", "rules", "rules.yml"], cwd=tmp_path, check=True, timeout=60)

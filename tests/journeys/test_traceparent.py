"""One trace from a device, or from an HTTP client, through the log and a service, to who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway import App, Context, Service
from gateway.adapters.child import Server
from gateway.adapters.log import Log
from gateway.app import services
from gateway.core.declared import Declared, Topic
from gateway.worker import Worker
from tests.bridges import TELEMETRY, device, options, running_bridge, until
from tests.gateways import TOPICS, app_logs, client, running_edge, token
from tests.journeys.event_source import OPERATOR, source
from tests.journeys.steps import step
from tests.servers import DEVICE, eventually

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
ALL = "devices/+/telemetry"
ALARMS = f"alarms/{DEVICE}/raised"
WITH_ALARMS = (*TOPICS, Topic(pattern="alarms/{device}/raised", read=("user",)))


@pytest.fixture(params=["mosquitto", "iotcore_broker"])
def broker(request: pytest.FixtureRequest) -> Server:
    start: Callable[..., Server] = request.getfixturevalue(request.param)
    return start()


@asynccontextmanager
async def alarms(log_url: str) -> AsyncIterator[None]:
    """A worker of a service that raises an alarm for each reading."""
    service = Service("watch", emits=["alarms/{device}/raised"])

    @service.on("devices/{device}/telemetry")
    async def judge(reading: Any, context: Context) -> None:
        context.emit(f"alarms/{context.variables['device']}/raised", reading)

    declared = Declared(WITH_ALARMS)
    services(declared, [App("alarms", services=[service])])
    log = await Log.open(log_url, app_logs(WITH_ALARMS))
    worker, stop = Worker(log, declared, "alarms.watch", service, lease=2.0, beat=0.05), asyncio.Event()
    running = asyncio.create_task(worker.run(stop), name="worker")
    try:
        await eventually(lambda: running.done() or not worker.unready())
        yield
    finally:
        stop.set()
        await running
        await log.close()


def traces(publications: list[Any]) -> list[str | None]:
    return [one["tags"].get("traceparent") for one in publications]


async def test_a_trace_of_a_device_reaches_who_watches(broker: Server, log_server: str) -> None:
    async with (
        running_edge(log_server, WITH_ALARMS) as edge,
        running_bridge(log_server, options(broker), WITH_ALARMS) as bridge,
        alarms(log_server),
        client(edge.ws, token()) as browser,
        client(edge.ws, token("bob")) as another,
        client(edge.ws, token()) as guard,
        source(edge.port, ALL) as dashboard,
    ):
        for watcher in (browser, another):
            assert "subscribe" in await watcher.ask("subscribe", channel=ALL)
        assert "subscribe" in await guard.ask("subscribe", channel=ALARMS)
        before = edge.edge.fanout.encoded
        with device(broker) as pump:
            step("a device publishes a traced reading, one whose trace is broken, and one without")
            await pump.publish(TELEMETRY, b"1", UserProperty=[("traceparent", TRACE), ("unit", "C")])
            await pump.publish(TELEMETRY, b"2", UserProperty=[("traceparent", TRACE.upper())])
            await pump.publish(TELEMETRY, b"3")
        kept = [record.event.meta.traceparent for record in await until(bridge.log, 3)]
        assert kept == [TRACE, "", ""]
        step("the log kept the trace, and all three readings")
        for watcher in (browser, another):
            assert traces([push["pub"] for push in await watcher.until(3)]) == [TRACE, None, None]
        step("two browsers see it among the tags")
        await eventually(lambda: len(dashboard.data()) == 3)
        assert traces([shown for _, shown in dashboard.events]) == [TRACE, None, None]
        step("and so does a dashboard, by SSE")
        assert traces([push["pub"] for push in await guard.until(3)]) == [TRACE, None, None]
        step("what a service made of the reading belongs to the same trace")
        # Readings for two codecs, alarms for one; however many browsers there are.
        assert edge.edge.fanout.encoded - before == 3 * 2 + 3


async def test_a_trace_of_an_http_client_reaches_who_watches(log_server: str) -> None:
    async with (
        running_edge(log_server) as edge,
        client(edge.ws, token()) as browser,
        httpx.AsyncClient(base_url=edge.http, headers=OPERATOR) as http,
    ):
        assert "subscribe" in await browser.ask("subscribe", channel=ALL)
        async with source(edge.port, ALL) as before:
            pass

        async def publish(*headers: str) -> None:
            pairs = [("Traceparent", one) for one in headers]
            assert (await http.post(f"/topics/{TELEMETRY}", json=1, headers=pairs)).status_code == 201

        await publish(TRACE)
        await publish(f"cc{OTHER[2:]}-of-a-later-version")
        await publish(TRACE[:-1])
        await publish(TRACE, OTHER)
        await publish()
        expected = [TRACE, OTHER, None, None, None]
        step("a browser sees the trace; a broken or ambiguous one is dropped, its event is not")
        assert traces([push["pub"] for push in await browser.until(5)]) == expected
        async with source(edge.port, ALL, before.last_id) as dashboard:
            await eventually(lambda: len(dashboard.data()) == 5)
            step("a dashboard that comes later reads it from the log")
            assert traces([shown for _, shown in dashboard.events]) == expected

"""A device asks over MQTT 5 and hears the answer where it said; and where it may not, nobody hears anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import MQTTv311

from gateway import App, Context, Rejected, Retry, Service, Topic
from gateway.adapters.child import Server
from gateway.adapters.device_rights import rights
from gateway.bridge import Bridge
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.worker import Worker
from tests import servers
from tests.bridges import GROUP, Device, device, options, running_bridge, stored
from tests.journeys.commands import properties, told
from tests.journeys.shop import serving
from tests.journeys.steps import step
from tests.servers import DEVICE, eventually

TOPICS = (
    Topic(pattern="devices/{device}/ask/{what}", key="{device}", kind="command", write=("device:{device}",), mqtt="in"),
    Topic(pattern="devices/{device}/told", key="{device}", write=("device:{device}",), mqtt="in"),
    Topic(pattern="devices/{device}/answers/{what}", key="{device}", read=("device:{device}",), mqtt="out"),
    Topic(pattern="devices/{device}/wanted", key="{device}", read=("operator",), mqtt="out"),
    Topic(pattern="devices/{device}/shared", read=("device",), mqtt="out"),
    Topic(pattern="devices/{device}/state", read=("device:{device}",), retain=True, mqtt="out"),
    Topic(pattern="devices/{device}/level", read=("device:{device}",), schema=int, mqtt="out"),
    Topic(pattern="devices/{device}/inside", key="{device}", read=("device:{device}",)),
)
ASK, ANSWERS = f"devices/{DEVICE}/ask/valve", f"devices/{DEVICE}/answers/valve"


def answering(seen: list[str]) -> App:
    service = Service("valves")

    @service.on("devices/{device}/ask/{what}", retry=Retry(2, first=0.01, most=0.02))
    async def ask(asked: dict[str, Any], context: Context) -> dict[str, Any] | None:
        seen.append(context.event.id)
        match asked.get("do"):
            case "reject":
                raise Rejected("the valve is stuck")
            case "fail":
                raise ValueError("the password is swordfish")
            case "nothing":
                return None
        return {"open": True, **asked}

    @service.on("devices/{device}/told")
    async def told(_: dict[str, Any], context: Context) -> None:
        seen.append(context.event.id)

    return App("devices", topics=TOPICS, services=[service])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    """Mosquitto with the rights that the declarations give a device."""
    with servers.broker(tmp_path / "mosquitto") as server:
        with (tmp_path / "mosquitto" / "acl").open("a") as acl:
            acl.write("\n".join([*rights(Declared(TOPICS), TopicMap([]), [DEVICE]), ""]))
        server.restart()
        yield server


class Site:
    """A bridge and a worker on one log, and what the worker's handler has seen."""

    def __init__(self, bridge: Bridge, worker: Worker, seen: list[str]) -> None:
        self.bridge, self.worker, self.seen = bridge, worker, seen

    def refused(self, reason: str) -> float:
        name = "gateway_answers_refused_total"
        labels = {"service": "devices.valves", "reason": reason}
        return self.worker.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def site(log_url: str, broker: Server) -> AsyncIterator[Site]:
    seen: list[str] = []
    async with (
        serving(log_url, answering(seen)) as worker,
        running_bridge(log_url, options(broker), TOPICS) as bridge,
    ):

        async def begun() -> bool:
            return all([GROUP in await bridge.log.groups.names(name) for name in bridge.log.partitions()])

        await eventually(begun, within=30)
        yield Site(bridge, worker, seen)


async def asks(pump: Device, payload: dict[str, Any], correlation: bytes, to: str = ANSWERS, topic: str = ASK) -> None:
    body = json.dumps(payload).encode()
    await pump.publish(topic, body, ResponseTopic=to, CorrelationData=correlation)


async def test_a_request_is_answered_where_it_says(log_server: str, broker: Server) -> None:
    async with site(log_server, broker) as at:
        with device(broker) as pump:
            await pump.subscribe(f"devices/{DEVICE}/answers/#")
            await asks(pump, {"n": 1}, b"\x00one")
            (answer,) = await pump.until(1)
            step("what the handler returned, with the correlation data, at QoS 1")
            assert (answer.topic, answer.qos, json.loads(answer.payload)) == (ANSWERS, 1, {"open": True, "n": 1})
            assert told(answer, "CorrelationData") == b"\x00one"
            assert told(answer, "ResponseTopic") is None
            (event,) = [one.event for one in await stored(at.bridge.log, ANSWERS, TOPICS)]
            assert (properties(answer)["gw-id"], event.meta.cause) == (event.id, at.seen[0])
            step("a handler that returns nothing has done it")
            await asks(pump, {"do": "nothing"}, b"two")
            assert (await pump.until(2))[1].payload == b"null"
            step("rejected: the word, and why")
            await asks(pump, {"do": "reject"}, b"three")
            refused = (await pump.until(3))[2]
            assert json.loads(refused.payload) == {"code": "rejected", "error": "the valve is stuck"}
            assert (told(refused, "CorrelationData"), properties(refused)["gw-error"]) == (b"three", "rejected")
            step("failed: the word alone, for the rest is no stranger's business")
            await asks(pump, {"do": "fail"}, b"four")
            failed = (await pump.until(4))[3]
            assert (json.loads(failed.payload), properties(failed)["gw-error"]) == (
                {"code": "gave_up", "error": ""},
                "gave_up",
            )


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        (f"devices/{DEVICE}/wanted", "denied"),
        ("devices/pump-8/answers/valve", "denied"),
        (f"devices/{DEVICE}/inside", "denied"),
        (f"devices/{DEVICE}/shared", "denied"),
        (f"devices/{DEVICE}/state", "denied"),
        (f"devices/{DEVICE}/level", "bad_payload"),
        ("elsewhere/x", "unknown_topic"),
    ],
    ids=["not-readable", "somebody-elses", "not-out", "everybodys", "state", "not-its-type", "undeclared"],
)
async def test_an_answer_is_no_way_to_write_elsewhere(log_server: str, broker: Server, to: str, reason: str) -> None:
    async with site(log_server, broker) as at:
        with device(broker) as pump:
            await pump.subscribe(f"devices/{DEVICE}/answers/#")
            await asks(pump, {"do": "reject"}, b"x", to)
            await asks(pump, {"n": 1}, b"x", to)
            await eventually(lambda: at.refused(reason) == 2, within=60)
            assert len(at.seen) == 2, "what was asked is done; only the answer goes nowhere"
            step("the next one is answered, and it is the first that anybody hears")
            await asks(pump, {"n": 2}, b"y")
            (answer,) = await pump.until(1)
            assert told(answer, "CorrelationData") == b"y"
            topics = [
                record.event.topic
                for name in at.bridge.log.partitions()
                for record in await at.bridge.log.recent_deliveries(name, 100)
            ]
            assert to not in topics


async def test_who_asks_without_properties_or_for_a_fact_hears_nothing(log_server: str, broker: Server) -> None:
    async with site(log_server, broker) as at:
        with device(broker, version=MQTTv311) as old:
            await old.publish(ASK, b'{"n":1}')
            await eventually(lambda: len(at.seen) == 1, within=60)
        with device(broker) as pump:
            await pump.subscribe(f"devices/{DEVICE}/answers/#")
            await asks(pump, {}, b"x", topic=f"devices/{DEVICE}/told")
            await asks(pump, {"n": 2}, b"y")
            (answer,) = await pump.until(1)
            assert told(answer, "CorrelationData") == b"y"
            assert at.refused("denied") == 0

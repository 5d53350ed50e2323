"""Commands to devices: what journeys declare, publish and look at."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
from paho.mqtt.client import MQTTMessage

from gateway.adapters.log import Log
from gateway.core.declared import Declared, Topic
from gateway.core.event import Draft, Event, Meta
from tests.bridges import COMMANDS, GROUP
from tests.gateways import TOPICS, token
from tests.servers import DEVICE

OUT = (
    *TOPICS,
    COMMANDS,
    # No line of the broker's own rights: what devices may read here is made of the declaration.
    Topic(
        pattern="devices/{device}/wanted",
        key="{device}",
        write=("operator",),
        read=("device:{device}",),
        mqtt="out",
        retain=True,
    ),
    Topic(
        pattern="devices/{device}/responses/{name}",
        key="{device}",
        write=("device:{device}",),
        read=("user",),
        mqtt="in",
    ),
    Topic(pattern="news/{what}", payload="text", write=("operator",), read=("anyone",), mqtt="out"),
)
COMMAND, WANTED = f"devices/{DEVICE}/commands/open", f"devices/{DEVICE}/wanted"


async def post(edge: Any, topic: str, *payloads: Any) -> list[str]:
    """Publish by HTTP as an operator; returns the events' ids."""
    headers = {"Authorization": f"Bearer {token('root', kind='operator')}"}
    ids = []
    async with httpx.AsyncClient(base_url=edge.http, headers=headers, timeout=30) as http:
        for payload in payloads:
            body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            answer = await http.post(f"/topics/{topic}", content=body)
            assert answer.status_code == 201, answer.text
            ids.append(answer.json()["id"])
    return ids


async def append(log: Log, topic: str, *payloads: bytes, **meta: Any) -> None:
    found = Declared(OUT).find(topic)
    ts = time.time_ns() // 1_000_000
    drafts = [
        Draft(Event(topic, data, f"{time.time_ns()}-{n}", Meta(ts=ts, **meta)), found.key, retain=found.topic.retain)
        for n, data in enumerate(payloads)
    ]
    await log.append(found.partition, drafts, patient=True)


def told(message: MQTTMessage, name: str) -> Any:
    """A property of MQTT 5 by its name in paho, such as ``ContentType``; None where it is absent."""
    return getattr(message.properties, name, None)


def properties(message: MQTTMessage) -> dict[str, str]:
    """Its user properties."""
    return dict(told(message, "UserProperty"))


async def cursors(log: Log) -> bool:
    """Whether everything in the log has left."""
    states = [await log.groups.ask(name, GROUP) for name in Declared(OUT).partitions("devices")]
    return all(state.cursor == state.top for state in states)


async def begun(log: Log) -> bool:
    """Whether the bridge holds every partition that something may leave from: earlier events are not sent."""
    names = [name for app in ("devices", "news") for name in Declared(OUT).partitions(app)]
    return all([GROUP in await log.groups.names(name) for name in names])

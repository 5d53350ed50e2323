"""Who sees a fleet, asked of every door by what really comes: the device itself, viewers and operators, nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest

from gateway.testing.origin import SERVICES
from tests.deploy.mqtt_clients import Peer
from tests.devices.broker import WORD, Broker
from tests.devices.fleet import HOUR, WITHIN, Fleet
from tests.gateways import Client, client
from tests.journeys.event_source import Source, source
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEES = ("device:rt-a", "viewer:vic", "operator:root")
#: A customer of a shop, and another device.
SEES_NOT = ("user:ann", "device:rt-b")
_SHADOW = ("", "/delta", "/get", "/get/accepted", "/update", "/update/accepted", "/update/rejected")
TOPICS = [f"devices/rt-a/{name}" for name in ("telemetry", "status", "errors", "presence", "windows/temp", "alerts/rt")]
TOPICS += [f"devices/rt-a/shadow{name}" for name in _SHADOW]
#: What a device says itself.
SAYS = {f"devices/rt-a/{name}" for name in ("telemetry", "status", "shadow/get", "shadow/update")}
#: What they all meet, for whoever hopes that asking for more gives some.
WIDE = ("devices/+/telemetry", "devices/rt-a/#", "devices/+/alerts/+", "devices/#")
ROUTES = (
    "registry/rt-a",
    "storage/rt-a/latest",
    "storage/rt-a/series/temp",
    "storage/rt-a/losses",
    "analytics/rt-a/watermark",
    "shadow/rt-a",
)
#: Of the fleet as one: no device's.
FLEETS = ("registry/", "registry/reconcile", "alerting/rules", "alerting/rules/rt", "alerting/alerts", "shadow/")


def bearer(fleet: Fleet, who: str) -> str:
    """A token; for a device such as a plant's own issuer would make."""
    kind, _, name = who.partition(":")
    if kind != "device":
        return fleet.gateway.token(who)
    says = {"sub": name, "role": kind, "exp": int(time.time()) + 3600}
    return jwt.encode(says, fleet.gateway._secret, headers={"kid": SERVICES})


def door(fleet: Fleet, who: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {bearer(fleet, who)}"}
    return httpx.AsyncClient(base_url=fleet.gateway.url, headers=headers, timeout=WITHIN, trust_env=False)


@asynccontextmanager
async def measuring(fleet: Fleet) -> AsyncIterator[None]:
    """A rule, two devices, and by the end of the block something of every topic of theirs."""
    for name in ("rt-a", "rt-b"):
        await fleet.ask("POST", "/devices/registry/", {"device": name})  # it may be there
    rule = {"kind": "above", "devices": "rt-*", "metric": "temp", "threshold": 30}
    await fleet.done("PUT", "/devices/alerting/rules/rt", rule)
    yield
    await fleet.done("DELETE", "/devices/alerting/rules/rt")


async def flow(fleet: Fleet) -> None:
    for name in ("rt-a", "rt-b"):
        by = f"device:{name}"
        await fleet.gateway.publish(f"devices/{name}/status", {"state": "online", "boot": 1}, by=by)
        for seq in range(5):
            said = {"boot": "b", "seq": seq, "ts": HOUR + seq * 30_000, "m": {"temp": 31}}
            await fleet.gateway.publish(f"devices/{name}/telemetry", said, by=by)
        await fleet.gateway.publish(f"devices/{name}/telemetry", {"boot": 1, "seq": 1, "m": {}}, by=by)
        updates: list[dict[str, Any]] = [{"reported": {"at": time.time()}}, {"wrong": {}}]
        for update in updates:
            await fleet.gateway.publish(f"devices/{name}/shadow/update", update, by=by)
        await fleet.gateway.publish(f"devices/{name}/shadow/get", b"", by=by)
        await fleet.done("PATCH", f"/devices/shadow/{name}", {"desired": {"at": time.time()}})


async def test_over_websocket_and_event_streams_only_they_are_told(fleet: Fleet) -> None:
    url = fleet.gateway.url.replace("http", "ws") + "/connection/websocket"
    port = int(fleet.gateway.url.rpartition(":")[2])
    sockets: dict[str, Client] = {}
    streams: dict[str, list[Source]] = {}
    async with measuring(fleet), AsyncExitStack() as stack:
        for who in (*SEES, *SEES_NOT):
            sockets[who] = one = await stack.enter_async_context(client(url, bearer(fleet, who)))
            may = {filter: "error" not in await one.ask("subscribe", channel=filter) for filter in (*TOPICS, *WIDE)}
            assert [may[topic] for topic in TOPICS] == [who in SEES] * len(TOPICS), who
            assert may["devices/+/telemetry"] == (who in ("viewer:vic", "operator:root"))
            if who == "device:rt-b":
                assert "error" not in await one.ask("subscribe", channel="devices/rt-b/telemetry")
            headers = {"authorization": f"Bearer {bearer(fleet, who)}"}
            streams[who] = [
                await stack.enter_async_context(source(port, filter, headers=headers)) for filter in (*TOPICS, *WIDE)
            ]
        await flow(fleet)
        for who in SEES:
            for topic, stream in zip(TOPICS, streams[who], strict=False):
                await eventually(lambda stream=stream: stream.data(), within=WITHIN)
                await eventually(lambda who=who, topic=topic: topic in topics(sockets[who]), within=WITHIN)
        await eventually(lambda: "devices/rt-b/telemetry" in topics(sockets["device:rt-b"]), within=WITHIN)
        await fleet.rests()
        for who in SEES_NOT:
            assert not [topic for topic in topics(sockets[who]) if topic.startswith("devices/rt-a/")]
            assert all(stream.refused is not None and not stream.events for stream in streams[who]), who
        assert not topics(sockets["user:ann"])
        # A device may not ask for more than its own name, and gets nothing by the way.
        assert not [topic for topic in topics(sockets["device:rt-a"]) if topic.startswith("devices/rt-b/")]
        for who, socket in sockets.items():
            for topic in TOPICS:
                said = await socket.ask("history", channel=topic, limit=10)
                assert ("error" in said) == (who in SEES_NOT), (who, topic, said)


def topics(socket: Client) -> set[str]:
    return {push["pub"].get("tags", {}).get("topic", push["channel"]) for push in socket.pushes if "pub" in push}


async def test_over_http_only_they_read_what_is_and_what_was(fleet: Fleet) -> None:
    async with measuring(fleet):
        await flow(fleet)
        for topic in TOPICS:
            await fleet.gateway.event(topic, within=WITHIN)
        await fleet.rests()
        for who in (*SEES, *SEES_NOT):
            async with door(fleet, who) as http:
                asked = [f"/devices/{path}" for path in ROUTES]
                asked += [f"/topics/{topic}{what}" for topic in TOPICS for what in ("/history", "")]
                asked += [f"/topics/{quote(filter, safe='')}/history" for filter in WIDE]
                answers = {path: await http.get(path) for path in asked}
                fleets = [(await http.get(f"/devices/{path}")).status_code for path in FLEETS]
            right = 200 if who in SEES else 403
            seen = {path: answer.status_code for path, answer in answers.items() if not path.startswith("/topics/")}
            assert set(seen.values()) == {right}, (who, seen)
            assert set(fleets) == {200 if who in ("viewer:vic", "operator:root") else 403}, who
            for topic in TOPICS:
                history = answers[f"/topics/{topic}/history"]
                assert history.status_code == right, (who, topic)
                assert (len(publications(history)) > 0) == (who in SEES), (who, topic)
            for retained in ("status", "presence", "alerts/rt", "shadow", "shadow/delta"):
                assert answers[f"/topics/devices/rt-a/{retained}"].status_code == right, (who, retained)
            if who in SEES_NOT:
                assert not any(answer.is_success for answer in answers.values()), who
                assert not any('"temp"' in answer.text for answer in answers.values())
        async with fleet.gateway.client() as http:
            for path in (*ROUTES, *FLEETS):
                assert (await http.get(f"/devices/{path}")).status_code == 401, path


def publications(answer: httpx.Response) -> list[Any]:
    return list(answer.json().get("publications", []))


async def test_a_viewer_changes_nothing(fleet: Fleet) -> None:
    changes: list[tuple[str, str, Any]] = [
        ("POST", "registry/", {"device": "rt-c"}),
        ("POST", "registry/rt-a/suspend", None),
        ("DELETE", "registry/rt-a", None),
        ("POST", "registry/reconcile", None),
        ("PUT", "alerting/rules/rt", {"kind": "silent", "after": 1}),
        ("DELETE", "alerting/rules/rt", None),
        ("POST", "alerting/alerts/rt/rt-a/acknowledge", {}),
        ("PATCH", "shadow/rt-a", {"desired": {"every": 1}}),
        ("DELETE", "shadow/rt-a", None),
    ]
    for who in ("viewer:vic", *SEES_NOT, "device:rt-a"):
        async with door(fleet, who) as http:
            for method, path, body in changes:
                assert (await http.request(method, f"/devices/{path}", json=body)).status_code == 403, (who, path)
            for topic in TOPICS if who != "device:rt-a" else [one for one in TOPICS if one not in SAYS]:
                assert (await http.post(f"/topics/{topic}", json={})).status_code == 403, (who, topic)


async def test_over_websocket_a_device_says_nothing_in_the_name_of_another(fleet: Fleet) -> None:
    url = fleet.gateway.url.replace("http", "ws") + "/connection/websocket"
    reading = {"boot": "b", "seq": 1, "ts": HOUR, "m": {"temp": 31}}
    async with client(url, bearer(fleet, "device:ws-b")) as one:
        for topic, said in (
            ("telemetry", reading),
            ("status", {"state": "offline"}),
            ("registered", {"state": "deleted"}),
            ("errors", {"event": "x", "error": "y"}),
            ("shadow/update", {"reported": {}}),
            ("shadow/delta", {"version": 1, "state": {}}),
        ):
            to = f"devices/ws-a/{topic}"
            for asked in (
                await one.ask("publish", channel=to, data=said),
                await one.ask("rpc", method="publish", data={"topic": to, "data": said}),
                await one.ask("rpc", method="request", data={"topic": to, "data": said}),
                await one.ask("rpc", method=to, data=said),
            ):
                assert asked["error"]["code"] == 103, (to, asked)
        assert "error" not in await one.ask("publish", channel="devices/ws-b/telemetry", data=reading)
        asked = await one.ask("rpc", method="devices/ws-b/shadow/update", data={"reported": {"a": 1}, "token": "t"})
        assert asked["rpc"]["data"] == {"version": 1, "token": "t"}
        more = {"topic": "devices/ws-b/telemetry", "data": {**reading, "seq": 2}}
        assert "error" not in await one.ask("rpc", method="publish", data=more)
    assert len(await fleet.gateway.events("devices/ws-b/telemetry", 2, within=WITHIN)) == 2
    await fleet.rests()
    assert await fleet.gateway.events("devices/ws-a/#") == []
    assert (await fleet.get("/devices/storage/ws-a/latest"))["items"] == []


async def test_over_mqtt_neither_a_will_nor_what_is_retained_is_in_the_name_of_another(
    fleet: Fleet, broker: Broker
) -> None:
    words = {}
    for name in ("rt-m", "rt-n"):
        words[name] = (await fleet.done("POST", "/devices/registry/", {"device": name}))["password"]
    for name, word in words.items():
        (await broker.enters(name, word)).close()
    await asyncio.to_thread(_foreign, broker.port, words["rt-n"])


def _foreign(port: int, word: str) -> None:
    with (
        Peer("127.0.0.1", "gateway", WORD, port=port, client_id="hears") as hears,
        Peer("127.0.0.1", "gateway", WORD, port=port, client_id="comes later") as later,
    ):
        hears.subscribe("devices/#")
        for topic in ("status", "shadow/delta"):
            Peer("127.0.0.1", "rt-n", word, port=port, will=f"devices/rt-m/{topic}").vanish()
        Peer("127.0.0.1", "rt-n", word, port=port, will="devices/rt-n/status").vanish()
        assert hears.until("devices/rt-n/status") == []
        with Peer("127.0.0.1", "rt-n", word, port=port) as device:
            for topic in ("status", "telemetry", "errors"):
                assert device.publish(f"devices/rt-m/{topic}", retain=True) == 0x87  # Not authorized
            assert device.publish("devices/rt-n/telemetry", retain=True) == 0
            assert hears.until("devices/rt-n/telemetry") == ["devices/rt-n/status"]
            for filter in ("devices/rt-m/#", "devices/rt-n/#"):  # what is retained for the first comes before
                later.subscribe(filter)
            assert later.until("devices/rt-n/telemetry") == []
            device.publish("devices/rt-n/telemetry", b"", retain=True)

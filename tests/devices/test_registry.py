"""The registry: accounts that reach a real broker, over which readings come; what each device may; presence; errors."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cbor2
import msgpack
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.events import Presence
from devices.registry.broker import hashed, projected
from devices.registry.routes import Project
from devices.registry.tables import TIMER
from tests.deploy.mqtt_clients import Peer, Refused
from tests.devices.broker import Broker, bridged
from tests.devices.fleet import HOUR, WITHIN, Fleet
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_projection_leaves_other_accounts_alone() -> None:
    text = projected("gateway:$7$x\n# kept\npump:$7$old\ngone:$7$y\n", {"pump": "$7$new", "gone": None, "new": "$7$z"})
    assert text == "gateway:$7$x\n# kept\npump:$7$new\nnew:$7$z\n"
    assert projected(text, {"pump": "$7$new", "new": "$7$z"}) == text
    assert hashed("x") != hashed("x")


@contextmanager
def closing(*peers: Peer) -> Iterator[None]:
    try:
        yield
    finally:
        for peer in peers:
            peer.close()


def reading(seq: int) -> dict[str, Any]:
    return {"boot": 1, "seq": seq, "ts": HOUR, "m": {"temp": 1.5}}


async def test_a_device_comes_in_sends_in_every_encoding_and_touches_nothing_of_another(
    fleet: Fleet, broker: Broker
) -> None:
    words = {}
    for name in ("reg-a", "reg-b"):
        made = await fleet.done("POST", "/devices/registry/", {"device": name, "label": "hall"})
        words[name] = made["password"]
    a, b = [await broker.enters(name, word) for name, word in words.items()]
    async with bridged(fleet, broker):
        with closing(a, b):
            await asyncio.to_thread(_session, a, b)
            wrong = {"boot": 1, "seq": 9, "ts": 1, "m": {"temp": 1}}
            await asyncio.to_thread(a.publish, "devices/reg-a/telemetry", json.dumps(wrong).encode())
            await eventually(lambda: bool(a.got), within=WITHIN)
            ((topic, said),) = a.got
            assert topic == "devices/reg-a/errors"
            assert b"from when it arrived" in said
            await fleet.rests()
            assert b.got == []
        raw = await fleet.get(f"/devices/storage/reg-a/series/temp?begin={HOUR}")
        assert [one["seq"] for one in raw["items"]] == [1, 2, 3]
        assert (await fleet.get("/devices/storage/reg-b/latest")) == []
        # What b said in a's name, and what is no JSON, is nowhere; the bad one waits to be mended and replayed.
        letters = [one for one in await fleet.gateway.dead_letters() if one.topic == "devices/reg-a/telemetry"]
        assert sorted((one.group, one.reason) for one in letters) == [("", "schema"), ("devices.storage", "rejected")]
    said = await fleet.get("/devices/registry/reg-a")
    assert (said["state"], said["label"], said["online"], said["boot"]) == ("active", "hall", True, "1")
    assert said["seen"] > HOUR


def _session(a: Peer, b: Peer) -> None:
    assert a.subscribe("#") == 1
    assert b.subscribe("devices/reg-a/#") == 1  # the broker asks at each delivery
    assert a.publish("devices/reg-a/status", b'{"state": "online", "boot": 1}') == 0
    assert a.publish("devices/reg-a/telemetry", json.dumps(reading(1)).encode()) == 0
    nan = cbor2.dumps({"m": {"temp": float("nan")}})
    for kind, data in (("cbor", cbor2.dumps(reading(2))), ("msgpack", msgpack.packb(reading(3))), ("cbor", nan)):
        sent = a.paho.publish("devices/reg-a/telemetry", data, qos=1, properties=typed(f"application/{kind}"))
        sent.wait_for_publish(WITHIN)
    assert b.publish("devices/reg-a/telemetry", json.dumps(reading(4)).encode()) == 0x87  # Not authorized


def typed(kind: str) -> Any:
    made: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    made.ContentType = kind
    return made


async def test_suspended_it_is_cut_off_and_stays_out_until_it_is_resumed(fleet: Fleet, broker: Broker) -> None:
    word = (await fleet.done("POST", "/devices/registry/", {"device": "reg-s"}))["password"]
    peer = await broker.enters("reg-s", word)
    with closing(peer):
        await fleet.done("POST", "/devices/registry/reg-s/suspend")
        await eventually(peer.cut.is_set, within=WITHIN)
    await fleet.rests()
    broker.server.restart()
    (broker.folder / "pid").write_text(str(broker.server.pid))
    with pytest.raises(Refused):
        broker.peer("reg-s", word).close()
    await fleet.done("POST", "/devices/registry/reg-s/resume")
    (await broker.enters("reg-s", word)).close()
    new = (await fleet.done("POST", "/devices/registry/reg-s/rotate"))["password"]
    (await broker.enters("reg-s", new)).close()
    with pytest.raises(Refused):
        broker.peer("reg-s", word).close()
    await fleet.done("DELETE", "/devices/registry/reg-s")
    await eventually(lambda: "reg-s:" not in (broker.folder / "passwords").read_text(), within=WITHIN)
    assert (await fleet.ask("GET", "/devices/registry/reg-s")).status_code == 404
    told = [one.json()["state"] for one in await fleet.gateway.events("devices/reg-s/registered", 5)]
    assert told == ["active", "suspended", "active", "active", "deleted"]
    await fleet.done("POST", "/devices/registry/", {"device": "reg-s"})


async def test_a_lost_file_is_written_again_when_the_registry_is_back(fleet: Fleet, broker: Broker) -> None:
    async with fleet.gateway.away("devices.registry", killed=True):
        passwords = broker.folder / "passwords"
        before = passwords.read_text()
        passwords.write_text("".join(line + "\n" for line in before.splitlines() if line.startswith("gateway:")))
    word = (await fleet.done("POST", "/devices/registry/", {"device": "reg-l"}))["password"]
    (await broker.enters("reg-l", word)).close()
    assert set(before.splitlines()) <= set(passwords.read_text().splitlines())
    passwords.write_text(before)
    await fleet.done("POST", "/devices/registry/reconcile")
    await eventually(lambda: "reg-l:" in passwords.read_text(), within=WITHIN)
    passwords.write_text(before)
    await fleet.gateway.publish("devices/registry/project", Project(timer=True))  # as it comes by itself
    await eventually(lambda: "reg-l:" in passwords.read_text(), within=WITHIN)
    async with fleet.gateway.database("devices.registry") as db:
        assert await db.scalar(TIMER.select().with_only_columns(TIMER.c.due)) > time.time() * 1000


async def test_a_late_will_is_no_news(fleet: Fleet) -> None:
    for state, boot in (("online", 1), ("online", 2), ("offline", 1), ("offline", 2)):
        await fleet.gateway.publish("devices/reg-p/status", {"state": state, "boot": boot})
    await fleet.rests()
    told = [one.json(Presence) for one in await fleet.gateway.events("devices/reg-p/presence", 3)]
    assert [(one.online, one.boot) for one in told] == [(True, "1"), (True, "2"), (False, "2")]


async def test_devices_are_operators_to_change_and_come_in_pages(fleet: Fleet) -> None:
    for n in range(5):
        await fleet.done("POST", "/devices/registry/", {"device": f"zz-{n}"})
    await fleet.done("POST", "/devices/registry/zz-3/suspend")
    found, after = list[str](), ""
    while True:
        said = await fleet.get("/devices/registry/?limit=2" + (f"&after={after}" if after else ""), by="user:ann")
        found += [one["device"] for one in said["items"]]
        if (after := said["next"]) is None:
            break
    assert [name for name in found if name.startswith("zz")] == [f"zz-{n}" for n in range(5)]
    listed = (await fleet.get("/devices/registry/?state=suspended"))["items"]
    assert [one["device"] for one in listed] == ["zz-3"]
    asks: list[tuple[Callable[..., Any], str, str, Any, int]] = [
        (fleet.ask, "POST", "", {"device": "zz-1"}, 409),
        (fleet.ask, "POST", "", {"device": "gateway"}, 409),
        (fleet.ask, "POST", "", {"device": "Not/One"}, 422),
        (fleet.ask, "POST", "zz-1/explode", None, 404),
        (fleet.ask, "POST", "nobody/suspend", None, 404),
    ]
    for ask, method, path, body, status in asks:
        assert (await ask(method, f"/devices/registry/{path}", body)).status_code == status
        assert (await ask(method, f"/devices/registry/{path}", body, by="user:ann")).status_code == 403
        assert (await ask(method, f"/devices/registry/{path}", body, by="")).status_code == 401

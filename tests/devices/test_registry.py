"""The registry: accounts that reach a real broker, over which readings come; what each device may; presence; errors."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import msgpack
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.events import Presence
from devices.registry.broker import hashed, held, projected
from devices.registry.routes import Project
from devices.registry.tables import DEVICES, TIMER
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
        assert (await fleet.get("/devices/storage/reg-b/latest"))["items"] == []
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


async def test_a_process_id_that_is_no_brokers_is_told_and_tried_again(
    fleet: Fleet, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left over from before, of nobody, of somebody else: the broker would go on letting in whom it should not."""
    word = (await fleet.done("POST", "/devices/registry/", {"device": "reg-u"}))["password"]
    peer = await broker.enters("reg-u", word)
    assert await fleet.get("/devices/registry/reconcile", by="viewer:ann") == {"told": True, "why": ""}
    monkeypatch.setenv("DEVICES_BROKER_PID_FILE", str(tmp_path / "pid"))
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    with closing(peer):
        for text, why in (
            (None, "there is no"),
            ("soon", "invalid literal"),
            (str(gone.pid), "there is no /proc/"),
            (str(os.getpid()), "and no broker"),
        ):
            if text is not None:
                (tmp_path / "pid").write_text(text)
            await fleet.done("POST", "/devices/registry/reg-u/suspend")
            await fleet.rests()
            said: dict[str, Any] = {}

            async def heard(why: str = why, said: dict[str, Any] = said) -> bool:
                said.update(await fleet.get("/devices/registry/reconcile"))
                return why in said["why"]

            await eventually(heard, within=WITHIN)
            assert said["told"] is False
        assert not peer.cut.is_set()
        monkeypatch.undo()
        # As it comes by itself, and nothing changed since.
        await fleet.gateway.publish("devices/registry/project", Project(timer=True))
        await eventually(peer.cut.is_set, within=WITHIN)
    await fleet.rests()
    assert await fleet.get("/devices/registry/reconcile") == {"told": True, "why": ""}


async def test_what_was_read_before_another_wrote_is_not_written(fleet: Fleet, broker: Broker) -> None:
    """Who writes the file waits for the lock first, and reads then."""
    await fleet.done("POST", "/devices/registry/", {"device": "reg-o"})
    passwords = broker.folder / "passwords"
    await eventually(lambda: "reg-o:" in passwords.read_text(), within=WITHIN)
    async with held(str(broker.folder)):
        await fleet.gateway.publish("devices/registry/project", Project())
        await eventually(lambda: _waits(broker.folder), within=WITHIN)
        async with fleet.gateway.database("devices.registry") as db:
            await db.execute(DEVICES.update().where(DEVICES.c.device == "reg-o").values(state="suspended"))
    await eventually(lambda: "reg-o:" not in passwords.read_text(), within=WITHIN)
    await fleet.rests()
    assert "reg-o:" not in passwords.read_text()


def _waits(folder: Path) -> bool:
    """Whether two of this process have the folder open: who holds its lock, and who waits for it."""
    return sum(os.path.realpath(one) == str(folder.resolve()) for one in Path("/proc/self/fd").iterdir()) > 1


async def test_a_late_will_is_no_news(fleet: Fleet) -> None:
    for state, boot in (("online", 1), ("online", 2), ("offline", 1), ("offline", 2)):
        await fleet.gateway.publish("devices/reg-p/status", {"state": state, "boot": boot})
    await fleet.rests()
    told = [one.json(Presence) for one in await fleet.gateway.events("devices/reg-p/presence", 3)]
    assert [(one.online, one.boot) for one in told] == [(True, "1"), (True, "2"), (False, "2")]


#: A device that is born, and waits to be killed.
BORN = """
import sys
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
port, name, word, boot = sys.argv[1:]
paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
paho.username_pw_set(name, word)
topic = f"devices/{name}/status"
paho.will_set(topic, f'{{"state": "offline", "boot": {boot}}}', qos=1, retain=True)
paho.connect("127.0.0.1", int(port))
paho.loop_start()
paho.publish(topic, f'{{"state": "online", "boot": {boot}}}', qos=1, retain=True).wait_for_publish()
print("born", flush=True)
sys.stdin.read()
"""


async def test_a_device_that_is_killed_is_offline_by_its_will(fleet: Fleet, broker: Broker) -> None:
    word = (await fleet.done("POST", "/devices/registry/", {"device": "reg-w"}))["password"]
    (await broker.enters("reg-w", word)).close()
    pipe = asyncio.subprocess.PIPE
    async with bridged(fleet, broker):
        for count, boot in ((2, "7"), (4, "8")):
            argv = (sys.executable, "-c", BORN, str(broker.port), "reg-w", word, boot)
            device = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
            if device.stdout is None:
                raise OSError("no pipe")
            assert await device.stdout.readline() == b"born\n"
            await fleet.gateway.events("devices/reg-w/presence", count - 1, within=WITHIN)
            assert (await fleet.get("/devices/registry/reg-w"))["online"] is True
            device.kill()  # without DISCONNECT
            await device.wait()
            told = await fleet.gateway.events("devices/reg-w/presence", count, within=WITHIN)
            said = [(one.json(Presence).online, one.json(Presence).boot) for one in told]
            assert said[count - 2 :] == [(True, boot), (False, boot)]
    assert (await fleet.get("/devices/registry/reg-w"))["online"] is False


async def test_devices_are_operators_to_change_and_come_in_pages(fleet: Fleet) -> None:
    for n in range(5):
        await fleet.done("POST", "/devices/registry/", {"device": f"zz-{n}"})
    await fleet.done("POST", "/devices/registry/zz-3/suspend")
    found = [one["device"] for one in await fleet.pages("/devices/registry/?limit=2", by="viewer:ann")]
    assert [name for name in found if name.startswith("zz")] == [f"zz-{n}" for n in range(5)]
    listed = (await fleet.get("/devices/registry/?state=suspended&after=zz"))["items"]
    assert [one["device"] for one in listed] == ["zz-3"]
    asks: list[tuple[Callable[..., Any], str, str, Any, int]] = [
        (fleet.ask, "POST", "", {"device": "zz-1"}, 409),
        (fleet.ask, "POST", "", {"device": "gateway"}, 409),
        (fleet.ask, "POST", "", {"device": "reconcile"}, 409),
        (fleet.ask, "POST", "", {"device": "Not/One"}, 422),
        (fleet.ask, "POST", "zz-1/explode", None, 404),
        (fleet.ask, "POST", "nobody/suspend", None, 404),
    ]
    for ask, method, path, body, status in asks:
        assert (await ask(method, f"/devices/registry/{path}", body)).status_code == status
        assert (await ask(method, f"/devices/registry/{path}", body, by="viewer:ann")).status_code == 403
        assert (await ask(method, f"/devices/registry/{path}", body, by="")).status_code == 401


# The last with this broker: Mosquitto 2.0.11 crashed (SIGSEGV) in tests that came behind its restart.
async def test_suspended_it_is_cut_off_and_stays_out_until_it_is_resumed(fleet: Fleet, broker: Broker) -> None:
    word = (await fleet.done("POST", "/devices/registry/", {"device": "reg-s"}))["password"]
    peer = await broker.enters("reg-s", word)
    with closing(peer):
        await fleet.done("POST", "/devices/registry/reg-s/suspend")
        await eventually(peer.cut.is_set, within=WITHIN)
    await fleet.rests()
    broker.server.restart()
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

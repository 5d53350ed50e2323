"""Shadows over real MQTT and HTTP: a device hears what is wanted of it, whoever was away, and says what it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from devices import limits
from devices.events import Accepted, Delta, Document, Rejected
from tests.deploy.mqtt_clients import Peer
from tests.devices.broker import Broker, bridged
from tests.devices.fleet import WITHIN, Fleet
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def want(fleet: Fleet, device: str, desired: object, **more: Any) -> Any:
    return await fleet.done("PATCH", f"/devices/shadow/{device}", {"desired": desired, **more})


async def report(fleet: Fleet, device: str, said: object) -> None:
    await fleet.gateway.publish(f"devices/{device}/shadow/update", said, by=f"device:{device}")


async def test_a_device_that_comes_back_is_told_what_it_missed_and_another_hears_nothing(
    fleet: Fleet, broker: Broker
) -> None:
    words = {}
    for name in ("sh-a", "sh-b"):
        words[name] = (await fleet.done("POST", "/devices/registry/", {"device": name}))["password"]
    async with bridged(fleet, broker):
        await want(fleet, "sh-a", {"every": 5, "led": {"on": True, "color": "red"}})
        await want(fleet, "sh-a", {"led": {"color": None}})
        await fleet.gateway.events("devices/sh-a/shadow/delta", 2, within=WITHIN)
        peers = [await broker.enters(name, word) for name, word in words.items()]
        try:
            await _talk(fleet, *peers)
        finally:
            for peer in peers:
                peer.close()
    found = await fleet.get("/devices/shadow/sh-a")
    assert found["delta"] == {}
    assert (found["desired"], found["reported"]) == (
        {"every": 5, "led": {"on": True}},
        {"every": 5, "led": {"on": True}},
    )
    assert found["times"]["reported"]["every"] > found["times"]["desired"]["every"]


async def _talk(fleet: Fleet, a: Peer, b: Peer) -> None:
    assert b.subscribe("devices/sh-a/shadow/#") == 1  # the broker asks at each delivery
    assert a.subscribe("devices/sh-a/shadow/#") == 1
    await eventually(lambda: _told(a) == {"every": 5, "led": {"on": True}}, within=WITHIN)
    assert a.publish("devices/sh-a/shadow/update", json.dumps({"reported": {"every": 5}, "token": "one"}).encode()) == 0
    (accepted,) = await heard(a, "update/accepted", 1)
    assert accepted["token"] == "one"
    await eventually(lambda: _told(a) == {"led": {"on": True}}, within=WITHIN)
    assert b.publish("devices/sh-a/shadow/update", b'{"reported": {"every": 9}}') == 0x87  # Not authorized
    assert a.publish("devices/sh-a/shadow/update", b'{"reported": {"led": {"on": true}}}') == 0
    await eventually(lambda: _told(a) == {}, within=WITHIN)
    assert a.publish("devices/sh-a/shadow/get", b"") == 0
    (document,) = await heard(a, "get/accepted", 1)
    assert document["desired"] == document["reported"] == {"every": 5, "led": {"on": True}}
    assert b.got == []


def _told(peer: Peer) -> Any:
    """What the device has to do by what it heard last."""
    return next((said["state"] for said in reversed(heard_now(peer, "delta"))), None)


def heard_now(peer: Peer, what: str) -> list[Any]:
    return [json.loads(data) for topic, data in peer.got if topic.endswith(f"/shadow/{what}")]


async def heard(peer: Peer, what: str, count: int) -> list[Any]:
    await eventually(lambda: len(heard_now(peer, what)) >= count, within=WITHIN)
    return heard_now(peer, what)


async def test_whatever_is_wrong_with_an_update_is_told_and_is_no_dead_letter(fleet: Fleet) -> None:
    deep: dict[str, Any] = {}
    for _ in range(limits.SHADOW_DEPTH):
        deep = {"a": deep}
    await report(fleet, "sh-w", {"reported": {"a": 1}, "version": 0})
    wrong: list[tuple[object, str, str, int | None]] = [
        ([1], "bad_update", "Expected `object`", None),
        ({"reprted": {}, "token": "t"}, "bad_update", "unknown field `reprted`", None),
        ({"x" * 65_000: 1, "token": "t"}, "bad_update", "unknown field", None),
        ({"reported": 5, "token": 7}, "bad_update", "Expected `object | null`", None),
        ({"reported": {"a": 2}, "version": 0, "token": "t"}, "version_conflict", "of version 1, and not 0", 1),
        ({"reported": deep, "token": "t"}, "too_large", "deeper than 8", 1),
        ({"reported": {"a": "x" * limits.SHADOW_BYTES}, "token": "t"}, "too_large", "32768 are all", 1),
    ]
    for said, *_ in wrong:
        await report(fleet, "sh-w", said)
    answers = [
        one.json(Rejected)
        for one in await fleet.gateway.events("devices/sh-w/shadow/update/rejected", len(wrong), within=WITHIN)
    ]
    for (said, code, why, version), answer in zip(wrong, answers, strict=True):
        assert (answer.code, answer.version) == (code, version)
        assert why in answer.error
        assert answer.token == ("t" if isinstance(said, dict) and said["token"] == "t" else "")
    (taken,) = [one.json(Accepted) for one in await fleet.gateway.events("devices/sh-w/shadow/update/accepted")]
    assert taken == Accepted(1, "")
    assert (await fleet.get("/devices/shadow/sh-w"))["reported"] == {"a": 1}
    assert not [one for one in await fleet.gateway.dead_letters() if one.topic.startswith("devices/sh-w/")]


async def test_people_who_want_different_things_at_once_are_told(fleet: Fleet) -> None:
    first = await want(fleet, "sh-v", {"every": 5}, version=0)
    assert (first["version"], first["delta"]) == (1, {"every": 5})
    late = await fleet.ask("PATCH", "/devices/shadow/sh-v", {"desired": {"every": 9}, "version": 0})
    assert (late.status_code, late.json()["type"]) == (409, "urn:topic-gateway:version_conflict")
    assert "of version 1, and not 0" in late.json()["detail"]
    # Said again because its answer was lost.
    assert (await want(fleet, "sh-v", {"every": 5}, version=0))["version"] == 1
    assert (await want(fleet, "sh-v", None, version=1))["desired"] == {}
    nobody = {"device": "sh-n", "version": 0, "desired": {}, "reported": {}, "delta": {}}
    assert await fleet.get("/devices/shadow/sh-n") == {**nobody, "times": {"desired": {}, "reported": {}}}
    await fleet.done("DELETE", "/devices/shadow/sh-n")
    assert (await fleet.get("/devices/shadow/sh-n"))["version"] == 0
    asks: list[tuple[str, str, object, int]] = [
        ("PATCH", "sh-v", {}, 422),
        ("PATCH", "sh-v", {"desired": {}, "reported": {}}, 422),
        ("PATCH", "Not%20one", {"desired": {"a": 1}}, 404),
        ("PATCH", "sh-v", {"desired": {"a": "x" * limits.SHADOW_BYTES}}, 422),
        ("GET", "Sh-v", None, 404),
        ("DELETE", "Sh-v", None, 404),
    ]
    for method, path, body, status in asks:
        assert (await fleet.ask(method, f"/devices/shadow/{path}", body)).status_code == status, (path, body)
        right = status if method == "GET" else 403
        assert (await fleet.ask(method, f"/devices/shadow/{path}", body, by="viewer:ann")).status_code == right
        assert (await fleet.ask(method, f"/devices/shadow/{path}", body, by="")).status_code == 401


async def test_who_is_not_as_he_should_be_is_listed(fleet: Fleet) -> None:
    for n in range(5):
        await want(fleet, f"zz-{n}", {"every": 5})
    await report(fleet, "zz-2", {"reported": {"every": 5}})
    await fleet.rests()
    listed = await fleet.pages("/devices/shadow/?pending=true&limit=2", by="viewer:ann")
    found = [one["device"] for one in listed]
    assert [name for name in found if name.startswith("zz")] == ["zz-0", "zz-1", "zz-3", "zz-4"]
    (synced,) = (await fleet.get("/devices/shadow/?pending=false&after=zz"))["items"]
    assert (synced["device"], synced["version"]) == ("zz-2", 2)


async def test_killed_and_asked_from_two_sides_each_change_is_told_once_and_in_order(fleet: Fleet) -> None:
    """Versions as they leave: 1, 2, 3, … whoever died, and whoever changed it."""

    async def reports() -> None:
        for n in range(60):
            await report(fleet, "sh-k", {"reported": {"n": n}})

    async def wants() -> None:
        for n in range(20):

            async def taken(n: int = n) -> bool:  # not while nobody serves it
                return (await fleet.ask("PATCH", "/devices/shadow/sh-k", {"desired": {"n": n}})).is_success

            await eventually(taken, within=WITHIN)

    async def kills() -> None:
        for _ in range(2):
            async with fleet.gateway.away("devices.shadow", killed=True):
                await asyncio.sleep(0.1)

    await asyncio.gather(reports(), wants(), kills())
    await fleet.rests()
    now = await fleet.get("/devices/shadow/sh-k")
    assert (now["desired"], now["reported"], now["delta"]) == ({"n": 19}, {"n": 59}, {"n": 19})
    said = [one.json(Document) for one in await fleet.gateway.events("devices/sh-k/shadow", now["version"])]
    assert [one.version for one in said] == list(range(1, 81))
    assert [one.reported["n"] for one in said if "n" in one.reported] == sorted(
        one.reported["n"] for one in said if "n" in one.reported
    )
    assert len(await fleet.gateway.events("devices/sh-k/shadow/update/accepted")) == 60
    deltas = [one.json(Delta) for one in await fleet.gateway.events("devices/sh-k/shadow/delta", 20)]
    assert deltas[-1].state == {"n": 19}


async def test_a_device_of_the_same_name_does_not_inherit_what_was_wanted(fleet: Fleet) -> None:
    await fleet.done("POST", "/devices/registry/", {"device": "sh-d"})
    await want(fleet, "sh-d", {"every": 5})
    await report(fleet, "sh-d", {"reported": {"model": "old"}})
    await fleet.rests()
    await fleet.done("DELETE", "/devices/registry/sh-d")
    await fleet.rests()
    # It hears of it later, or was cut off with this on its way.
    await report(fleet, "sh-d", {"reported": {"model": "old"}, "desired": {"every": 1}})
    (told,) = await fleet.gateway.events("devices/sh-d/shadow/update/rejected", 1, within=WITHIN)
    assert (told.json(Rejected).code, told.json(Rejected).version) == ("deleted", 3)
    await fleet.done("POST", "/devices/registry/", {"device": "sh-d"})
    await fleet.rests()
    found = await fleet.get("/devices/shadow/sh-d")
    assert (found["version"], found["desired"], found["reported"]) == (3, {}, {})
    deltas = [one.json(Delta) for one in await fleet.gateway.events("devices/sh-d/shadow/delta", 2)]
    assert deltas[-1] == Delta(3, {})
    await want(fleet, "sh-d", {"every": 9})
    await report(fleet, "sh-d", {"reported": {"model": "new"}})
    await fleet.rests()
    assert (await fleet.get("/devices/shadow/sh-d"))["reported"] == {"model": "new"}
    await fleet.done("DELETE", "/devices/shadow/sh-d")
    assert (await fleet.get("/devices/shadow/sh-d"))["desired"] == {}

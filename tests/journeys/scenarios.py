"""What a client of the SDKs lives through, written once: `test_sdk_python` and `test_sdk_javascript` walk it all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import limits
from gateway.adapters.embedded import valkey
from tests.gateways import client, token
from tests.journeys.asking import ask_a_service
from tests.journeys.sdks import SdkError, Start
from tests.journeys.steps import step
from tests.journeys.world import World, world
from tests.servers import eventually

TOPIC = "devices/7/telemetry"


class Scene:
    """All that a scenario may use."""

    def __init__(self, at: World, start: Start, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.at, self.start, self.patch, self.folder = at, start, patch, folder


Scenario = Callable[[Scene], Awaitable[None]]
SCENARIOS: list[Scenario] = []


def scenario(walk: Scenario) -> Scenario:
    SCENARIOS.append(walk)
    return walk


def name_of(walk: Scenario) -> str:
    return getattr(walk, "__name__", "?")


def in_order_once(sdk_said: list[dict[str, Any]], want: list[Any]) -> None:
    assert [s["data"] for s in sdk_said] == want
    ids = [s["tags"]["id"] for s in sdk_said]
    assert len(set(ids)) == len(ids)


async def return_of(sdk: Any, line: Any) -> None:
    """Cut the line and wait until the SDK has noticed."""
    before = len(sdk.heard("connecting"))
    line.cut()
    await sdk.until("connecting", before + 1)


@scenario
async def a_cut_line(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        step("an SDK subscribes through a line and sees three readings")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        (first,) = await sdk.until("subscribed")
        assert first["recoverable"]
        await at.publish(TOPIC, range(3))
        await sdk.until("publication", 3)
        step("the line is cut; fifty readings come meanwhile, and some of a neighbour")
        at.line.target = 0
        await return_of(sdk, at.line)
        await at.publish(TOPIC, range(3, 53))
        await at.publish("devices/7/status", ["not", "asked", "for"])
        step("the line is whole again: the SDK comes back by itself and asks from its position")
        at.line.target = at.edge.port
        second = (await sdk.until("subscribed", 2))[1]
        assert (second["was_recovering"], second["recovered"]) == (True, True)
        assert second["epoch"] == first["epoch"]
        await sdk.until("publication", 53)
        await at.publish(TOPIC, [53])
        seen = await sdk.until("publication", 54)
        step("it saw every reading once, in order")
        in_order_once(seen, list(range(54)))


@scenario
async def many_missed_and_cut_again(scene: Scene) -> None:
    at = scene.at
    missed, filler = 450, "x" * 2_000
    async with scene.start() as sdk:
        step("an SDK subscribes, then the line is cut")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        await sdk.until("subscribed")
        at.line.target = 0
        await return_of(sdk, at.line)
        step(f"{missed} readings of 2 KB come: fourteen pages of recovery")
        await at.publish(TOPIC, ([n, filler] for n in range(missed)))
        step("the line comes back slowly, and is cut when some pages have come through")
        at.line.target = at.edge.port
        await sdk.until("publication", 40)
        at.line.hold()
        await return_of(sdk, at.line)
        at.line.release()
        step("the SDK comes back for the rest")
        await sdk.until("subscribed", 3)
        seen = await sdk.until("publication", missed)
        assert all(s["recovered"] for s in sdk.heard("subscribed")[1:])
        await at.publish(TOPIC, [[missed, ""]])
        seen = await sdk.until("publication", missed + 1)
        step("it saw all of them once, in order")
        in_order_once(seen, [[n, filler] for n in range(missed)] + [[missed, ""]])


@scenario
async def a_quiet_topic_in_a_busy_partition(scene: Scene) -> None:
    at = scene.at
    noise = at.neighbours(TOPIC, 10)
    async with scene.start() as sdk:
        step("an SDK watches a topic that says little, on an edge that keeps 100 events of the partition in memory")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        await sdk.until("subscribed")
        await at.publish(TOPIC, ["before"])
        await sdk.until("publication")
        for round_, said in enumerate(([], ["once"]), 1):
            at.line.target = 0
            await return_of(sdk, at.line)
            step(f"while it is away its partition takes 3,000 events of others and {len(said)} of its topic")
            await at.publish_all((noise[n % 10], n) for n in range(1_500))
            await at.publish(TOPIC, said)
            await at.publish_all((noise[n % 10], n) for n in range(1_500))
            at.line.target = at.edge.port
            back = (await sdk.until("subscribed", 1 + round_))[-1]
            assert back["recovered"], "its position is out of the window, and in the log"
        seen = await sdk.until("publication", 2)
        in_order_once(seen, ["before", "once"])


@scenario
async def an_unknown_epoch(scene: Scene) -> None:
    at = scene.at
    step("a second gateway stands on a log of its own")
    with valkey(scene.folder / "elsewhere") as elsewhere:
        async with world(elsewhere) as other, scene.start() as sdk:
            await sdk.connect(at.line.ws, token())
            await sdk.subscribe(TOPIC)
            (first,) = await sdk.until("subscribed")
            await at.publish(TOPIC, range(3))
            await sdk.until("publication", 3)
            await other.publish(TOPIC, ["of another history"])
            step("the line is cut, and leads to the other gateway when the SDK comes back")
            at.line.target = other.edge.port
            await return_of(sdk, at.line)
            second = (await sdk.until("subscribed", 2))[1]
            step("it is told that what it missed is unknown, and stands at the top of the new history")
            assert (second["was_recovering"], second["recovered"]) == (True, False)
            assert second["epoch"] != first["epoch"]
            await other.publish(TOPIC, ["live"])
            assert (await sdk.until("publication", 4))[3]["data"] == "live"


@scenario
async def an_unknown_epoch_strictly(scene: Scene) -> None:
    at = scene.at
    first, *_, last = await at.publish(TOPIC, range(5))
    good = {"offset": first.position.offset, "epoch": str(first.position.epoch)}
    async with scene.start() as sdk:
        step("an SDK asks its application for a position, and gets one of an epoch that nobody knows")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC, [{"offset": 3, "epoch": "12345"}, good])
        step("error 112 makes it ask the application again; from the second position it recovers")
        await sdk.until("get_state", 2)
        (back,) = await sdk.until("subscribed")
        assert (back["was_recovering"], back["recovered"]) == (True, True)
        seen = await sdk.until("publication", 4)
        in_order_once(seen, [1, 2, 3, 4])
        assert seen[-1]["offset"] == last.position.offset


@scenario
async def the_log_server_dies(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        step("an SDK watches; the log server keeps every acknowledged event on disk")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        (first,) = await sdk.until("subscribed")
        await at.publish(TOPIC, range(20))
        await sdk.until("publication", 20)
        step("SIGKILL to the log server, then a start on the same files")
        at.server.kill()
        await eventually(lambda: at.log.state == "down")
        at.server.start()
        step("a new epoch begins; the SDK is told to subscribe again (2500) and does")
        again = [s for s in await sdk.until("subscribing", 2) if s["code"] >= 2500]
        assert [s["code"] for s in again] == [2500]
        second = (await sdk.until("subscribed", 2))[1]
        assert (second["was_recovering"], second["recovered"]) == (True, True)
        assert int(second["epoch"]) > int(first["epoch"])
        await eventually(lambda: at.log.state == "up")
        await at.publish(TOPIC, range(20, 30))
        await sdk.until("publication", 30)
        step("cut and back: the new epoch is known, and what was missed comes")
        at.line.target = 0
        await return_of(sdk, at.line)
        await at.publish(TOPIC, range(30, 40))
        at.line.target = at.edge.port
        third = (await sdk.until("subscribed", 3))[2]
        assert third["recovered"]
        seen = await sdk.until("publication", 40)
        in_order_once(seen, list(range(40)))


@scenario
async def who_was_away_when_the_log_server_died(scene: Scene) -> None:
    at = scene.at
    scene.patch.setattr(limits, "WINDOW_ENTRIES", 5)  # so that the log is read over the change of epochs
    async with scene.start() as sdk:
        await sdk.connect(at.line.ws, token())
        for channel in (TOPIC, "devices/7/#"):
            await sdk.subscribe(channel)
            await sdk.until("subscribed", channel=channel)
        await at.publish(TOPIC, range(3))
        for channel in (TOPIC, "devices/7/#"):
            await sdk.until("publication", 3, channel)
        step("the line is cut; events come before and after a restart of the log server")
        at.line.target = 0
        await return_of(sdk, at.line)
        await at.publish(TOPIC, range(3, 23))
        at.server.kill()
        await eventually(lambda: at.log.state == "down")
        at.server.start()
        await eventually(lambda: at.log.state == "up", within=30)
        await at.publish(TOPIC, range(23, 43))
        at.line.target = at.edge.port
        step("it missed nothing of either")
        for channel in (TOPIC, "devices/7/#"):
            seen = await sdk.until("publication", 43, channel)
            in_order_once(seen, list(range(43)))
            assert sdk.heard("subscribed", channel)[1]["recovered"]


@scenario
async def wildcards_with_tags(scene: Scene) -> None:
    at = scene.at
    one, all_ = "devices/7/#", "devices/+/telemetry"
    async with scene.start() as sdk:
        step("an SDK watches all of one device (one partition) and the telemetry of all devices (many)")
        await sdk.connect(at.line.ws, token())
        for channel, recoverable in ((one, True), (all_, False)):
            await sdk.subscribe(channel)
            (said,) = await sdk.until("subscribed", channel=channel)
            assert said["recoverable"] is recoverable
        await at.publish(TOPIC, [1])
        await at.publish("devices/7/status", ["on"])
        await at.publish("devices/8/telemetry", [2])
        of_one, of_all = await sdk.until("publication", 2, one), await sdk.until("publication", 2, all_)
        step("a publication tells its concrete topic, its id and its time in tags")
        assert [s["tags"]["topic"] for s in of_one] == [TOPIC, "devices/7/status"]
        assert sorted(s["tags"]["topic"] for s in of_all) == [TOPIC, "devices/8/telemetry"]
        assert all(s["tags"]["id"] and int(s["tags"]["ts"]) > 0 for s in of_one + of_all)
        step("cut: the wildcard inside one partition recovers, the one across partitions says that it cannot")
        at.line.target = 0
        await return_of(sdk, at.line)
        await at.publish_all((TOPIC if n % 2 else "devices/7/status", n) for n in range(10))
        at.line.target = at.edge.port
        back = (await sdk.until("subscribed", 2, one))[1]
        assert (back["was_recovering"], back["recovered"]) == (True, True)
        in_order_once(await sdk.until("publication", 12, one), [1, "on", *range(10)])
        assert not (await sdk.until("subscribed", 2, all_))[1]["recovered"]


@scenario
async def in_a_hurry(scene: Scene) -> None:
    at = scene.at
    room = "rooms/1/messages"
    async with scene.start() as sdk:
        await sdk.connect(at.line.ws, token())
        await sdk.until("connected")
        step("subscribe, unsubscribe, subscribe without waiting")
        await sdk.subscribe(room)
        await sdk.unsubscribe(room)
        await sdk.hurry(room)
        await eventually(lambda: (sdk.heard("subscribed") or [{}])[-1] and len(at.edge.fanout) == 1)
        step("publish, and publish by rpc with an idempotency key, twice")
        await sdk.publish(room, {"text": "plain"})
        asked = {"topic": room, "data": {"text": "by rpc"}, "idempotency_key": "once"}
        stored, again = await sdk.rpc("publish", asked), await sdk.rpc("publish", asked)
        assert (stored["duplicate"], again["duplicate"]) == (False, True)
        assert (again["id"], again["offset"]) == (stored["id"], stored["offset"])
        await sdk.publish(room, {"text": "last"})
        seen = await sdk.until("publication", 3)
        in_order_once(seen, [{"text": "plain"}, {"text": "by rpc"}, {"text": "last"}])
        assert seen[1]["tags"]["id"] == stored["id"]
        assert len(sdk.heard("connecting")) == 1, "nothing of this costs the connection"
        step("what is refused says so: not ours to write (103), no such topic (102), no such method (104)")
        for code, call in (
            (103, sdk.publish("users/bob/inbox", "hello")),
            (102, sdk.publish("nowhere/at/all", "hello")),
            (104, sdk.rpc("levitate", {})),
        ):
            with pytest.raises(SdkError) as refused:
                await call
            assert refused.value.code == code


@scenario
async def a_service_answers(scene: Scene) -> None:
    async with scene.start() as sdk:
        await ask_a_service(scene.at, sdk)


@scenario
async def a_slow_reader(scene: Scene) -> None:
    at = scene.at
    rounds, filler = 40, "x" * 4_000
    async with scene.start() as sdk, client(at.direct, token("fast")) as fast:
        step("an SDK and a fast reader watch one topic; then the SDK's line stalls")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        await sdk.until("subscribed")
        await fast.ask("subscribe", channel=TOPIC)
        at.line.hold()
        closed_before = _slow_closes(at)
        sent = 0
        while _slow_closes(at) == closed_before and sent < rounds * 50:
            await at.publish(TOPIC, ([n, filler] for n in range(sent, sent + 50)))
            sent += 50
            await fast.until(sent)  # it has all of it while the other has none
        step(f"after {sent} events of 4 KB the edge gives up on it (3008); the fast reader has them all")
        assert _slow_closes(at) == closed_before + 1
        at.line.release()
        step("the line flows again: it comes back by itself and resumes without a gap")
        seen = await sdk.until("publication", sent)
        in_order_once(seen, [[n, filler] for n in range(sent)])
        assert all(s["recovered"] for s in sdk.heard("subscribed")[1:])


def _slow_closes(at: World) -> float:
    return float(at.edge.metrics_of.registry.get_sample_value("gateway_slow_closes_total") or 0.0)


@scenario
async def the_edge_restarts(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC)
        await sdk.until("subscribed")
        await at.publish(TOPIC, range(5))
        await sdk.until("publication", 5)
        port = at.edge.port
        step("the edge stops: it tells its clients to come back (3001)")
        await at.stop_edge()
        assert (await sdk.until("connecting", 2))[1]["code"] == 3001
        step("another begins on the same port, and events come before the SDK does")
        await at.start_edge(port)
        await at.publish(TOPIC, range(5, 25))
        back = (await sdk.until("subscribed", 2))[1]
        assert back["recovered"]
        in_order_once(await sdk.until("publication", 25), list(range(25)))


@scenario
async def many_channels_come_back_at_once(scene: Scene) -> None:
    at = scene.at
    topics = [f"devices/{n}/telemetry" for n in range(12)]
    filler = "x" * 1_000
    async with scene.start() as sdk:
        step("an SDK watches twelve topics, is cut, and each of them has 50 KB for it when it comes back")
        await sdk.connect(at.line.ws, token())
        for topic in topics:
            await sdk.subscribe(topic)
        await sdk.until("subscribed", len(topics))
        at.line.target = 0
        await return_of(sdk, at.line)
        await at.publish_all((topic, [n, filler]) for n in range(50) for topic in topics)
        at.line.target = at.edge.port
        step("six hundred kilobytes of recovery do not make it a slow reader")
        for topic in topics:
            in_order_once(await sdk.until("publication", 50, topic), [[n, filler] for n in range(50)])
        assert len(sdk.heard("subscribed")) == 2 * len(topics)
        assert _slow_closes(at) == 0


async def walk_it(walk: Scenario, start: Start, patch: pytest.MonkeyPatch, folder: Path) -> None:
    """One scenario in a world of its own."""
    patch.setattr(limits, "DRAIN_WITHIN", 0.5)
    if walk is a_quiet_topic_in_a_busy_partition:
        patch.setattr(limits, "WINDOW_ENTRIES", 100)
    with valkey(folder / "log") as server:
        async with world(server) as at:
            await walk(Scene(at, start, patch, folder))
    await asyncio.to_thread(shutil.rmtree, folder)

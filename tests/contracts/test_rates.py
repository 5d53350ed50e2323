"""Who asks too fast or comes too often hears it in a way that an SDK understands, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.core.rate import Rate
from gateway.errors import ServerMissing
from tests.contracts.sockets import ROOM, command, socket
from tests.gateways import SECRET, Client, Running, client, running_edge, token
from tests.journeys.sdks import SdkError, Start, javascript_sdk, python_sdk
from tests.servers import eventually, missing

#: As `gateway.toml` has it by default.
USUAL = Rate(limits.CLIENT_MESSAGES, limits.CLIENT_BURST)
#: So slow that no test waits for a token by accident.
HARDLY = Rate(0.001, 3)


def counted(edge: Running, door: str) -> float:
    registry = edge.edge.metrics_of.registry
    return registry.get_sample_value("gateway_rate_limited_total", {"door": door}) or 0.0


def publish(id: int, n: int) -> dict[str, Any]:
    return command(id, "publish", channel=ROOM, data=n)


# --- commands -------------------------------------------------------------------------------------------------------


async def test_a_command_too_many_hears_111_and_the_connection_stays(log_url: str) -> None:
    async with running_edge(log_url, rate=HARDLY) as edge, socket(edge) as one:
        for id in (2, 3):
            assert "error" not in await one.ask(publish(id, id))
        error = (await one.ask(publish(4, 4)))["error"]
        assert (error["code"], error["temporary"]) == (111, True)
        assert "error" not in await one.ask(command(5, "subscribe", channel=ROOM)), "a subscribe is free"
        assert counted(edge, "command") == 1
        refused = edge.edge.metrics_of.registry.get_sample_value("gateway_refused_total", {"code": "too_fast"})
        assert refused == 1
        async with socket(edge) as other:
            assert "error" not in await other.ask(publish(2, 5)), "nobody else hears of it"


async def test_what_was_refused_is_not_in_the_log_and_what_was_not_is(log_url: str) -> None:
    async with running_edge(log_url, rate=Rate(20, 10)) as edge, socket(edge) as one:
        await one.say("\n".join(json.dumps(publish(n, n)) for n in range(2, 60)))
        replies = [await one.hear() for _ in range(2, 60)]
        taken = {reply["id"] for reply in replies if "error" not in reply}
        assert 9 <= len(taken) < 58
        assert {reply["error"]["code"] for reply in replies if "error" in reply} == {111}
        async with client(edge.ws, token("bob")) as bob:
            history = (await bob.ask("history", channel=ROOM, limit=-1))["history"]
        assert {pub["data"] for pub in history["publications"]} == taken


async def test_who_comes_back_to_all_his_topics_at_once_is_let(log_url: str) -> None:
    async with running_edge(log_url, rate=USUAL) as edge, socket(edge) as one:
        channels = [f"devices/{n}/telemetry" for n in range(limits.SUBSCRIPTIONS)]
        frame = "\n".join(json.dumps(command(n, "subscribe", channel=c)) for n, c in enumerate(channels, 2))
        await one.say(frame)
        assert all(["subscribe" in await one.hear() for _ in channels])
        # The server ends them all for the client to come back, which is not the client's haste.
        for asked in list(edge.edge._clients):
            for channel in channels:
                asked.unsubscribed(channel, 2500)
        assert {(await one.hear())["push"]["unsubscribe"]["code"] for _ in channels} == {2500}
        await one.say(frame)
        assert all(["subscribe" in await one.hear() for _ in channels])
        assert counted(edge, "command") == 0


async def test_a_flood_closes_with_a_code_by_which_sdks_come_back(log_url: str) -> None:
    async with running_edge(log_url, rate=HARDLY) as edge, socket(edge) as one:
        await one.say("\n".join(json.dumps(command(n, "rpc", method="none")) for n in range(2, 200)))
        assert await one.ended() == 3013
        assert counted(edge, "command") == HARDLY.burst * limits.FLOOD
        async with socket(edge) as again:
            assert "error" not in await again.ask(publish(2, 1))


@pytest.mark.parametrize(("kind", "name"), [("operator", "mary")])
async def test_operators_are_not_held_up(log_url: str, kind: str, name: str) -> None:
    async with running_edge(log_url, rate=HARDLY) as edge, client(edge.ws, token(name, kind=kind)) as one:
        for n in range(20):
            assert "error" not in await one.ask("publish", channel=ROOM, data=n)


SDKS: dict[str, Start] = {
    "python, json": python_sdk,
    "javascript, json": javascript_sdk,
    "javascript, protobuf": partial(javascript_sdk, protobuf=True),
}


@pytest.mark.parametrize("sdk", SDKS)
async def test_an_sdk_tells_of_a_publish_and_subscribes_again_by_itself(
    log_url: str, sdk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SUBSCRIPTIONS", 1)  # so many subscribes are free
    monkeypatch.setattr(limits, "FLOOD", 1_000)  # tests try again sooner than people do
    async with running_edge(log_url, rate=Rate(4, 4)) as edge, AsyncExitStack() as stack:
        try:
            one = await stack.enter_async_context(SDKS[sdk]())
        except ServerMissing as error:
            missing(error)
        await one.connect(edge.ws, token())
        await one.until("connected")
        await one.subscribe(ROOM)
        await one.until("subscribed", channel=ROOM)

        async def taken(n: int) -> bool:
            try:
                await one.publish(ROOM, n)
            except SdkError as error:
                if error.code != 111:
                    raise
                return False  # it is the application that tries again
            return True

        done = await asyncio.gather(*(taken(n) for n in range(12)))
        assert 0 < sum(done) < 12
        for n in (n for n in range(12) if not done[n]):
            await eventually(lambda n=n: taken(n), 60)
        await eventually(lambda: len(one.data(ROOM)) >= 12)
        assert sorted(one.data(ROOM)) == list(range(12)), "each that was acknowledged, once"

        times = 1

        async def refused_at_first() -> bool:
            nonlocal times
            times += 1
            await asyncio.gather(*(taken(99) for _ in range(6)))
            await one.unsubscribe(ROOM)
            await one.subscribe(ROOM)
            await one.until("subscribed", times, channel=ROOM)
            return bool(one.heard("error", ROOM))

        await eventually(refused_at_first, 60)
        assert not one.heard("disconnected")
        assert len(one.heard("connected")) == 1


# --- connections ----------------------------------------------------------------------------------------------------

MOST = 10


async def refused(one: Client, jwt: str) -> int:
    """Try to connect as an SDK does, until it is closed for good; return the code."""

    async def closed() -> bool:
        try:
            assert (await one.ask("connect", token=jwt))["error"]["code"] == 111
        except (ConnectionError, websockets.ConnectionClosed):
            return True
        return False

    await eventually(closed)
    return await one.closed()


async def test_one_connection_too_many_is_closed_for_good(log_url: str) -> None:
    async with running_edge(log_url, connections_per_user=MOST) as edge, AsyncExitStack() as stack:
        there = [await stack.enter_async_context(client(edge.ws, token())) for _ in range(MOST)]
        async with client(edge.ws) as eleventh:
            assert await refused(eleventh, token()) == 3504
        assert counted(edge, "connection") == 1
        for one in there:
            assert "publish" in await one.ask("publish", channel=ROOM, data=1)
        # Everybody else comes in, and so does the user once a connection has ended.
        others = [token("bob"), token("alice", kind="viewer")]
        for jwt in others:
            await stack.enter_async_context(client(edge.ws, jwt))
        await there[0].connection.close()
        await eventually(lambda: len(edge.edge._clients) == MOST - 1 + len(others))
        await stack.enter_async_context(client(edge.ws, token()))


@pytest.mark.parametrize("sdk", ["python, json", "javascript, json"])
async def test_an_sdk_gives_a_connection_too_many_up(log_url: str, sdk: str) -> None:
    async with (
        running_edge(log_url, connections_per_user=1) as edge,
        client(edge.ws, token()),
        AsyncExitStack() as stack,
    ):
        try:
            one = await stack.enter_async_context(SDKS[sdk]())
        except ServerMissing as error:
            missing(error)
        await one.connect(edge.ws, token())
        assert [(said["code"], said["reason"]) for said in await one.until("disconnected")] == [
            (3504, "connection limit")
        ]
        assert one.heard("error"), "it tried again before"
        assert not one.heard("connected")


async def test_a_line_that_broke_without_a_word_keeps_nobody_out(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PONG_WITHIN", 3.0)
    async with running_edge(log_url, connections_per_user=2) as edge, AsyncExitStack() as stack:
        live = await stack.enter_async_context(client(edge.ws, token()))
        ghost = await stack.enter_async_context(socket(edge))  # it never answers a ping
        newcomer = await stack.enter_async_context(client(edge.ws))
        answers: list[Any] = []

        async def came() -> bool:
            answers.append(await newcomer.ask("connect", token=token()))
            return "connect" in answers[-1]

        await eventually(came)
        assert {answer["error"]["code"] for answer in answers[:-1]} == {111}
        assert await ghost.ended() == 3012
        assert "publish" in await live.ask("publish", channel=ROOM, data=1)


@pytest.mark.parametrize("who", ["operator", "nobody"])
async def test_operators_and_nobody_in_particular_have_any_number(log_url: str, who: str) -> None:
    jwt = token("mary", kind="operator") if who == "operator" else ""
    async with (
        running_edge(log_url, anonymous=True, connections_per_user=2) as edge,
        AsyncExitStack() as stack,
    ):
        for _ in range(5):
            await stack.enter_async_context(client(edge.ws, jwt))


# --- HTTP -----------------------------------------------------------------------------------------------------------


async def test_publishes_by_http_are_counted_by_principal(log_url: str) -> None:
    async with running_edge(log_url, rate=HARDLY) as edge, httpx.AsyncClient(base_url=edge.http) as http:

        async def post(jwt: str) -> httpx.Response:
            return await http.post(f"/topics/{ROOM}", json=1, headers={"Authorization": f"Bearer {jwt}"})

        assert [(await post(token())).status_code for _ in range(3)] == [201] * 3
        answer = await post(token())
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:topic-gateway:too_fast")
        assert int(answer.headers["retry-after"]) == 1000
        assert counted(edge, "http") == 1
        assert (await post(token("bob"))).status_code == 201
        assert [(await post(token("mary", kind="operator"))).status_code for _ in range(5)] == [201] * 5


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bounds", "limited"), [((2, 3, 1), True), ((0, 1, 0), False)], ids=["low", "off"])
async def test_an_edge_has_the_bounds_of_its_settings(
    log_url: str, tmp_path: Path, bounds: tuple[int, int, int], limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text(
        f'log.url = "{log_url}"\n'
        f'tokens.hs256_secret_file = "secret"\n'
        "[edge]\nport = {}\nmessages_per_second = {}\nmessage_burst = {}\nconnections_per_user = {}\n"
        '[[topics]]\npattern = "rooms/{{room}}/messages"\nread = ["user"]\nwrite = ["user"]\n'.format(
            port := embedded.free_port(), *bounds
        )
    )
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_bytes(SECRET)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    livez = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    door = Door(f"http://127.0.0.1:{port}", port=port, asks=livez, expects=b"HTTP/1.1 200")
    argv = (sys.executable, "-m", "gateway.cli", "edge", "--config", str(tmp_path / "gateway.toml"))
    (tmp_path / "edge").mkdir()
    with Server(Plan("edge", argv, tmp_path / "edge", (door,))):
        url = f"ws://127.0.0.1:{port}/connection/websocket"
        async with client(url, token()) as one, client(url) as other:
            codes = {(await one.ask("rpc", method="none"))["error"]["code"] for _ in range(20)}
            assert (111 in codes) == limited
            if limited:
                assert await refused(other, token()) == 3504
            else:
                assert "connect" in await other.ask("connect", token=token())

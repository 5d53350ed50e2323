"""Several edges on one port: clients land on all of them, what concerns a client finds it, and deaths cost nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.tokens import add_api_key
from gateway.cli.shown import Shown
from gateway.cli.sub import Subscriber
from gateway.cli.target import Target
from tests.gateways import Client, client
from tests.servers import eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes share a port on Linux alone")

PROGRAM = (sys.executable, "-m", "gateway.cli")
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TOPICS = """
[[topics]]
pattern = "numbers/{n}"
key = "{n}"
write = ["anyone"]
read = ["anyone"]
"""
#: All on one edge with the chance 2 ** -31: by then something is wrong.
MOST = 32


async def connections(edge: str) -> int:
    async with httpx.AsyncClient() as http:
        found = re.findall(r"(?m)^gateway_connections{.*} (\S+)", (await http.get(f"{edge}/metrics")).text)
        return round(sum(map(float, found)))


async def until_on_each(edges: list[str], connect: Any) -> int:
    """Call ``connect`` until there are clients on each of ``edges``; return how many there are."""
    for n in range(1, MOST + 1):
        await connect()
        if n >= 8 and all([await connections(edge) for edge in edges]):
            return n
    pytest.fail(f"{MOST} clients, and one of {edges} has none")


class Pair:
    """Two `gateway edge` on one port, each with an address of its own for probes."""

    def __init__(self, folder: Path, log: str) -> None:
        self.port = embedded.free_port()
        (folder / "gateway.toml").write_text(TOPICS)
        env = {"GATEWAY_LOG_URL": log, "GATEWAY_EDGE_PORT": str(self.port), "GATEWAY_EDGE_ANONYMOUS": "true"}
        env["GATEWAY_EDGE_CONNECTIONS_PER_USER"] = "0"  # a crowd is one user here
        os.environ.update(env | {"GATEWAY_DATA": str(folder)})  # the fixture puts them back
        self.key = add_api_key(folder / "api.keys", "backend")
        self.own = [f"http://127.0.0.1:{embedded.free_port()}" for _ in range(2)]
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}/connection/websocket"
        self.servers: list[Server] = []
        for n, own in enumerate(self.own):
            at = own.removeprefix("http://")
            door = Door(own, port=int(at.rpartition(":")[2]), asks=LIVEZ, expects=b"HTTP/1.1 200")
            config = str(folder / "gateway.toml")
            argv = (*PROGRAM, "edge", "--reuse-port", "--health", at, "--config", config)
            data = folder / f"edge-{n}"
            data.mkdir()
            self.servers.append(Server(Plan("edge", argv, data, (door,))))

    async def has(self) -> list[int]:
        return [await connections(own) for own in self.own]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    for name in ("LOG_URL", "EDGE_PORT", "EDGE_ANONYMOUS", "EDGE_CONNECTIONS_PER_USER", "DATA"):
        monkeypatch.setenv(f"GATEWAY_{name}", "")
    with embedded.valkey(tmp_path / "log") as log:
        two = Pair(tmp_path, log.url)
        try:
            yield two
        finally:
            for server in two.servers:
                server.stop()


@asynccontextmanager
async def crowd(pair: Pair, jwt: str) -> AsyncIterator[list[Client]]:
    """Clients of one user on both edges, subscribed."""
    clients: list[Client] = []
    async with AsyncExitStack() as stack:

        async def connect() -> None:
            one = await stack.enter_async_context(client(pair.ws, jwt))
            assert "subscribe" in await one.ask("subscribe", channel="numbers/1")
            clients.append(one)

        await until_on_each(pair.own, connect)
        yield clients


async def command(folder: Path, *words: str) -> str:
    asked = await asyncio.to_thread(
        subprocess.run, [*PROGRAM, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return asked.stdout.strip()


async def test_what_concerns_a_client_finds_it_on_whichever_edge_it_is(pair: Pair, tmp_path: Path) -> None:
    jwt = await command(tmp_path, "token", "--sub", "crowd")
    async with crowd(pair, jwt) as clients, httpx.AsyncClient(base_url=pair.http) as http:
        assert sum(await pair.has()) == len(clients)

        assert (await http.post("/topics/numbers/1", json={"n": 1})).status_code == 201
        for one in clients:
            assert (await one.until(1))[0]["pub"]["data"] == {"n": 1}

        async def api(method: str, **asked: object) -> dict[str, Any]:
            headers = {"x-api-key": pair.key, "connection": "close"}
            result: dict[str, Any] = (await http.post(f"/api/{method}", json=asked, headers=headers)).json()["result"]
            return result

        # A beat later each edge has told of its clients, and whichever is asked knows of both.
        await eventually(lambda: told(api, len(clients)), 60)

        assert await api("unsubscribe", user="crowd", channel="numbers/1") == {}
        for one in clients:
            assert (await one.until(2))[1]["unsubscribe"]["code"] == 2000
        assert await api("disconnect", user="crowd") == {}
        assert {await one.closed() for one in clients} == {3503}
        await eventually(lambda: empty(pair), 60)


async def told(api: Any, clients: int) -> bool:
    nodes = (await api("info"))["nodes"]
    return len(nodes) == 2 and sum(node["num_clients"] for node in nodes) == clients


async def empty(pair: Pair) -> bool:
    return await pair.has() == [0, 0]


async def test_an_edge_that_ends_takes_no_more_and_leaves_the_others_alone(pair: Pair, tmp_path: Path) -> None:
    jwt = await command(tmp_path, "token", "--sub", "crowd")
    async with crowd(pair, jwt) as clients:
        leaving, staying = await pair.has()
        os.kill(pair.servers[0].pid, signal.SIGTERM)
        await eventually(lambda: any(one.close_code for one in clients), 60)
        # It told the first client to come back; from then on it gets no part of those who come.
        for _ in range(16):
            async with client(pair.ws, jwt) as one:
                assert "subscribe" in await one.ask("subscribe", channel="numbers/2")
        await eventually(lambda: [one.close_code for one in clients].count(3001) == leaving, 60)
        await eventually(lambda: not pair.servers[0].alive, 60)
        assert pair.servers[0].ended == 0
        assert sum(one.close_code is None for one in clients) == staying
        # Started again, it gets its part again.
        pair.servers[0].start()
        async with AsyncExitStack() as stack:
            await until_on_each(pair.own, lambda: stack.enter_async_context(client(pair.ws, jwt)))


def test_a_port_that_is_none_is_shared_by_nobody(tmp_path: Path) -> None:
    env = ENV | {"GATEWAY_LOG_URL": "unix:///nowhere.sock", "GATEWAY_EDGE_PORT": "0", "GATEWAY_DATA": str(tmp_path)}
    with embedded.valkey(tmp_path / "log") as log:
        env["GATEWAY_LOG_URL"] = log.url
        words = [*PROGRAM, "edge", "--reuse-port"]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("edge.port = 0 is another port for each process; name the port that they share\n")


def started(folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*PROGRAM, "edge"], cwd=folder, env=env)


async def test_an_edge_of_several_waits_for_its_log_server_without_taking_clients(tmp_path: Path) -> None:
    port, at = embedded.free_port(), embedded.free_port()
    env = ENV | {"GATEWAY_LOG_URL": f"unix://{tmp_path}/log/valkey.sock", "GATEWAY_EDGE_PORT": str(port)}
    env |= {"GATEWAY_DATA": str(tmp_path), "GATEWAY_EDGE_PROCESSES": "2", "GATEWAY_HEALTH": f"127.0.0.1:{at}"}
    process = started(tmp_path, env)

    def ready(at: int, code: int) -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{at}/readyz").status_code == code
        except httpx.TransportError:
            return False

    try:
        await eventually(lambda: ready(at, 503), 60)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        with embedded.valkey(tmp_path / "log"):
            await eventually(lambda: ready(at, 200), 60)
            assert ready(port, 200)
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


# --- gateway up ------------------------------------------------------------------------------------------------------


class Up:
    """`gateway up` with two edges."""

    def __init__(self, folder: Path) -> None:
        (folder / "gateway.toml").write_text("[edge]\nprocesses = 2\nanonymous = true\n" + TOPICS)
        self.out = folder / "up.out"
        env = ENV | {"GATEWAY_DATA": str(folder / "data"), "GATEWAY_EDGE_PORT": str(embedded.free_port())}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen([*PROGRAM, "up"], env=env, cwd=folder, stdout=out, stderr=out)

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def began(self) -> bool:
        assert self.process.poll() is None, self.said
        return "Try next" in self.said

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.said)
        assert match, self.said
        return match[1]

    def pid(self, own: str) -> int:
        """The process whose own address is ``own``."""
        address = own.removeprefix("http://").encode()
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = line.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"gateway.cli" in words and address in words:
                return int(line.parent.name)
        raise AssertionError(f"no process has {own}: {self.said}")


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    running = Up(tmp_path)
    try:
        await eventually(running.began, 60)
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(60) == 0


class Watcher:
    """`gateway sub`, in this process: what it shows and what it says."""

    def __init__(self, edge: str) -> None:
        self.events: list[Shown] = []
        self.notes: list[str] = []
        self._subscriber = Subscriber(Target(edge, ""), ["numbers/1"], self.events.append, self.notes.append)
        self.task = asyncio.create_task(self._subscriber.run(), name="watcher")

    def watches(self) -> bool:
        assert not self.task.done(), self.notes
        return self._subscriber._places[0].told


async def publish(edge: str, n: int) -> None:
    """One number, once: asked again, with the key of the first try, while nobody answers."""
    while True:
        try:
            async with httpx.AsyncClient(base_url=edge) as http:
                done = await http.post("/topics/numbers/1", json=n, headers={"idempotency-key": f"n-{n}"})
        except httpx.TransportError:
            continue
        if done.status_code in (200, 201):
            return


async def test_a_killed_edge_costs_its_clients_nothing_and_the_others_not_even_a_moment(up: Up) -> None:
    edge = up.found(r"HTTP, SSE +(\S+)")
    owns = [up.found(rf"health +edge-{n}: (\S+)/readyz") for n in (1, 2)]
    watchers: list[Watcher] = []

    async def watch() -> None:
        watchers.append(Watcher(edge))
        await eventually(watchers[-1].watches, 60)

    try:
        await until_on_each(owns, watch)
        cut = await connections(owns[0])
        before = [up.pid(own) for own in owns]
        for n in range(10):
            await publish(edge, n)
        await eventually(lambda: all(len(one.events) == 10 for one in watchers), 60)
        os.kill(before[0], signal.SIGKILL)
        for n in range(10, 60):
            await publish(edge, n)
        await eventually(lambda: "edge-1 is back" in up.said, 60)
        await publish(edge, 60)
        await eventually(lambda: all(len(one.events) >= 61 for one in watchers), 60)
        for one in watchers:
            assert [json.loads(event.json())["data"] for event in one.events] == list(range(61)), one.notes
        assert sum(any(note.startswith("cut off") for note in one.notes) for one in watchers) == cut
        assert up.pid(owns[1]) == before[1]
        assert up.pid(owns[0]) != before[0]
        assert up.said.count("edge-1 was killed (signal 9); starting it again\n") == 1
    finally:
        for one in watchers:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in watchers), return_exceptions=True)

"""Accounts of the log server: each role does all of its work with its own, and nothing that is another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_client

from gateway import App, Context, Rejected, Service, Topic
from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.adapters.log import Log
from gateway.adapters.log.rights import ROLES
from gateway.app import declare, services
from gateway.settings import Settings
from gateway.worker import Worker
from tests.bridges import COMMANDS, TELEMETRY, device, options, running_bridge, stored
from tests.gateway.test_cli import Place
from tests.gateways import TOPICS, app_logs, client, running_edge, token
from tests.letters import door
from tests.servers import DEVICE, eventually

ASK = Topic(pattern="rooms/{room}/ask", kind="command", write=("operator",))
LOBBY = Topic(pattern="rooms/lobby", write=("user",), read=("user", "operator"), presence=True)
ALL = (*TOPICS, COMMANDS, ASK, LOBBY)
CONFIG = """
[gateway]
name = "gateway"
[log]
url = "redis://127.0.0.1:{port}/0"
username = "operator"
password_file = "accounts/operator.password"
[[topics]]
pattern = "devices/{{device}}/telemetry"
[[topics]]
pattern = "rooms/{{room}}/messages"
[[topics]]
pattern = "users/{{user}}/inbox"
[[topics]]
pattern = "try/#"
"""

Start = Callable[..., Server]


class Accounts:
    """A log server that takes nobody without an account, and a folder whose gateway.toml names the operator's."""

    def __init__(self, place: Place, port: int) -> None:
        self.place, self.port = place, port

    def url(self, role: str) -> str:
        word = (self.place.folder / "accounts" / f"{role}.password").read_text().strip()
        return f"redis://{role}:{word}@127.0.0.1:{self.port}/0"

    def of(self, role: str) -> redis_client.Redis:
        # Its own CLIENT SETINFO would be counted as refused.
        return redis_client.Redis.from_url(self.url(role), driver_info=None)


@pytest.fixture
def accounts(tmp_path: Path, fresh_log_server: Start) -> Accounts:
    place, port = Place(tmp_path), embedded.free_port()
    place.write(CONFIG.format(port=port))
    said = place.run("log-credentials", "accounts")
    assert said.returncode == 0, said.stderr
    assert [line.split()[0] for line in said.stdout.splitlines()] == list(ROLES)
    assert "wrote the access list of the log server" in said.stderr
    fresh_log_server(port=port, extra=[f'aclfile "{tmp_path}/accounts/users.acl"'])
    return Accounts(place, port)


async def test_each_role_does_its_work_and_nothing_is_refused(accounts: Accounts, mosquitto: Start) -> None:
    broker, place, taken = mosquitto(), accounts.place, []
    service = Service("guard")

    @service.on(ASK.pattern)
    async def heard(value: dict[str, str], context: Context) -> dict[str, str]:
        if value["say"] == "bad":
            raise Rejected("no bad words")
        taken.append(value["say"])
        return {"heard": value["say"]}

    rooms = [topic for topic in ALL if topic.owner == "rooms"]
    apps = [App("rooms", topics=rooms, services=[service])]
    declared = declare(Settings(), apps)
    services(declared, apps)
    log = await Log.open(accounts.url("work"), app_logs(ALL))
    worker, stop = Worker(log, declared, "rooms.guard", service, lease=2.0, beat=0.05), asyncio.Event()
    working = asyncio.create_task(worker.run(stop), name="worker")
    async with (
        running_edge(accounts.url("edge"), ALL) as edge,
        running_bridge(accounts.url("bridge"), options(broker), ALL) as bridge,
        client(edge.ws, token()) as alice,
        door(edge) as operator,
    ):
        await eventually(lambda: working.done() or not worker.unready())
        await alice.ask("subscribe", channel="rooms/lobby", join_leave=True)
        await alice.ask("subscribe", channel=TELEMETRY)
        with device(broker) as pump:
            await pump.subscribe(f"devices/{DEVICE}/commands/#")
            await pump.publish(TELEMETRY, b'{"t": 1}')
            command = await operator.post(f"/topics/devices/{DEVICE}/commands/open", json={"valve": 3})
            assert command.status_code == 201, command.text
            await pump.until(1)
        await eventually(lambda: any("pub" in push for push in alice.pushes))
        assert len(await stored(bridge.log, topics=ALL)) == 1
        answer = await operator.post("/topics/rooms/1/ask?wait=20s", json={"say": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"heard": "hello"}), answer.text
        assert "history" in await alice.ask("history", channel="rooms/lobby", limit=10)
        assert "presence" in await alice.ask("presence", channel="rooms/lobby")
        assert (await operator.post("/api/presence", json={"channel": "rooms/lobby"})).json()["result"]["presence"]
        assert (await operator.post("/tickets", json={"filter": "devices/7/status"})).status_code == 201
        assert (await operator.post("/topics/rooms/1/ask", json={"say": "bad"})).status_code == 201

        async def given_up() -> bool:
            return len((await operator.get("/dead")).json()["letters"]) == 1

        await eventually(given_up)
        (letter,) = (await operator.get("/dead")).json()["letters"]
        replayed = await operator.post("/dead/replay", json={"letters": [letter["address"]]})
        assert json.loads(replayed.text.splitlines()[-1])["done"] == 1, replayed.text
        await eventually(given_up)
        await edge.log.surveys.answer("1", "an edge", b"word")
        assert await edge.log.surveys.take("1", ["an edge", "another"]) == [b"word", None]
        for verb in ("pause", "resume"):
            assert (await operator.post(f"/groups/rooms.guard/{verb}")).status_code == 200
        for words in (
            ("groups",),
            ("dead", "ls"),
            ("dead", "drop", "--all"),
            ("tail", "--from", "earliest", "--no-follow"),
            ("revoke", "--sub", "user:alice"),
            ("check",),
        ):
            await asyncio.to_thread(place.ok, *words)
        assert await alice.closed() == 3500
        stop.set()
        await working
    await log.close()
    assert taken == ["hello"]
    with accounts.of("operator") as one:
        # The server's own count of what it refused, since it began.
        assert "errorstat_NOPERM" not in one.info("errorstats")


@pytest.mark.parametrize(
    ("role", "asked"),
    [
        *((role, words) for role in ROLES for words in ("FLUSHALL", "CONFIG SET appendfsync no", "KEYS *", "SHUTDOWN")),
        *((role, "SET elsewhere 1") for role in ROLES),
        *((role, "HGETALL {other.0}:heads") for role in ROLES),
        ("work", "XADD {gateway}:control * kind disconnect"),
        ("bridge", "XADD {gateway}:control * kind disconnect"),
        ("work", "HSET {gateway}:revoked a b"),
        ("work", "SET {gateway}:survey:1 word"),
        ("work", "HSET {gateway}:bridge:bridge lease mine"),
        ("edge", "HSET {gateway}:bridge:bridge lease mine"),
        ("bridge", "GETDEL {gateway}:ticket:1"),
        ("work", "EVAL return_1 0"),
        *((role, "ACL LOAD") for role in ROLES if role != "operator"),
        ("operator", "ACL SETUSER operator +@all"),
    ],
)
def test_what_a_role_may_not(door_only: Accounts, role: str, asked: str) -> None:
    with door_only.of(role) as one, pytest.raises(redis_client.exceptions.NoPermissionError):
        one.execute_command(*asked.split())


@pytest.fixture(scope="module")
def door_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder, port = tmp_path_factory.mktemp("rights"), embedded.free_port()
    place = Place(folder)
    place.write(CONFIG.format(port=port))
    place.ok("log-credentials", "accounts")
    with embedded.valkey(folder / "log", port=port, extra=[f'aclfile "{folder}/accounts/users.acl"']):
        yield Accounts(place, port)


def test_nobody_comes_in_without_an_account(door_only: Accounts) -> None:
    with redis_client.Redis(port=door_only.port) as nobody:
        assert nobody.ping()
        with pytest.raises(redis_client.exceptions.NoPermissionError):
            nobody.get("x")
    assert "WRONGPASS" in door_only.place.fails("groups", GATEWAY_LOG_PASSWORD_FILE="gateway.toml")


def test_what_is_there_is_kept(door_only: Accounts) -> None:
    folder = door_only.place.folder / "accounts"
    before = {file.name: file.read_text() for file in folder.iterdir()}
    door_only.place.ok("log-credentials", "accounts")
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    for role in ROLES:
        assert before[f"{role}.password"].strip() not in before["users.acl"]
    with door_only.of("operator") as one:
        assert one.execute_command("ACL LOAD")
    (folder / "work.password").write_text("\n")
    assert "work.password is empty; remove it" in door_only.place.fails("log-credentials", "accounts")
    (folder / "work.password").write_text(before["work.password"])

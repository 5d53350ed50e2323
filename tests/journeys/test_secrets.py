"""A whole gateway with traffic: its secrets and its clients' tokens are in no log, metric, answer or argument."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import pytest
import websockets
from paho.mqtt import publish

from tests.gateways import client
from tests.journeys.running_up import WHOLE_WITHIN, Up
from tests.servers import eventually


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Up]:
    one = Up(tmp_path, demo=True)
    yield one
    if one.process.poll() is None:
        one.process.terminate()
        one.process.wait(60)


def said(demo: Up, *words: str) -> str:
    out, err = demo.start(*words).communicate(timeout=180)
    assert out, err
    return out.strip()


#: What services and servers write: no secret of ours, or past all reading. And what a child is told, which is none.
WRITTEN = re.compile(r"\.(log|aof|rdb|manifest|db|db-shm|db-wal|db-journal|pid|lock)$")
TOLD = ("up.json", "valkey.conf", "mosquitto.conf", "acl")


def kept_secrets(data: Path) -> dict[str, str]:
    """What the first run made: the words of every file below ``data``, which its owner alone may read."""
    found = {}
    for file in sorted(data.rglob("*")):
        if not file.is_file() or WRITTEN.search(file.name) or file.name in TOLD:
            continue
        assert file.stat().st_mode & 0o777 == 0o600, f"{file.relative_to(data)} can be read by others"
        text = file.read_text(errors="replace")
        if file.suffix == ".json":  # names stand there, too, and those are told
            text = " ".join(re.findall(r':\s*"([^"]*)"', text))
        for n, word in enumerate(re.findall(r"[^\s:]{16,}", text)):
            if not re.fullmatch(r"[a-z.]+", word):  # a service's name, beside the hash of its key
                found[f"{file.relative_to(data)} {n}"] = word
    return found


def hits(words: dict[str, str], places: dict[str, str]) -> list[tuple[str, str]]:
    return [(what, where) for what, word in words.items() for where, text in places.items() if word in text]


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(child) for child in children.read_text().split()}
    return found.union(*map(descendants, found))


class Arguments(threading.Thread):
    """The arguments of every process below this one, looked at all the time: most commands are soon gone."""

    def __init__(self) -> None:
        super().__init__(name="arguments", daemon=True)
        self.seen: set[str] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            for pid in descendants(os.getpid()):
                with suppress(FileNotFoundError, ProcessLookupError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                    self.seen.add(line.replace("\0", " "))


@pytest.fixture
def arguments() -> Iterator[Arguments]:
    one = Arguments()
    one.start()
    yield one
    one.over.set()
    one.join()


async def plant(word: str, demo: Up, arguments: Arguments, stack: AsyncExitStack) -> dict[str, str]:
    """Say ``word`` in a log, a metric and an argument, each by its own way; return where the metric is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = word if b"GET /metrics" in await reader.readuntil(b"\r\n\r\n") else "ok"
        writer.write(f"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n{said}\n".encode())
        writer.close()

    (demo.folder / "planted.log").write_text(f"audit {word}\n")
    server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
    short = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", word, stdin=subprocess.PIPE)
    await eventually(lambda: any(word in line for line in arguments.seen), 60)
    short.kill()
    await short.wait()
    return {"planted": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}


async def payloads(demo: Up, http: httpx.AsyncClient) -> dict[str, str]:
    """Send words through every door, well and badly formed; return them by what they are."""
    words = {
        name: f"quince{secrets.token_hex(8)}" for name in ("bytes", "json", "frame", "mqtt", "type", "room", "chat")
    }
    words |= {name: f"quince{secrets.token_hex(8)}" for name in ("mail", "person", "password", "wrong password")}
    mail = f"{words['mail']}@example.org"
    assert (await http.post("/topics/try/x", content=words["bytes"])).status_code == 201
    root = {"authorization": "Bearer " + said(demo, "token", "--role", "operator")}
    bad = await http.post("/topics/rooms/3/messages", content='{"' + words["json"], headers=root)
    assert bad.status_code == 422, bad.text
    async with websockets.connect(f"ws{demo.edge[4:]}/connection/websocket") as one:
        await one.send('{"id": 1, "connect": "' + words["frame"])
        await one.wait_closed()
    letters = [b'{"' + words["mqtt"].encode(), json.dumps({"ts": words["type"], "m": {}}).encode()]
    account = {"username": "gateway", "password": (demo.data / "mqtt" / "gateway.password").read_text().strip()}
    for letter in letters:
        publish.single("devices/room-01/telemetry", letter, 1, port=demo.broker_port, auth=account)  # type: ignore[arg-type]  # its stubs want a TypedDict

    async def buried() -> bool:
        found = (await http.get("/dead", params={"topic": "devices/room-01/#"}, headers=root)).json()["letters"]
        return len(found) == len(letters)

    await eventually(buried, 60)
    who = {"mail": mail, "password": words["password"]}
    assert (await http.post("/accounts/users/register", json={**who, "name": words["person"]})).status_code == 202
    wrong = await http.post("/accounts/users/login", json={"mail": mail, "password": words["wrong password"]})
    assert wrong.status_code == 401, wrong.text
    known = (await http.post("/accounts/users/login", json=who)).json()
    words["an access token"], words["a refresh token"] = known["access"], known["refresh"]
    ann = {"authorization": f"Bearer {known['access']}"}
    room = (await http.post("/chat/rooms/", json={"name": words["room"], "key": "0"}, headers=ann)).json()["id"]
    text = {"id": "1", "text": words["chat"]}
    sent = await http.post(f"/topics/chat/rooms/{room}/send", params={"wait": "20s"}, json=text, headers=ann)
    assert sent.status_code == 200, sent.text
    given = await http.post(f"/chat/rooms/{room}/tokens", json={"channel": f"chat/rooms/{room}/messages"}, headers=ann)
    words["a subscription token"] = given.json()["token"]
    return words


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_secret_leaves_its_file(arguments: Arguments, demo: Up) -> None:
    await demo.up()
    await eventually(lambda: re.search(r"  devices/\S+/telemetry  ", demo.said) or demo.dead(), WHOLE_WITHIN)
    await eventually(lambda: "services are ready" in demo.said or demo.dead(), WHOLE_WITHIN)
    (demo.data / "planted.json").touch(mode=0o600)
    (demo.data / "planted.json").write_text(json.dumps({"planted": f"medlar{secrets.token_hex(8)}"}))
    hidden, places = kept_secrets(demo.data), dict[str, str]()
    files = {name.rpartition(" ")[0] for name in hidden}
    accounts = {f"mqtt/{name}" for name in ("gateway.password", "passwords")} | {"demo/devices.json"}
    assert files >= accounts | {"token.secret", "operator.token", "viewer.token", "user.token"}, files
    user = json.loads(said(demo, "token", "--role", "viewer", "--sub", "alice", "--json"))
    hidden["a user's token"] = user["token"]
    hidden["an operator's token"] = said(demo, "token", "--role", "operator")
    hidden["an API key"] = said(demo, "token", "--api-key", "orders")
    forged = "gwk_" + secrets.token_urlsafe(32)
    hidden |= {"a forged key": forged, "a forged token": user["token"][:-8] + "forgedAA"}
    # One of each file is enough: a careless client does not know its kind.
    edge, bearers = demo.edge, [word for name, word in hidden.items() if not re.search(r" [1-9]\d*$|planted", name)]
    async with AsyncExitStack() as stack, httpx.AsyncClient(base_url=edge, timeout=20) as http:
        answers: list[httpx.Response] = []
        for one in bearers:
            for headers in ({"authorization": f"Bearer {one}"}, {"x-api-key": one}, {"authorization": f"Basic {one}"}):
                answers.append(await http.post("/topics/try/x", content=b"x", headers=headers))
                answers.append(await http.get("/dead", headers=headers))
            # A careless client's: in the query, and in a path.
            answers.append(await http.get("/topics/try%2Fx/events", params={"ticket": one}))
            answers.append(await http.post("/revocations", json={}, headers={"authorization": f"Bearer {one}"}))
        alice = {"authorization": f"Bearer {user['token']}"}
        given = await http.post("/tickets", json={"filter": "devices/+/telemetry"}, headers=alice)
        assert given.status_code == 201, given.text
        hidden["a ticket"] = given.json()["ticket"]
        for _ in range(2):
            async with http.stream("GET", "/topics/devices%2F+%2Ftelemetry/events", params=given.json()) as stream:
                await anext(stream.aiter_bytes())
        async with client(f"ws{edge[4:]}/connection/websocket", user["token"]) as watching:
            await watching.ask("subscribe", channel="devices/+/telemetry")
            await watching.until(3)
            root = {"authorization": "Bearer " + hidden["an operator's token"]}
            answers.append(await http.post("/revocations", json={"what": "jti", "name": user["jti"]}, headers=root))
            assert await watching.closed() == 3500
        with pytest.raises(ConnectionError):
            async with client(f"ws{edge[4:]}/connection/websocket", hidden["a forged token"]):
                pass
        places |= {f"answer {n}, {answer.status_code}": answer.text for n, answer in enumerate(answers)}
        places |= {f"headers {n}": str(answer.headers) for n, answer in enumerate(answers)}
        said_by_clients = await payloads(demo, http)
        up = json.loads((demo.data / "up.json").read_text())
        planted = await plant(hidden["planted.json 0"], demo, arguments, stack)
        for name, at in {"edge": edge, **up["health"], **planted}.items():
            for path in ("/metrics", "/readyz"):
                places[f"{path} of {name}"] = (await http.get(f"{at}{path}")).text
    assert {answer.status_code for answer in answers} >= {201, 401, 403}
    demo.process.terminate()
    await eventually(lambda: demo.process.poll() is not None, within=60)
    arguments.over.set()
    arguments.join()
    places |= {f"arguments {line}": line for line in arguments.seen}
    assert {"up", "edge", "bridge", "work", "token"} <= {word for line in arguments.seen for word in line.split()}
    assert len(places) > 40
    logs = {str(file): file.read_text(errors="replace") for file in demo.folder.rglob("*.log") if file.is_file()}
    assert any("audit" in text for text in logs.values()), "the log was looked at"
    kept = logs | {where: text for where, text in places.items() if not where.startswith(("answer ", "headers "))}
    assert hits(said_by_clients, kept) == []
    # Its live tail shows events on purpose, and its first lines one token.
    told = demo.said.replace(hidden["viewer.token 0"], "", 1)
    found = hits(hidden, places | logs | {"what `up` said": told})
    assert [(what, where[:120]) for what, where in found if what != "planted.json 0"] == []
    leaked = [where.split()[0] if where.startswith("arguments") else Path(where).name for _, where in found]
    assert sorted(leaked) == ["arguments", "metrics of planted", "planted.log"]

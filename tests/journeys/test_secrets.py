"""A whole gateway with traffic: its secrets and its clients' tokens are in no log, metric, answer or argument."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
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
    out, err = demo.start(*words).communicate(timeout=60)
    assert out, err
    return out.strip()


def kept_secrets(data: Path) -> dict[str, str]:
    """What the first run made: the words of every file that its owner alone may read and whose name says what it is."""
    found = {}
    for file in data.rglob("*"):
        if file.is_file() and re.search(r"secret|password|passwd|\.key$|\.pem$", file.name):
            assert file.stat().st_mode & 0o077 == 0, f"{file.name} can be read by others"
            for word in re.findall(r"[^\s:]{16,}", file.read_text(errors="replace")):
                found[f"{file.name} {word[:4]}…"] = word
    return found


def descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


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
async def test_no_secret_leaves_its_file(demo: Up) -> None:
    await demo.up()
    await eventually(lambda: re.search(r"  devices/\S+/telemetry  ", demo.said) or demo.dead(), WHOLE_WITHIN)
    await eventually(lambda: "services are ready" in demo.said or demo.dead(), WHOLE_WITHIN)
    hidden, places = kept_secrets(demo.data), dict[str, str]()
    assert any("token.secret" in name for name in hidden), hidden.keys()
    user = json.loads(said(demo, "token", "--role", "viewer", "--sub", "alice", "--json"))
    hidden["a user's token"] = user["token"]
    hidden["an operator's token"] = said(demo, "token", "--role", "operator")
    hidden["an API key"] = said(demo, "token", "--api-key", "orders")
    forged = "gwk_" + secrets.token_urlsafe(32)
    hidden |= {"a forged key": forged, "a forged token": user["token"][:-8] + "forgedAA"}
    edge, bearers = demo.edge, [hidden[name] for name in hidden if "token.secret" not in name]
    async with httpx.AsyncClient(base_url=edge, timeout=20) as http:
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
        for name, at in {"edge": edge, **up["health"]}.items():
            for path in ("/metrics", "/readyz"):
                places[f"{path} of {name}"] = (await http.get(f"{at}{path}")).text
    assert {answer.status_code for answer in answers} >= {201, 401, 403}
    places |= {f"arguments of {pid}": arguments(pid) for pid in descendants(demo.process.pid)}
    assert len(places) > 40
    demo.process.terminate()
    await eventually(lambda: demo.process.poll() is not None, within=60)
    logs = {str(file): file.read_text(errors="replace") for file in demo.folder.rglob("*.log") if file.is_file()}
    assert any("audit" in text for text in logs.values()), "the log was looked at"
    kept = logs | {where: text for where, text in places.items() if not where.startswith(("answer ", "headers "))}
    assert [
        (what, where) for what, word in said_by_clients.items() for where, text in kept.items() if word in text
    ] == []
    # Its live tail shows events on purpose.
    places |= logs | {"what `up` said": demo.said}
    assert [(what, where) for what, word in hidden.items() for where, text in places.items() if word in text] == []

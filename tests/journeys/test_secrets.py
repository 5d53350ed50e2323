"""A whole gateway with traffic: its secrets and its clients' tokens are in no log, metric, answer or argument."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateways import client
from tests.journeys.test_up import Demo
from tests.servers import eventually


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    one = Demo(tmp_path)
    yield one
    if one.process.poll() is None:
        one.process.terminate()
        one.process.wait(60)


def said(demo: Demo, *words: str) -> str:
    out, err = demo.start(*words).communicate(timeout=60)
    assert out, err
    return out.strip()


def kept_secrets(data: Path) -> dict[str, str]:
    """What the first run made: the words of every file that its owner alone may read and whose name says what it is."""
    found = {}
    for file in data.rglob("*"):
        if file.is_file() and re.search(r"secret|password|passwd|\.key$", file.name):
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


@pytest.mark.slow
async def test_no_secret_leaves_its_file(demo: Demo) -> None:
    await demo.up()
    hidden, places = kept_secrets(demo.data), dict[str, str]()
    assert any("token.secret" in name for name in hidden), hidden.keys()
    user = json.loads(said(demo, "token", "--sub", "alice", "--json"))
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
        up = json.loads((demo.data / "up.json").read_text())
        for name, at in {"edge": edge, **up["health"]}.items():
            for path in ("/metrics", "/readyz"):
                places[f"{path} of {name}"] = (await http.get(f"{at}{path}")).text
    assert {answer.status_code for answer in answers} >= {201, 401, 403}
    places |= {f"arguments of {pid}": arguments(pid) for pid in descendants(demo.process.pid)}
    assert len(places) > 40
    demo.process.terminate()
    await eventually(lambda: demo.process.poll() is not None, within=60)
    places["what `up` said"] = demo.said
    places |= {str(file): file.read_text(errors="replace") for file in demo.folder.rglob("*.log") if file.is_file()}
    assert any("audit" in text for text in places.values()), "the log was looked at"
    assert [(what, where) for what, word in hidden.items() for where, text in places.items() if word in text] == []

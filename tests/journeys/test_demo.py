"""`gateway up --demo` whole: a shop, a fleet and a chat on real processes, killed and there again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.running_up import ROOT, WHOLE_WITHIN, Up, gone
from tests.servers import eventually

#: `gateway up` where Mosquitto is not installed.
WITHOUT_MOSQUITTO = """
import sys
from gateway.adapters import embedded
from gateway.errors import ServerMissing

def absent(*_, **__):
    raise ServerMissing("mosquitto", "apt install mosquitto")

embedded.mosquitto = absent
sys.argv = ["gateway", *sys.argv[1:]]
from gateway.cli import main
main()
"""


class People:
    """Somebody who asks the routes of a running demo."""

    def __init__(self, http: httpx.Client, token: str = "") -> None:
        self._http, self._headers = http, {"authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return what was answered; None where it is to be asked again."""
        answer = self._http.request(method, path, json=body, headers=self._headers | headers)
        if answer.status_code in (422, 429, 502, 503, 504):
            return None  # a service is coming, or has not heard of a price yet
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else True

    async def got(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        found: list[Any] = []

        def asked() -> bool:
            found[:] = [self.ask(method, path, body, **headers)]
            return found[0] is not None

        await eventually(asked, WHOLE_WITHIN)
        return found[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_demo_is_a_shop_a_fleet_and_a_chat_that_survive_its_death(tmp_path: Path) -> None:
    demo = Up(tmp_path, demo=True)
    try:
        await demo.up()
        assert re.search(r"viewer +ey\S+\.\S+\.\S+", demo.said)
        what_it_says_works(demo)
        await eventually(lambda: "  try/hello  hello, world" in demo.said, 60)  # a first publish does not vanish
        await eventually(lambda: "services are ready" in demo.said or demo.dead(), WHOLE_WITHIN)
        assert demo.said.index("Try next") < demo.said.index("services are ready")
        with asked(demo) as http:
            await a_stocked_shop(demo, People(http))
            order = await a_confirmed_order(http)
            await a_fleet(demo, operator(demo, http))
        secrets_stay_secret(demo)
        children = demo.children()
        assert len(children) == 19, children
        passwords = (demo.data / "demo" / "devices.json").read_text()

        demo.process.kill()
        demo.process.wait(60)
        await eventually(lambda: all(gone(pid) for pid in children.values()), 60)
        demo = Up(tmp_path, demo=True)
        await demo.up()
        # Its devices come in with the accounts that they had, and what was ordered is known.
        await eventually(lambda: re.search(r"  devices/\S+/telemetry  ", demo.said) or demo.dead(), WHOLE_WITHIN)
        assert (demo.data / "demo" / "devices.json").read_text() == passwords
        with asked(demo) as http:
            assert (await operator(demo, http).got("GET", f"/ecommerce/orders/{order}"))["order"] == order
        children = demo.children()
    finally:
        demo.process.terminate()
        ended = demo.process.wait(60)
    assert ended == 0
    assert [name for name, pid in children.items() if not gone(pid)] == []
    assert demo.said.endswith("everything is stopped\n")


def asked(demo: Up) -> httpx.Client:
    return httpx.Client(base_url=demo.edge, timeout=60, trust_env=False)


def operator(demo: Up, http: httpx.Client) -> People:
    return People(http, (demo.data / "operator.token").read_text().strip())


async def a_stocked_shop(demo: Up, anybody: People) -> None:
    await eventually(lambda: len(anybody.ask("GET", "/ecommerce/catalog/")["items"]) == 8, WHOLE_WITHIN)
    log = demo.data / "demo" / "demo.log"
    await eventually(lambda: "8 articles and 4 rules are there" in log.read_text(), WHOLE_WITHIN)
    for article in anybody.ask("GET", "/ecommerce/catalog/")["items"]:
        assert anybody.ask("GET", f"/ecommerce/inventory/{article['sku']}")["available"] > 0


async def a_confirmed_order(http: httpx.Client) -> str:
    """Somebody makes an account, buys a cup, and says so in a room."""
    who = {"mail": f"{uuid.uuid4()}@example.org", "password": str(uuid.uuid4())}
    await People(http).got("POST", "/accounts/users/register", {**who, "name": "Ann"})
    ann = People(http, (await People(http).got("POST", "/accounts/users/login", who))["access"])
    cup = {"lines": [{"sku": "CUP", "quantity": 1}], "method": "card_ok"}
    order: str = (await ann.got("POST", "/ecommerce/orders/", cup, **{"idempotency-key": str(uuid.uuid4())}))["order"]
    ends = ("confirmed", "completed")
    await eventually(lambda: ann.ask("GET", f"/ecommerce/orders/{order}")["status"] in ends, WHOLE_WITHIN)
    room = (await ann.got("POST", "/chat/rooms/", {"name": "Tea", "key": str(uuid.uuid4())}))["id"]
    send = f"/topics/chat/rooms/{room}/send?wait=30s"
    assert (await ann.got("POST", send, {"id": str(uuid.uuid4()), "text": "a new cup"}))["seq"]
    assert "a new cup" in str(await ann.got("GET", f"/chat/rooms/{room}/history"))
    return order


async def a_fleet(demo: Up, operator: People) -> None:
    devices = (await operator.got("GET", "/devices/registry/"))["items"]
    assert len(devices) == 30
    await eventually(lambda: online(operator) == 30, WHOLE_WITHIN)
    await eventually(lambda: operator.ask("GET", "/devices/alerting/alerts")["items"] != [], WHOLE_WITHIN)
    await eventually(lambda: "telemetry given up by devices.storage" in demo.said, WHOLE_WITHIN)
    out, err = demo.start("dead", "ls", "--reason", "rejected").communicate(timeout=60)
    assert "devices/pump-01/telemetry" in out, err


def online(operator: People) -> int:
    return sum(bool(one["online"]) for one in operator.ask("GET", "/devices/registry/")["items"])


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_without_mosquitto_the_fleet_has_accounts_made_before(tmp_path: Path) -> None:
    demo = Up(tmp_path, demo=True, program=(sys.executable, "-c", WITHOUT_MOSQUITTO))
    try:
        await demo.up()
        assert "(iotcore)" in demo.said
        assert "It keeps nothing across a restart" in demo.said
        await eventually(lambda: re.search(r"  devices/\S+/telemetry  ", demo.said) or demo.dead(), WHOLE_WITHIN)
    finally:
        # While services are still coming.
        demo.process.terminate()
    assert demo.process.wait(60) == 0
    assert demo.said.endswith("everything is stopped\n")


def what_it_says_works(demo: Up) -> None:
    """Each printed command as it stands there."""
    watch, publish, stream, letters = demo.commands
    viewer = (demo.data / "viewer.token").read_text().strip()
    websocket = demo.found(r"WebSocket +(\S+)")
    example = f"{sys.executable} examples/watch.py {websocket} devices/+/telemetry {viewer}"
    for line, expected in ((watch, "  devices/"), (stream, '"devices/'), (example, "devices/")):
        # As in a shell, which reads a token's file; in its place, so that it can be killed.
        with subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=ROOT,
            env=demo.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as told:
            assert told.stdout is not None
            assert any(expected in line for line in told.stdout)
            told.kill()
    for line in (publish, letters):
        subprocess.run(shlex.split(line), cwd=ROOT, env=demo.env, check=True, timeout=60, capture_output=True)


def secrets_stay_secret(demo: Up) -> None:
    files = [demo.data / name for name in ("token.secret", "operator.token", "user.token", "viewer.token")]
    files += [demo.data / "mqtt" / name for name in ("gateway.password", "passwords")]
    files.append(demo.data / "demo" / "devices.json")
    kept = [path for path in files if path.exists()]
    assert len(kept) >= 5
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == []
    assert demo.data.stat().st_mode & 0o077 == 0
    secret = [word for path in kept for word in re.findall(r"[\w.$/+=-]{20,}", path.read_text())]
    assert len(secret) > 5
    logs = {path.name: path.read_text(errors="replace") for path in demo.data.rglob("*.log")}
    assert len(logs) == 19
    lines = {f"{pid}": Path(f"/proc/{pid}/cmdline").read_text() for pid in demo.children().values()}
    for name, text in (logs | lines).items():
        assert [word for word in secret if word in text] == [], name
    shown = (demo.data / "viewer.token").read_text().strip()
    assert [word for word in secret if word in demo.said and word != shown] == []

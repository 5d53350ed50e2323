"""Nothing personal anywhere: somebody buys and chats, things go wrong, and only who must know her knows who it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.adapters import embedded
from tests.devices.fleet import Receiver
from tests.ecommerce.shop import WITHIN, Mails, until
from tests.ecommerce.test_up import ROOT, started
from tests.servers import eventually

ZOE = {
    "mail": "Zephyrine.Quandt@marker-host.example",
    "password": "Quasar-Nougat-77",
    "name": "Zephyrine Quandt",
    "phone": "+4915177733311",
}
#: What she says in a room, and who is to hear of alerts.
SAID, OPS, HOOK = "sassafras lantern", "klaxon@watchers.example", "/hook/bassoon-token"
#: What gives her, her words and the watchers away, in small letters.
NAME, WORDS = ("zephyrine", "quandt"), ("sassafras", "lantern")
MARKERS = (*NAME, "marker-host", "quasar-nougat", "15177733311", *WORDS, "klaxon", "watchers.example", "bassoon")
#: Where some of it is by design: files, by how their names begin.
KNOWN = {
    "accounts.users.db": MARKERS,
    "chat.rooms.db": (*NAME, *WORDS),
    # What is said goes over the log, and `gateway up` shows what does; what somebody is called is in neither.
    "appendonly.aof": WORDS,
    "what `gateway up` says": WORDS,
}
#: What the dead letters say at the end: a handler, a mail server, a webhook and a database failed with it in hand.
FAILED = ("UnicodeDecodeError", "the mail server refuses this address", "it answered 410", "no room for this")


class Refusing(Mails):
    """As `Mails`, of a server that does not know the watchers, and says so."""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: Any) -> str:
        if to == OPS:
            return f"550 5.1.1 <{to}>: no such mailbox"
        envelope.rcpt_tos.append(to)
        return "250 go on"


class Zoe:
    """She, an operator, and what both were answered."""

    def __init__(self, http: httpx.AsyncClient, operator: str) -> None:
        self.http, self.operator, self.access = http, operator, ""

    async def asks(self, method: str, path: str, body: object, **headers: str) -> httpx.Response:
        head = {"authorization": f"Bearer {self.access}"} if self.access else {}
        return await self.http.request(method, path, json=body, headers={**head, **headers})

    async def operates(self, method: str, path: str, body: object = None) -> str:
        head = {"authorization": f"Bearer {self.operator}"}
        answer = await self.http.request(method, path, json=body, headers=head)
        assert answer.is_success, answer.text
        return answer.text

    async def enters(self) -> None:
        assert (await self.asks("POST", "/accounts/users/register", ZOE)).status_code == 202
        # What people get wrong.
        for slip in ({"phone": ZOE["phone"] + "x"}, {"mail": ZOE["name"]}, {"what": ZOE["mail"]}):
            assert (await self.asks("POST", "/accounts/users/register", ZOE | slip)).status_code in (400, 422)
        login = {"mail": ZOE["mail"], "password": ZOE["password"]}
        wrong = await self.asks("POST", "/accounts/users/login", login | {"password": ZOE["password"] + "8"})
        assert wrong.status_code == 401
        self.access = (await self.asks("POST", "/accounts/users/login", login)).json()["access"]

    async def buys(self, key: str) -> str:
        """Order the one thing there is; until orders knows its price, nobody can."""
        body, placed = {"lines": [{"sku": "TEA"}], "method": "card_ok"}, list[str]()

        async def taken() -> bool:
            answer = await self.asks("POST", "/ecommerce/orders/", body, **{"idempotency-key": key})
            placed[:] = [answer.json()["order"]] if answer.status_code == 202 else []
            return bool(placed)

        await until(taken)
        return placed[0]

    async def says(self, room: str, text: str, wait: str = "?wait=30s") -> httpx.Response:
        return await self.asks("POST", f"/topics/chat/rooms/{room}/send{wait}", {"id": str(len(text)), "text": text})

    async def chats(self, data: Path) -> None:
        """Say who she is and something else; then the same to a database that takes neither."""
        assert (await self.asks("PUT", "/chat/rooms/me", {"name": ZOE["name"]})).is_success
        room = (await self.asks("POST", "/chat/rooms/", {"name": "Tea", "key": "1"})).json()["id"]

        async def said() -> bool:
            return (await self.says(room, SAID)).is_success

        await until(said)
        assert (await self.asks("PUT", "/chat/rooms/me", {"name": ZOE["name"] * 9})).status_code == 422
        assert (await self.says(room, SAID * 400)).status_code == 422
        with closing(sqlite3.connect(data / "chat.rooms.db")) as db:
            for where in ("INSERT ON log", "UPDATE ON people"):
                fails = "BEGIN SELECT RAISE(ABORT, 'no room for this'); END"
                db.execute(f"CREATE TRIGGER no_{where[-3:]} BEFORE {where} {fails}")
        assert (await self.asks("PUT", "/chat/rooms/me", {"name": ZOE["name"]})).is_server_error
        assert (await self.says(room, SAID + " again", "")).is_success


@pytest.mark.slow  # a gateway with all services starts
@pytest.mark.timeout(600)
async def test_applications_that_fail_tell_nobody_who_it_was(tmp_path: Path) -> None:
    port, data, out, mails, hook = embedded.free_port(), tmp_path / "data", tmp_path / "out", Refusing(), Receiver()
    apps = ",".join(f"{one}.app:app" for one in ("accounts", "devices", "ecommerce", "chat"))
    (tmp_path / "sms").write_text(f"json://127.0.0.1:9/{{phone}}\ntwilio://AC{'1' * 32}:{'2' * 32}@12345/{{phone}}x\n")
    (tmp_path / "password").write_text("of the mail server")
    async with mails.serving(), hook.serving():
        secret, hook.refuse = tmp_path / "password", 410
        (tmp_path / "channels").write_text(
            f'[ops]\nmail = "{OPS}"\n[pager]\nurl = "http://127.0.0.1:{hook.port}{HOOK}"\nsecret_file = "{secret}"\n'
        )
        ours = ("GATEWAY_", "ACCOUNTS_", "CHAT_", "DEVICES_", "ECOMMERCE_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"GATEWAY_DATA": str(data), "GATEWAY_EDGE_PORT": str(port), "GATEWAY_PARTITIONS": "2"}
        env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": apps, "ACCOUNTS_HASH_MIB": "1"}
        env |= {f"ECOMMERCE_{step}": "0.01" for step in ("PACKING", "DRIVING", "THINKING")}
        env |= {"ECOMMERCE_SMTP": f"smtp://127.0.0.1:{mails.port}", "ECOMMERCE_OPERATOR_MAIL": "root@example.org"}
        env |= {"ECOMMERCE_SMS_FILE": str(tmp_path / "sms")}
        env |= {"ECOMMERCE_SMTP_PASSWORD_FILE": str(secret), "DEVICES_SMTP": f"smtp://127.0.0.1:{mails.port}"}
        env |= {"DEVICES_CHANNELS_FILE": str(tmp_path / "channels"), "DEVICES_WEBHOOK_PRIVATE": "1"}
        up = started(env, out)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN, trust_env=False) as http:
                zoe = Zoe(http, await _ready(up, out, http, data))
                order = await _journey(zoe, mails, secret, data)
                places = await _told(zoe, data)
        finally:
            up.send_signal(signal.SIGTERM)
            await asyncio.to_thread(up.wait, 100)
    places["what `gateway up` says"] = out.read_text()
    for file in (path for path in data.rglob("*") if path.is_file()):
        places[str(file.relative_to(data))] = file.read_bytes().decode(errors="replace")
    services = ("accounts.users", "ecommerce.notifications", "chat.rooms", "devices.alerting")
    assert {f"{one}/{one}.log" for one in services} <= places.keys()
    found = {(place, word) for place, text in places.items() for word in MARKERS if word in text.lower()}
    known = {(place, word) for place, word in found for name, words in KNOWN.items() if name in place and word in words}
    # We would see it if it were there: what is to be found is, and the log server's file names the order.
    assert {"marker-host", *NAME, *WORDS} <= {word for _, word in known}
    assert any(order in text for name, text in places.items() if "aof" in name), places.keys()
    assert sorted(found - known) == []


async def _ready(up: Any, out: Path, http: httpx.AsyncClient, data: Path) -> str:
    """Wait until services answer; return an operator's token."""
    services = ["accounts/users", "chat/rooms", "devices/alerting", "devices/registry"]
    services += [f"ecommerce/{one}" for one in ("catalog", "orders", "inventory")]

    def started() -> bool:
        assert up.poll() is None, out.read_text()
        return "services are ready" in out.read_text()

    async def open() -> bool:
        return all([(await http.get(f"/{service}/")).status_code != 503 for service in services])

    await eventually(started, 300)
    await until(open)
    return (data / "operator.token").read_text().strip()


async def _journey(zoe: Zoe, mails: Mails, password: Path, data: Path) -> str:
    """An order that goes well, a mail server that says later and never, and handlers that fail."""
    # A device that never says a word: whoever is to hear of it cannot be told.
    rule = {"kind": "silent", "after": 0.5, "channels": ["ops", "pager"]}
    await zoe.operates("PUT", "/devices/alerting/rules/quiet", rule)
    await zoe.operates("POST", "/devices/registry/", {"device": "oven"})
    await zoe.enters()
    await zoe.operates("PUT", "/ecommerce/catalog/TEA", {"title": "Tea", "price": 5, "currency": "EUR"})
    await zoe.operates("PUT", "/ecommerce/inventory/receipts/r1", {"sku": "TEA", "quantity": 1})
    order = await zoe.buys("one")
    await until(lambda: len(mails.got) == 3)
    assert {str(mail["To"]) for mail in mails.got} == {ZOE["mail"].lower()}
    # Mail servers like to say of whom they speak.
    mails.refuse = f"421 4.2.0 <{ZOE['mail']}>: come back later"
    await zoe.buys("two")
    await until(lambda: mails.refused)
    mails.refuse, before = f"550 5.1.1 <{ZOE['mail']}>: no such mailbox", mails.refused
    await until(lambda: mails.refused > before)
    mails.refuse = ""
    rotated_wrongly(password)
    await zoe.buys("three")
    await zoe.chats(data)

    async def given_up() -> bool:
        told = await zoe.operates("GET", "/dead")
        return all(word in told for word in FAILED)

    await until(given_up)
    return order


def rotated_wrongly(password: Path) -> None:
    """From now on whoever writes a mail fails, with her address in hand."""
    password.write_bytes(b"\xff")


async def _told(zoe: Zoe, data: Path) -> dict[str, str]:
    """Dead letters and metrics, of every process."""
    listed = json.loads(await zoe.operates("GET", "/dead"))["letters"]
    letters = [json.loads(await zoe.operates("GET", f"/dead/{one['address']}")) for one in listed]
    # The event itself is as it came: what somebody said is in it.
    places = {"dead letters": str([{**letter, "payload": ""} for letter in letters])}
    for name, at in json.loads((data / "up.json").read_text())["health"].items():
        async with httpx.AsyncClient(base_url=at, timeout=WITHIN, trust_env=False) as http:
            places[f"metrics of {name}"] = (await http.get("/metrics")).text
    assert any("notifications" in name for name in places), places.keys()
    return places

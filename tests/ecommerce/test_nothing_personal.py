"""Nothing personal anywhere: somebody buys, things go wrong, and afterwards only accounts knows who it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.adapters import embedded
from tests.ecommerce.shop import WITHIN, Mails, until
from tests.ecommerce.test_up import ROOT, started
from tests.servers import eventually

ZOE = {
    "mail": "Zephyrine.Quandt@marker-host.example",
    "password": "Quasar-Nougat-77",
    "name": "Zephyrine Quandt",
    "phone": "+4915177733311",
}
#: What gives her away, in small letters.
MARKERS = ("zephyrine", "quandt", "marker-host", "quasar-nougat", "15177733311")


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


@pytest.mark.slow  # a gateway with eight services starts
async def test_a_shop_that_fails_tells_nobody_who_bought(tmp_path: Path) -> None:
    port, data, out, mails = embedded.free_port(), tmp_path / "data", tmp_path / "out", Mails()
    (tmp_path / "sms").write_text(f"json://127.0.0.1:9/{{phone}}\ntwilio://AC{'1' * 32}:{'2' * 32}@12345/{{phone}}x\n")
    (tmp_path / "password").write_text("of the mail server")
    async with mails.serving():
        env = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "ECOMMERCE_"))}
        env |= {"GATEWAY_DATA": str(data), "GATEWAY_EDGE_PORT": str(port), "GATEWAY_PARTITIONS": "2"}
        env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": "accounts.app:app,ecommerce.app:app", "ACCOUNTS_HASH_MIB": "1"}
        env |= {f"ECOMMERCE_{step}": "0.01" for step in ("PACKING", "DRIVING", "THINKING")}
        env |= {"ECOMMERCE_SMTP": f"smtp://127.0.0.1:{mails.port}", "ECOMMERCE_OPERATOR_MAIL": "root@example.org"}
        env |= {"ECOMMERCE_SMS_FILE": str(tmp_path / "sms")}
        env |= {"ECOMMERCE_SMTP_PASSWORD_FILE": str(tmp_path / "password")}
        up = started(env, out)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN, trust_env=False) as http:
                zoe = Zoe(http, await _ready(up, out, http, data))
                order = await _journey(zoe, mails, tmp_path / "password")
                places = await _told(zoe, data)
        finally:
            up.send_signal(signal.SIGTERM)
            await asyncio.to_thread(up.wait, 100)
    places["what `gateway up` says"] = out.read_text()
    assert "UnicodeDecodeError" in places["dead letters"]
    accounts = dict[str, str]()
    for file in (path for path in data.rglob("*") if path.is_file()):
        kept = accounts if file.name.startswith("accounts.users.db") else places
        kept[str(file.relative_to(data))] = file.read_bytes().decode(errors="replace")
    assert {f"{one}/{one}.log" for one in ("accounts.users", "ecommerce.notifications")} <= places.keys()
    # We would see it if it were there: the log server's file names the order, and the table of accounts names her.
    assert any(order in text for name, text in places.items() if "aof" in name), places.keys()
    assert any("marker-host" in text for text in accounts.values()), accounts.keys()
    found = [(place, word) for place, text in places.items() for word in MARKERS if word in text.lower()]
    assert not found


async def _ready(up: Any, out: Path, http: httpx.AsyncClient, data: Path) -> str:
    """Wait until services answer; return an operator's token."""

    routes = ["/ecommerce/catalog/", "/ecommerce/orders/", "/ecommerce/inventory/TEA", "/accounts/users/me"]
    token = data / "operator.token"

    def made() -> bool:
        assert up.poll() is None, out.read_text()
        return token.exists()

    async def open() -> bool:
        try:
            return made() and all([(await http.get(path)).status_code != 503 for path in routes])
        except httpx.TransportError:
            return False

    await eventually(open, 100)
    return token.read_text().strip()


async def _journey(zoe: Zoe, mails: Mails, password: Path) -> str:
    """An order that goes well, a mail server that says later and never, and a handler that fails."""
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

    async def given_up() -> bool:
        return "UnicodeDecodeError" in await zoe.operates("GET", "/dead")

    await until(given_up)
    return order


def rotated_wrongly(password: Path) -> None:
    """From now on whoever writes a mail fails, with her address in hand."""
    password.write_bytes(b"\xff")


async def _told(zoe: Zoe, data: Path) -> dict[str, str]:
    """Dead letters and metrics, of every process."""
    places = {"dead letters": await zoe.operates("GET", "/dead")}
    for name, at in json.loads((data / "up.json").read_text())["health"].items():
        async with httpx.AsyncClient(base_url=at, timeout=WITHIN, trust_env=False) as http:
            places[f"metrics of {name}"] = (await http.get("/metrics")).text
    assert any("notifications" in name for name in places), places.keys()
    return places

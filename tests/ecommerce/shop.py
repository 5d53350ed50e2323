"""A running shop for tests: every service on real servers, a mail server, people with accounts, goods in stock."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from accounts.app import app as accounts
from ecommerce.app import app as ecommerce
from ecommerce.orders.tables import PRICES
from gateway.testing import Gateway, running
from tests.servers import eventually

_NUMBERS = itertools.count(1)
PASSWORD = "correct horse"
#: A hang guard, ten times what the slowest honest journey takes on a busy machine.
WITHIN = 60.0


class Mails:
    """An SMTP server on loopback that keeps what it gets, and refuses whom it is told to."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        #: What every mail is answered, instead of being kept; and how many were.
        self.refuse = ""
        self.refused = 0
        self.port = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            self.refused += 1
            return self.refuse
        self.got.append(_read(envelope.original_content or b""))
        return "250 kept"

    def to(self, person: Person) -> list[str]:
        return [str(mail["Subject"]) for mail in self.got if mail["To"] == person.mail]

    async def say(self, subject: str, *words: str) -> None:
        """Wait for the mail of that subject: its text says ``words``, and its HTML does."""
        await until(lambda: subject in [str(mail["Subject"]) for mail in self.got])
        mail = next(one for one in self.got if str(one["Subject"]) == subject)
        for body in bodies(mail):
            assert [word for word in words if word not in body] == [], body

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(self, hostname="localhost"), sock=sock)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()


def _read(data: bytes) -> EmailMessage:
    return message_from_bytes(data, EmailMessage, policy=default)


def bodies(mail: EmailMessage) -> tuple[str, str]:
    """Return the text and the HTML of a mail."""
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    return str(text.get_content()), str(html.get_content())


class Person:
    """Somebody with an account, who buys."""

    def __init__(self, shop: Shop, user: str, mail: str, name: str, access: str) -> None:
        self.shop, self.user, self.mail, self.name = shop, user, mail, name
        #: What accounts gave for the log-in.
        self.access = access

    async def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.shop.http.request(
            method,
            path,
            json=body,
            headers={"authorization": f"Bearer {self.access}", **(headers or {})},
        )

    async def order(self, *lines: tuple[str, int], card: str = "card_ok", key: str = "") -> httpx.Response:
        body = {"lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines], "method": card}
        return await self.ask("POST", "/ecommerce/orders/", body, {"idempotency-key": key or f"key-{next(_NUMBERS)}"})

    async def buys(self, *lines: tuple[str, int], card: str = "card_ok") -> str:
        answer = await self.order(*lines, card=card)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["order"])

    async def sees(self, order: str) -> dict[str, Any]:
        answer = await self.ask("GET", f"/ecommerce/orders/{order}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


class Shop:
    """Everything that runs."""

    def __init__(self, gateway: Gateway, mails: Mails, http: httpx.AsyncClient) -> None:
        self.gateway, self.mails, self.http = gateway, mails, http
        self._tokens: dict[str, str] = {}

    def token(self, user: str, kind: str = "user") -> str:
        return self._tokens.setdefault(f"{kind}:{user}", self.gateway.token(f"{kind}:{user}"))

    async def by_operator(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token('root', 'operator')}"}
        answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer

    async def person(self, name: str) -> Person:
        new = {
            "mail": f"{name}@example.org",
            "password": PASSWORD,
            "name": f"{name.title()} Smith",
            "phone": "+4915100",
        }
        made = await self.http.post("/accounts/users/register", json=new)
        assert made.status_code == 202, made.text
        entered = await self.http.post("/accounts/users/login", json={"mail": new["mail"], "password": PASSWORD})
        assert entered.status_code == 200, entered.text
        told = entered.json()
        person = Person(self, told["user"], new["mail"], new["name"], told["access"])

        async def believed() -> bool:  # not before the edge has fetched the keys of accounts
            return (await person.ask("GET", "/accounts/users/me")).status_code == 200

        await until(believed)
        return person

    async def sells(self, sku: str, price: int = 1290, stock: int = 0, currency: str = "EUR") -> None:
        """Put an article into the catalog and on the shelf, and wait until orders knows its price."""
        offer = {"title": f"Some {sku}", "price": price, "currency": currency}
        made = (await self.by_operator("PUT", f"/ecommerce/catalog/{sku}", offer)).json()
        if stock:
            await self.receives(sku, stock)

        await self.knows(sku, made["version"])

    async def knows(self, sku: str, version: int) -> None:
        """Wait until orders has heard of that price."""

        async def known() -> bool:
            async with self.gateway.database("ecommerce.orders") as db:
                rows = (await db.execute(PRICES.select().where(PRICES.c.sku == sku))).all()
                return any(row.version >= version for row in rows)

        await until(known)

    async def receives(self, sku: str, quantity: int) -> None:
        path = f"/ecommerce/inventory/receipts/r{next(_NUMBERS)}"
        await self.by_operator("PUT", path, {"sku": sku, "quantity": quantity})

    async def available(self, sku: str) -> int:
        return int((await self.http.get(f"/ecommerce/inventory/{sku}")).json()["available"])

    async def status(self, order: str, *whats: str) -> dict[str, Any]:
        """Wait until the customer was told one of ``whats``, and return how; what did come is in the failure."""
        filter, seen = f"ecommerce/orders/{order}/status/+", 0
        while True:
            told = [event.json() for event in await self.gateway.events(filter, seen + 1, within=WITHIN)]
            for one in told:
                if one["what"] in whats:
                    found: dict[str, Any] = one
                    return found
            seen = len(told)


async def until(met: Callable[[], Any]) -> None:
    await eventually(met, within=WITHIN)


@asynccontextmanager
async def open_shop(folder: Path, databases: Mapping[str, str] | None = None) -> AsyncIterator[Shop]:
    mails = Mails()
    with pytest.MonkeyPatch.context() as environment:
        async with mails.serving():
            said = {
                "ACCOUNTS_KEYS": folder / "keys",
                "ACCOUNTS_HASH_MIB": 1,
                "ECOMMERCE_WEBHOOK_SECRET_FILE": folder / "webhook.secret",
                "ECOMMERCE_SMTP": f"smtp://127.0.0.1:{mails.port}",
                "ECOMMERCE_OPERATOR_MAIL": "operator@example.org",
                "ECOMMERCE_PACKING": 0.01,
                "ECOMMERCE_DRIVING": 0.01,
                "ECOMMERCE_THINKING": 0.3,
            }
            for name, value in said.items():
                environment.setenv(name, str(value))
            async with running(accounts, ecommerce, edge=True, databases=databases) as gateway:
                # On a busy machine a connection that was idle for as long as the edge keeps one may be closing.
                pool = httpx.Limits(keepalive_expiry=1)
                async with httpx.AsyncClient(
                    base_url=gateway.url, timeout=WITHIN, trust_env=False, limits=pool
                ) as http:
                    yield Shop(gateway, mails, http)

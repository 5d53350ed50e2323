"""The shop: orders placed, confirmed and completed, by all services as real processes on SQLite."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec
import sqlalchemy as sa

from benchmarks import up
from benchmarks.results import Row, Section
from ecommerce.simulation import customer
from gateway.adapters import embedded
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from tests.ecommerce.books import TABLES, Books, faults

_METHOD = (
    "`gateway up` with accounts and ecommerce: log server, broker, bridge, edge, and a worker of each of eight "
    "services, each with a SQLite file (WAL, `synchronous=FULL`), on both cores; the customers, with tokens of "
    "accounts, are one process on one of them. Paced: {rate:g} orders/s for {seconds:g} s, whether or not the last is "
    "answered. At once: {count} orders by {clients} customers, each places its next when the last is answered: what "
    "is in the way then are the orders before. Placed is when the request is sent; confirmed and completed are what "
    "the status topic says, by SSE of the edge. The warehouse packs and drives in {pause:g} s, the card is approved "
    "at once. The run fails unless every order is completed and the books of all services agree. Bare: Starlette on "
    "uvicorn, one process that verifies a token (HS256), inserts a row and commits it (`sqlite3`, WAL, FULL), asked "
    "directly and alone: the ratio is what the way through the edge, idempotency, saga and outbox cost, beside "
    "services that work on the orders before."
)
_CUTS: Final = ("p50", 0.5), ("p99", 0.99)
_SKU: Final = "BENCH"
_BODY: Final = b'{"lines":[{"sku":"BENCH","quantity":1}],"method":"card_ok"}'
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)\r\n")
_PAUSE: Final = 0.01
_BARE: Final = str(Path(__file__).with_name("shop_bare.py"))
_CONFIG: Final = """\
[gateway]
apps = ["accounts.app:app", "ecommerce.app:app"]
[edge]
port = {port}
anonymous = false
[[tokens.keys]]
id = "accounts"
algorithm = "EdDSA"
jwks = "http://127.0.0.1:{port}/accounts/users/.well-known/jwks.json"
issuer = "accounts"
audience = "topic-gateway"
roles = ["user", "operator"]
"""


class Load(msgspec.Struct, frozen=True):
    """How much is asked."""

    rate: float
    seconds: float
    count: int
    clients: int


class Took(msgspec.Struct):
    """When each order was placed, answered, confirmed and completed; by one clock, in seconds."""

    placed: dict[str, float]
    answered: dict[str, float]
    confirmed: dict[str, float]
    completed: dict[str, float]

    def answers(self) -> list[float]:
        """Milliseconds from placed to the answer."""
        return [(at - self.placed[order]) * 1000 for order, at in self.answered.items()]

    def confirmations(self) -> list[float]:
        return [(self.confirmed[order] - at) * 1000 for order, at in self.placed.items()]

    def rate(self) -> float:
        """Orders per second, from the first that was placed to the last that was completed."""
        return len(self.placed) / (max(self.completed.values()) - min(self.placed.values()))


class Connections:
    """Keep-alive connections to ``port`` that cost next to nothing; httpx needs longer than what it asks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, token: str, body: bytes) -> bytes:
        """Return the body of a success."""
        said = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        said += f"Idempotency-Key: {uuid.uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
        while self._idle and self._idle[-1][0].at_eof():  # it was closed meanwhile
            self._idle.pop()[1].close()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(said.encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        answered = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{head.decode()}{answered.decode()}")
        self._idle.append((reader, writer))
        return answered

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class Shop:
    """What runs, and who asks it."""

    def __init__(
        self, http: httpx.AsyncClient, operator: str, customers: Sequence[str], *, follows: bool = True
    ) -> None:
        """``follows``: whether orders have an end to wait for."""
        self._http, self._operator, self._follows = http, operator, follows
        self.took = Took({}, {}, {}, {})
        self._turns = itertools.cycle(customers)
        self._connections = Connections(http.base_url.port or 80)
        self._news = asyncio.Event()

    async def place(self) -> None:
        token, began = next(self._turns), time.monotonic()
        answer = await self._connections.post("/ecommerce/orders", token, _BODY)
        ended, order = time.monotonic(), msgspec.json.decode(answer)["order"]
        self.took.placed[order], self.took.answered[order] = began, ended

    def close(self) -> None:
        self._connections.close()

    async def watch(self, ready: asyncio.Event) -> None:
        """Note what the topics of customers say, until cancelled."""
        whats = {"confirmed": self.took.confirmed, "completed": self.took.completed}
        path = "/topics/ecommerce%2Forders%2F+%2Fstatus%2F+/events"
        headers = {"authorization": f"Bearer {self._operator}"}
        async with self._http.stream("GET", path, headers=headers, timeout=None) as told:
            told.raise_for_status()
            ready.set()
            async for line in told.aiter_lines():
                if line.startswith("data: "):
                    found = msgspec.json.decode(line[6:], type=_Told)
                    if found.data.what in whats:
                        whats[found.data.what].setdefault(found.tags.topic.split("/")[2], time.monotonic())
                        self._news.set()
        raise RuntimeError("the edge ended the stream")

    async def paced(self, rate: float, seconds: float) -> Took:
        """Place so many orders a second, each whether or not the last was answered, and wait for their ends."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for n in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
                tasks.create_task(self.place(), name=f"order {n}")
        return await self.ended()

    async def at_once(self, count: int, clients: int) -> Took:
        """Place ``count`` orders, each of ``clients`` its next when the last is answered, and wait for their ends."""

        async def buys() -> None:
            for _ in range(count // clients):
                await self.place()

        async with asyncio.TaskGroup() as tasks:
            for n in range(clients):
                tasks.create_task(buys(), name=f"customer {n}")
        return await self.ended()

    async def ended(self) -> Took:
        """Wait for the ends of all that were placed, and return when each was what."""
        async with asyncio.timeout(up.WITHIN):
            while self._follows and self.took.placed.keys() - self.took.completed.keys():
                self._news.clear()
                await self._news.wait()
        took, self.took.placed, self.took.answered = msgspec.structs.replace(self.took), {}, {}
        return took

    async def stock_up(self, quantity: int) -> None:
        headers = {"authorization": f"Bearer {self._operator}"}
        offer = {"title": "What is measured", "price": 100, "currency": "EUR"}
        came = {"sku": _SKU, "quantity": quantity}
        for path, body in (f"/ecommerce/catalog/{_SKU}", offer), ("/ecommerce/inventory/receipts/1", came):
            (await self._http.put(path, json=body, headers=headers)).raise_for_status()
        async with asyncio.timeout(up.WITHIN):
            while True:  # until orders has heard of the price
                try:
                    await self.place()
                except RuntimeError:
                    await asyncio.sleep(0.05)
                else:
                    break
        await self.ended()


class _Status(msgspec.Struct):
    what: str


class _Tags(msgspec.Struct):
    topic: str


class _Told(msgspec.Struct):
    data: _Status
    tags: _Tags


def books(data: Path) -> Books:
    """Return the books of all services, of their files in ``data``."""
    found = {}
    for name, (service, table) in TABLES.items():
        engine = sa.create_engine(f"sqlite:///{data / f'ecommerce.{service}.db'}", poolclass=sa.pool.NullPool)
        with engine.connect() as db:
            found[name] = [dict(row._mapping) for row in db.execute(table.select())]
    return Books(**found)


@asynccontextmanager
async def _shop(folder: Path, customers: int) -> AsyncIterator[Shop]:
    port, data = embedded.free_port(), folder / "data"
    (folder / "gateway.toml").write_text(_CONFIG.format(port=port))
    origin = f"http://127.0.0.1:{port}"
    env = os.environ | {
        "GATEWAY_DATA": str(data),
        "ACCOUNTS_HASH_MIB": "1",
        "ECOMMERCE_PACKING": str(_PAUSE),
        "ECOMMERCE_DRIVING": str(_PAUSE),
        "ECOMMERCE_THINKING": str(_PAUSE),
    }
    cli, at = [sys.executable, "-m", "gateway.cli"], ["--config", str(folder / "gateway.toml")]

    def said(*words: str) -> str:
        return subprocess.run([*cli, *words, *at], env=env, check=True, capture_output=True, text=True).stdout.strip()

    operator = said("token", "--role", "operator")
    log = folder / "up.log"
    with up.process([*cli, "up", *at], log, env, partial(up.ready, log), up.BOTH):
        async with httpx.AsyncClient(base_url=origin, timeout=up.WITHIN, trust_env=False) as http:
            tokens = [await customer(http) for _ in range(customers)]
            shop, ready = Shop(http, operator, tokens), asyncio.Event()
            watching = asyncio.create_task(shop.watch(ready), name="watch")
            try:
                await ready.wait()
                yield shop
            finally:
                shop.close()
                watching.cancel()
                await asyncio.wait([watching])


async def _measured(folder: Path, load: Load) -> tuple[Took, Took]:
    async with _shop(folder, load.clients) as shop:
        await shop.stock_up(10 * load.count + 10_000)
        paced, at_once = await shop.paced(load.rate, load.seconds), await shop.at_once(load.count, load.clients)
    if wrong := faults(books(folder / "data")):
        raise RuntimeError(f"the books are wrong: {wrong[:3]}")
    return paced, at_once


async def bare(folder: Path, load: Load) -> tuple[Took, Took]:
    """Measure what does the least: paced, and at once."""
    port, secret = embedded.free_port(), secrets.token_hex(32)
    token = issue(secret.encode(), Principal("user", "bench"), 3600, time.time())
    argv = [sys.executable, _BARE, str(port), str(folder / "bare.db"), secret]
    there = partial(up.answers, f"http://127.0.0.1:{port}/")
    with up.process(argv, folder / "bare.log", os.environ, there, up.BOTH):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=up.WITHIN, trust_env=False) as http:
            shop = Shop(http, "", [token], follows=False)
            await shop.place()
            await shop.ended()
            took = await shop.paced(load.rate, load.seconds), await shop.at_once(load.count, load.clients)
            shop.close()
            return took


def run(folder: Path, quick: bool) -> Section:
    load = Load(5, 2, 40, 10) if quick else Load(8, 12, 100, 20)
    (folder / "shop").mkdir()
    theirs = asyncio.run(bare(folder / "shop", load))
    ours = asyncio.run(_measured(folder / "shop", load))
    rows = []
    for name, mine, other in zip(("paced", "at once"), ours, theirs, strict=True):
        for which, part in _CUTS:
            bounds = [(_cut(one.answers(), part),) for one in (mine, other)]
            goal = "< 50 ms" if which == "p99" else ""
            rows.append(Row(f"placed → 202, {name}, {which}", "ms", bounds[0], "bare", bounds[1], goal))
        for which, part in _CUTS:
            rows.append(Row(f"placed → confirmed, {name}, {which}", "ms", (_cut(mine.confirmations(), part),)))
    rows.append(Row("orders to completion, at once", "orders/s", (ours[1].rate(),)))
    method = _METHOD.format(pause=_PAUSE, **msgspec.structs.asdict(load))
    return Section("Shop", method, tuple(rows))


def _cut(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]

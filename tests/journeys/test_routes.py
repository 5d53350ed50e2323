"""A service with routes as its users meet it: `gateway up`, one origin, and a worker that dies and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.adapters import embedded
from tests.servers import eventually

ROOT = Path(__file__).parents[2]

APP = """
import asyncio
import os

from starlette.routing import Route

from gateway import App, Context, Service, Topic
from gateway.web import answer, operation, principal

async def who(request):
    return answer({"pid": os.getpid(), "who": str(request.state.principal)})

@operation("Whose this is.", grants=["user:{user}"])
async def mine(request) -> dict[str, str]:
    return {"mine": str(principal(request))}

async def slow(request):
    await asyncio.sleep(1)
    return answer("done")

orders = Service("orders", routes=[Route("/", who), Route("/users/{user}", mine), Route("/slow", slow)])
stock = Service("stock")

@stock.on("shop/orders/{order}")
async def take(order: dict[str, object], context: Context) -> None: ...

app = App("shop", [Topic(pattern="shop/orders/{order}")], services=[orders, stock])
"""


class Running:
    """`gateway up` on that application, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "my_shop.py").write_text(APP)
        self.folder, self.port = folder, embedded.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.env |= {"GATEWAY_DATA": str(folder / "data"), "GATEWAY_EDGE_PORT": str(self.port)}
        self.env |= {"PYTHONPATH": str(ROOT), "GATEWAY_PARTITIONS": "2", "GATEWAY_APPS": "my_shop:app"}
        self.out = folder / "out"
        with self.out.open("wb") as out:
            program = [sys.executable, "-m", "gateway.cli", "up"]
            self.process = subprocess.Popen(program, env=self.env, stdout=out, stderr=out, cwd=folder)

    def up(self) -> bool:
        assert self.process.poll() is None, self.out.read_text()
        return "Try next" in self.out.read_text()

    def token(self) -> dict[str, str]:
        return {"Authorization": "Bearer " + (self.folder / "data" / "user.token").read_text().strip()}

    def worker(self, port: int) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", "work", "shop.orders", "--health", f"127.0.0.1:{port}"]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as one:
        yield one


async def test_routes_are_on_the_origin_of_the_edge_and_survive_their_worker(shop: Running) -> None:
    await eventually(shop.up, 50)
    async with client(shop.url) as asked:

        async def answered() -> bool:
            return (await asked.get("/shop/orders/")).status_code == 200

        await eventually(answered, 50)
        first = (await asked.get("/shop/orders", headers=shop.token())).json()
        assert first["who"] == "user:me"
        assert (await asked.get("/shop/orders/users/me", headers=shop.token())).json() == {"mine": "user:me"}
        assert (await asked.get("/shop/orders/users/you", headers=shop.token())).status_code == 403
        assert (await asked.get("/shop/orders/users/me")).status_code == 401
        assert (await asked.get("/shop/orders/", headers={"Origin": "http://evil.example"})).status_code == 403
        assert (await asked.get("/shop/stock/")).status_code == 404, "a service without routes"
        told = (await asked.get("/openapi.json", headers=shop.token())).json()
        assert [path for path in told["paths"] if path.startswith("/shop/")] == ["/shop/orders/users/{user}"]

        os.kill(first["pid"], signal.SIGKILL)
        statuses: set[int] = set()

        async def back() -> bool:
            told = await asked.get("/shop/orders/")
            statuses.add(told.status_code)
            return told.status_code == 200 and told.json()["pid"] != first["pid"]

        await eventually(back, 50)
        assert statuses <= {200, 502, 503}, "away is told as away"


async def test_a_worker_that_is_asked_to_end_finishes_what_it_answers(shop: Running) -> None:
    await eventually(shop.up, 50)
    port = embedded.free_port()
    worker = await asyncio.create_subprocess_exec(*shop.worker(port), env=shop.env, cwd=shop.folder)
    try:
        async with client(f"http://127.0.0.1:{port}") as asked:

            async def ready() -> bool:
                try:
                    return (await asked.get("/shop/orders/")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, 50)
            slow = asyncio.create_task(asked.get("/shop/orders/slow"), name="slow")

            async def running() -> bool:
                return 'gateway_routes_running{service="shop.orders"} 1.0' in (await asked.get("/metrics")).text

            await eventually(running, 30)
            worker.terminate()
            assert (await slow).json() == "done"
    finally:
        if worker.returncode is None and worker.pid:
            async with asyncio.timeout(60):
                assert await worker.wait() == 0


def test_check_shows_where_routes_and_databases_are(tmp_path: Path) -> None:
    (tmp_path / "my_shop.py").write_text(APP)
    (tmp_path / "gateway.toml").write_text(
        '[gateway]\napps = ["my_shop:app"]\n[services."shop.stock"]\ndatabase = "postgresql://me:hidden@db/stock"\n'
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check"],
        env={**env, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shop.orders: 3 routes that no edge forwards to" in done.stdout
    assert "shop.stock: database postgresql://***@db/stock: ok" in done.stdout
    assert "hidden" not in done.stdout

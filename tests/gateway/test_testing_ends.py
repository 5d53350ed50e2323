"""Gateways of tests do not mix, and leave nothing: no task, no file, no server, whatever ends them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway import App, Service
from gateway.testing import DidNotHappen, running
from gateway.testing.log_server import SERVER
from tests.gateway.test_testing import TOPICS, Order, shop, stocked

ROOT = Path(__file__).parents[2]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where gateways of this test keep their files."""
    SERVER.server()  # its own folder was made elsewhere before
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_two_at_once_do_not_mix() -> None:
    async with running(shop()) as one, running(shop()) as two:
        await stocked(one, "tea", 1)
        await one.publish("shop/orders/7/placed", Order("tea"))
        await two.publish("shop/orders/7/placed", Order("tea"))
        await one.event("shop/orders/7/reserved")
        await two.event("shop/orders/7/refused")
        await one.at_rest()
        await two.at_rest()
        assert len(await one.events("shop/#")) == 2 == len(await two.events("shop/#"))
    async with running(shop()) as three:
        await three.at_rest()
        assert await three.events("shop/#") == []


@pytest.mark.parametrize("edge", [False, True])
async def test_nothing_is_left_whatever_ends_it(temporary: Path, edge: bool) -> None:
    before = asyncio.all_tasks()

    async def work(ends: str, begun: asyncio.Event) -> None:
        async with running(shop(), edge=edge) as gateway:
            await gateway.publish("shop/orders/1/placed", Order("juice"))  # its handler hangs
            await gateway.publish("shop/orders/2/placed", Order("tea"))
            await gateway.event("shop/orders/2/refused")
            begun.set()
            if ends == "fails":
                raise KeyError("the test")
            if ends == "hangs":
                await asyncio.Event().wait()

    for ends in ("well", "fails", "hangs", "early"):
        begun = asyncio.Event()
        task = asyncio.create_task(work(ends, begun), name="a test")
        if ends == "hangs":
            await begun.wait()
            task.cancel()
        elif ends == "early":
            await asyncio.sleep(0)
            task.cancel()
        (said,) = await asyncio.gather(task, return_exceptions=True)
        expected = {"well": type(None), "fails": KeyError}.get(ends, asyncio.CancelledError)
        assert isinstance(said, expected)
        assert asyncio.all_tasks() == before
        assert names(temporary) == []
    assert SERVER.lent == 0


@pytest.mark.parametrize("batch", [0, 2])
async def test_a_handler_that_loses_its_cancel_keeps_no_killed_service(batch: int) -> None:
    stock, calls = Service("stock"), asyncio.Queue[int]()

    @stock.on("shop/orders/{order}/placed", batch=batch)
    async def take(orders: Any, context: Any) -> None:
        calls.put_nowait(len(orders) if batch else 1)
        if again:
            return
        with suppress(asyncio.CancelledError):  # as `asyncio.wait_for` may, before Python 3.12
            await asyncio.Event().wait()

    again = False
    async with running(App("shop", TOPICS, [stock])) as gateway:
        await gateway.publish("shop/orders/1/placed", Order("tea"))
        await calls.get()
        async with asyncio.timeout(30), gateway.away("shop.stock", killed=True):
            again = True
        await gateway.at_rest()  # it was not done, and came again
        assert calls.qsize() == 1
        assert await gateway.dead_letters() == []


async def test_a_log_server_that_dies_is_told_and_the_next_gateway_has_another() -> None:
    async with running(App("shop", TOPICS)) as gateway:
        SERVER.server().kill()
        with pytest.raises(DidNotHappen, match="the log server is away"):
            await gateway.event("shop/notes/1", within=0.5)
    async with running(shop()) as gateway:
        await gateway.publish("shop/orders/7/placed", Order("tea"))
        await gateway.event("shop/orders/7/refused")


def pytest_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_the_example_runs_is_short_and_leaves_nothing(tmp_path: Path) -> None:
    example = "examples/test_a_service.py"
    assert len((ROOT / example).read_text().splitlines()) < 30
    ran = pytest_in(tmp_path, example)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert names(tmp_path) == []


ANYIO = """
import pytest
from examples.a_service import app
from gateway.testing import running

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def gateway():
    async with running(app) as gateway:
        yield gateway

@pytest.mark.parametrize("n", range(3))
async def test_it(gateway, n):
    await gateway.publish(f"shop/orders/{n}/placed", {"item": "tea"})
    await gateway.event("shop/orders/+/reserved")
    await gateway.at_rest()
"""


def test_it_works_by_anyio(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(ANYIO)
    (tmp_path / "tmp").mkdir()
    ran = pytest_in(tmp_path / "tmp", "-p", "no:asyncio", f"--rootdir={tmp_path}", "-c", "/dev/null", str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert names(tmp_path / "tmp") == []

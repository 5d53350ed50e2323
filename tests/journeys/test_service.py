"""A service as its operator meets it: `gateway up` runs the example, and what it rejects is mended by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.adapters import embedded
from tests.servers import eventually

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "a_service.py"


class Running:
    """`python examples/a_service.py` in a folder of its own, and commands beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.env |= {"GATEWAY_DATA": str(folder / "data"), "GATEWAY_EDGE_PORT": str(embedded.free_port())}
        self.env |= {"PYTHONPATH": os.pathsep.join([str(EXAMPLE.parent), str(ROOT)]), "GATEWAY_PARTITIONS": "2"}
        self.out = folder / "out"
        with self.out.open("wb") as out:
            # What the example becomes by exec, on a PYTHONPATH with this checkout's gateway.
            program = [sys.executable, "-m", "gateway.cli", "up"]
            self.env["GATEWAY_APPS"] = "a_service:app"
            self.process = subprocess.Popen(program, env=self.env, stdout=out, stderr=out, cwd=folder)

    def up(self) -> bool:
        assert self.process.poll() is None, self.out.read_text()
        return "services are ready" in self.out.read_text()

    async def ask(self, *words: str, code: int = 0) -> str:
        program = (sys.executable, "-m", "gateway.cli", *words)
        env = self.env | {"COLUMNS": "200"}
        asked = await asyncio.to_thread(
            subprocess.run, program, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert asked.returncode == code, asked.stdout + asked.stderr
        return asked.stdout + asked.stderr

    async def lines(self, *words: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (await self.ask(*words, "--json")).splitlines() if line.startswith("{")]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)


async def test_an_event_becomes_another_and_what_is_rejected_is_handled_by_hand(example: Running) -> None:
    await eventually(example.up, 50)
    await example.ask("pub", "shop/orders/7/placed", '{"item": "tea"}')
    await example.ask("pub", "shop/orders/8/placed", '{"item": "coffee"}')

    async def reserved() -> list[dict[str, object]]:
        found = await example.lines("tail", "shop/orders/+/reserved", "--from", "earliest", "--no-follow")
        return [event for event in found if event["topic"] == "shop/orders/7/reserved"]

    await eventually(reserved, 30)
    await eventually(lambda: example.lines("dead", "ls"), 30)
    (letter,) = await example.lines("dead", "ls", "--group", "shop.stock", "--reason", "rejected")
    at = str(letter["letter"])
    shown = await example.ask("dead", "show", at)
    assert "we sell tea" in shown
    assert "coffee" in shown
    assert "1 would be replayed" in await example.ask("dead", "replay", "--group", "shop.stock", "--dry-run")
    assert "nothing says which letters" in await example.ask("dead", "drop", code=1)
    assert "there is no dead letter" in await example.ask("dead", "show", f"{letter['letter']}9", code=1)
    edited = await example.ask("dead", "edit", at, "--data", '{"item": "tea"}')
    assert "gateway.audit" in edited
    await eventually(lambda: _reserved(example, "8"), 30)

    (row, *_) = await example.lines("groups")
    assert (row["group"], row["paused"]) == ("shop.stock", False)
    assert "shop.stock" in await example.ask("groups")
    assert "paused" in await example.ask("groups", "pause", "shop.stock")
    await example.ask("pub", "shop/orders/9/placed", '{"item": "tea"}')
    assert "resumed" in await example.ask("groups", "resume", "shop.stock")
    await eventually(lambda: _reserved(example, "9"), 30)
    assert "goes on after" in await example.ask("groups", "replay", "shop.stock", "--from", "1h")
    assert "no group 'shop.stok' has begun" in await example.ask("groups", "pause", "shop.stok", code=1)
    assert "there is no service 'shop.stok'" in await example.ask("work", "shop.stok", code=1)


async def _reserved(example: Running, order: str) -> bool:
    topic = f"shop/orders/{order}/reserved"
    return bool(await example.lines("tail", topic, "--from", "earliest", "--no-follow"))


async def test_one_worker_by_hand_tells_how_it_is(example: Running) -> None:
    await eventually(example.up, 50)
    port = embedded.free_port()
    program = (sys.executable, "-m", "gateway.cli", "work", "shop.stock", "--health", f"127.0.0.1:{port}")
    worker = await asyncio.create_subprocess_exec(*program, env=example.env, cwd=example.folder)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def ready() -> bool:
                try:
                    return (await client.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, 30)
            text = (await client.get("/metrics")).text
        assert 'gateway_partitions_held{service="shop.stock"}' in text
    finally:
        worker.terminate()
        async with asyncio.timeout(60):
            code = await worker.wait()
    assert code == 0

"""Every fault again and again, each round with new seeds: `make soak`, for `SOAK_SECONDS` (ten minutes by default)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters.child import Server
from tests.faults.proxy import Proxy, proxy
from tests.faults.worker_checker import complaints
from tests.faults.worker_load import MIXED, Fleet, fleet
from tests.faults.worker_process import LEASE

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
def test_every_fault_again_and_again() -> None:
    until = _until()
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        rounds += 1
        print(f"  · round {rounds}", flush=True)  # noqa: T201 - a soak is watched
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/faults", "-q", "-x", "-p", "no:cacheprovider"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        # A failed round keeps its history: what was sent, what was stored, and the seed.
        assert ran.returncode == 0, f"round {rounds}\n{ran.stdout[-20_000:]}"


def _until() -> float:
    return time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))


@pytest.mark.soak
async def test_workers_under_every_fault_at_once(fresh_log_server: Callable[..., Server], tmp_path: Path) -> None:
    server, until = fresh_log_server(), _until()
    async with proxy(server.url) as between, fleet(server.url, tmp_path, workers_url=between.url) as workers:
        workers.faults = True
        await workers.add(3)
        workers.pour(5, (*MIXED, "wrong"))
        faults = 0
        while time.monotonic() < until:
            await workers.more(100)
            await _one_fault(workers, server, between)
            faults += 1
        # What was sent while workers were down waits: so many seconds for that.
        story = await workers.rest(within=600)
        print(f"  · {faults} faults, {len(story.sent)} events, {story.doubles} doubled")  # noqa: T201 - a soak is watched
        assert complaints(story) == set(), workers.kept(story)


async def _one_fault(workers: Fleet, server: Server, between: Proxy) -> None:
    dice, pause = workers.dice, workers.dice.random() * 2.5 * LEASE
    one = dice.choice(workers.workers)
    match dice.choice(["kill", "kill", "stop", "server", "both", "cut"]):
        case "kill":
            one.send(signal.SIGKILL)
        case "stop":
            one.send(signal.SIGSTOP)
            await asyncio.sleep(pause)
            one.send(signal.SIGCONT)
        case "cut":
            between.swallow = True
            await asyncio.sleep(pause / 10)
            between.cut()
            between.swallow = False
        case what:
            if what == "both":
                one.send(signal.SIGKILL)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

"""Clocks off by an hour, of workers and of the log server: nothing is lost, stuck for the hour, or held by two."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.adapters.child import Server
from tests.faults.clocks import Clock, library
from tests.faults.worker_checker import Story, complaints
from tests.faults.worker_load import Fleet, fleet
from tests.faults.worker_process import LEASE

Start = Callable[..., Server]
HOUR = 3600


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("clock"))


# --- of a worker ----------------------------------------------------------------------------------------------------


async def _workers_disagree(workers: Fleet, folder: Path, made: Path) -> None:
    """One is an hour ahead, one an hour behind, and in the end the other way round."""
    one, other = Clock(folder, made, "one"), Clock(folder, made, "other")
    one.set_ahead(HOUR)
    other.set_ahead(-HOUR)
    await workers.add(2, one.environment, other.environment)
    workers.pour()
    await workers.more(200)
    one.set_ahead(-HOUR)
    await workers.more(200)
    other.set_ahead(HOUR)
    await workers.more(200)


async def test_workers_an_hour_apart(valkey: Server, tmp_path: Path, clock_library: Path) -> None:
    async with fleet(valkey.url, tmp_path) as workers:
        await _workers_disagree(workers, tmp_path, clock_library)
        story = await workers.rest()
        assert complaints(story) == set(), workers.kept(story)


async def test_a_worker_that_measures_by_the_time_of_day_is_found(
    valkey: Server, tmp_path: Path, clock_library: Path
) -> None:
    async with fleet(valkey.url, tmp_path, "TrustsWallClock") as workers:
        one = Clock(tmp_path, clock_library, "one")
        await workers.add(1, one.environment)
        workers.pour()
        await workers.more(200)
        one.set_ahead(-HOUR)
        story = await workers.rest(within=3 * LEASE)
        assert "pending" in complaints(story), workers.kept(story)


# --- of the log server ----------------------------------------------------------------------------------------------


async def _moved(
    start: Start,
    folder: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    ahead: int,
    within: float = 60.0,
) -> tuple[Story, str]:
    """The server's clock is moved under load; then a worker dies, and what it held must go to the other."""
    clock = Clock(folder, made, "server")
    with monkeypatch.context() as around:
        for name, value in clock.environment.items():
            around.setenv(name, value)
        server = start()
    async with fleet(server.url, folder, kind) as workers:
        workers.faults = True
        await workers.add(2)
        workers.pour(does=("", "", "slow", "flaky"))
        await workers.more(300)
        clock.set_ahead(ahead)
        workers.dice.choice(workers.workers).send(signal.SIGKILL)
        await workers.more(300)
        # Once more, of a worker that has settled by the new time.
        workers.dice.choice(workers.workers).send(signal.SIGKILL)
        await workers.more(100)
        story = await workers.rest(within)
        return story, workers.kept(story)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_the_log_servers_clock_moves_by_an_hour(
    fresh_log_server: Start, tmp_path: Path, clock_library: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    story, where = await _moved(fresh_log_server, tmp_path, clock_library, monkeypatch, "Holding", ahead)
    assert complaints(story) == set(), where


async def test_a_log_that_trusts_its_clock_is_found(
    fresh_log_server: Start, tmp_path: Path, clock_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = fresh_log_server, tmp_path, clock_library, monkeypatch
    story, where = await _moved(*arguments, "TrustsServerClock", -HOUR, within=3 * LEASE)
    assert "pending" in complaints(story), where

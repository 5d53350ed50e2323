"""Services: how many events one worker handles, without a database and with one, beside the peers."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import redis

from benchmarks import machine, orders, peers
from benchmarks.orders import STREAM, Task, Told
from benchmarks.results import Row, Section
from gateway.adapters import embedded

_METHOD = (
    "One process on a core of its own; Valkey (Unix socket, `appendfsync always`) has the other. Orders of 128 bytes "
    "of JSON and {keys:,} keys are in the log before it starts; the first tenth is not measured; the end is when "
    "everything is acknowledged. The run fails unless every order was handled once. Worker: acknowledgement, retries "
    "and dead letters as they are by default, a handler that counts. FastStream {version}: a subscriber of a stream "
    "with a consumer group, its own message form, pydantic, at most 100 read at once, batches 1,000; an event that "
    "fails stays pending. redis-py: asyncio, XREADGROUP of 100, msgspec, XACK of each. With a database: an inbox row, "
    "an UPDATE and an outbox row per event, until the outbox is empty and the facts are in the log, each once. SQLite: "
    "WAL, `synchronous=FULL`; `sqlite3` and `asyncpg` run the three statements alone: no log, no relay."
)
#: Events of one round, as many as take a second or two.
_COUNTS = {"worker": 100_000, "faststream": 2_000, "faststream batch": 30_000, "redis-py": 5_000}
#: Seconds within which a contestant has done everything.
_WITHIN = 120.0
#: Seconds between two questions whether everything is done.
_ASK = 0.02


class Took(msgspec.Struct, frozen=True):
    """Events per second by the clock; microseconds of CPU of the measured process per event, where we saw its end."""

    rate: float
    us: float = 0.0


class Ring:
    """A log server, and one contestant at a time on a core of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.log = redis.Redis.from_url(url)
        self.folder = folder
        self._numbers = itertools.count(1)

    def run(self, task: Task, done: Callable[[], bool] | None = None) -> Took:
        """Measure ``task`` until ``done``, or until it says so itself."""
        folder = self.folder / f"{task.kind.replace(' ', '-')}-{next(self._numbers)}"
        folder.mkdir()
        (folder / "task.json").write_bytes(msgspec.json.encode(task))
        argv = [sys.executable, "-m", "benchmarks.contestant", str(folder)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            try:
                machine.pin(child.pid, machine.SERVER_CORE)
                ended, cpu = (0.0, 0.0) if done is None else _until(done, child)
                out, _ = child.communicate(timeout=_WITHIN)
            except BaseException:
                child.kill()
                raise
        assert child.returncode == 0, f"{task.kind} ended with {child.returncode}"
        told = msgspec.json.decode(out, type=Told)
        assert (told.lost, told.doubled) == (0, 0), f"{task.kind}: {told}"
        if done is None:
            return Took(told.measured / (told.ended - told.began))
        return Took(told.measured / (ended - told.began), (cpu - told.cpu) / told.measured * 1e6)


@contextmanager
def ring(folder: Path, *extra: str) -> Iterator[Ring]:
    """A log server on the generators' core, ``extra`` configured, and nobody on the other yet."""
    folder.mkdir()
    with embedded.valkey(folder / "log", extra=extra) as server:
        machine.pin(server.pid, machine.GENERATOR_CORE)
        yield Ring(folder, server.url)


def _until(done: Callable[[], bool], child: subprocess.Popen[bytes]) -> tuple[float, float]:
    give_up = time.monotonic() + _WITHIN
    while not done():
        assert child.poll() is None, f"it ended with {child.returncode}"
        if time.monotonic() > give_up:
            raise RuntimeError(f"lost: not everything was done within {_WITHIN} s")
        time.sleep(_ASK)
    return time.monotonic(), machine.cpu_seconds(child.pid)


# --- without a database ---


def _plain(folder: Path, counts: dict[str, int], rounds: int) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = {kind: [] for kind in counts}
    for turn in range(rounds):
        for kind, count in counts.items():
            with ring(folder / f"{kind.replace(' ', '-')}-{turn}") as on:
                task = Task(kind, on.url, "stock", count, count // 10, batch=1_000 if "batch" in kind else 100)
                took[kind].append(on.run(task, _filled(on, kind, count)))
                assert not orders.letters(on.log)
    return took


def _filled(on: Ring, kind: str, count: int) -> Callable[[], bool]:
    if kind == "worker":
        asyncio.run(orders.fill(on.url, count))
        return lambda: orders.at_rest(on.log, "shop.stock")
    stream = STREAM if kind == "redis-py" else peers.FASTSTREAM
    peers.fill(on.log, stream, count)
    on.log.xgroup_create(stream, "stock", id="0")
    return lambda: orders.acknowledged(on.log, stream, "stock")


# --- with a database ---


def _handled(folder: Path, kind: str, count: int, url: str, batch: int = 0) -> Took:
    with ring(folder) as on:
        asyncio.run(orders.fill(on.url, count))
        before = orders.stored(on.log)
        task = Task(kind, on.url, "stock", count, count // 10, url, batch)

        def done() -> bool:
            # Not the cursor, which passes the facts when there is nothing else to do.
            return orders.stored(on.log) >= before + count and not _ask(url, "SELECT count(*) FROM gateway_outbox")

        took = on.run(task, done)
        assert orders.at_rest(on.log, "shop.stock"), "it went away and had not acknowledged everything"
        ids = orders.facts(on.log)
        assert len(ids) == len(set(ids)) == count, f"{len(ids)} facts, {len(set(ids))} of them different, of {count}"
        assert not orders.letters(on.log)
    _all_there(url, count, waiting=0)
    return took


def _alone(folder: Path, kind: str, count: int, url: str, batch: int = 0) -> Took:
    folder.mkdir()
    took = Ring(folder, "unix:///nobody").run(Task(kind, "", "peer", count, count // 10, url, batch))
    _all_there(url, count, waiting=count)
    return took


def _all_there(url: str, count: int, waiting: int) -> None:
    """Every event has its row in the inbox and its update, and so many are in the outbox."""
    asked = ("sum(n) FROM stock", "count(*) FROM gateway_inbox", "count(*) FROM gateway_outbox")
    found = [_ask(url, f"SELECT {what}") for what in asked]
    assert found == [count, count, waiting], found


def _ask(url: str, query: str) -> int:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            return int(db.execute(query).fetchone()[0])
    asyncpg: Any = importlib.import_module("asyncpg")

    async def ask() -> int:
        db = await asyncpg.connect(url)
        try:
            return int(await db.fetchval(query))
        finally:
            await db.close()

    return asyncio.run(ask())


@contextmanager
def _postgres() -> Iterator[Callable[[str], str] | None]:
    """New databases of a PostgreSQL on the generators' core; None where there is none."""
    # The tests know where to find one and whom to run it as; without one they skip, by pytest's own exception.
    import pytest

    from tests.databases import new_database, postgres

    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres())
        except pytest.skip.Exception:
            yield None
            return
        machine.pin(server.pid, machine.GENERATOR_CORE)
        yield lambda name: new_database(server, name)


class Contest(msgspec.Struct, frozen=True):
    """What one contestant does with a database in each round."""

    kind: str
    count: int
    batch: int = 0
    on: str = "sqlite"
    ours: bool = True


_CONTESTS = {
    "sqlite": Contest("database", 5_000),
    "sqlite3, commit 1": Contest("sqlite3", 2_000, 1, ours=False),
    "sqlite batch": Contest("database batch", 10_000, 100),
    "sqlite3, commit 100": Contest("sqlite3", 20_000, 100, ours=False),
    "postgresql": Contest("database", 2_000, on="postgresql"),
    "postgresql batch": Contest("database batch", 8_000, 100, on="postgresql"),
    "asyncpg": Contest("asyncpg", 4_000, 1, on="postgresql", ours=False),
}


def _databases(folder: Path, scale: int, rounds: int) -> dict[str, list[Took]]:
    took: dict[str, list[Took]] = defaultdict(list)
    with _postgres() as new:
        for turn in range(rounds):
            for number, (name, contest) in enumerate(_CONTESTS.items()):
                place = folder / f"database-{turn}-{number}"
                if contest.on == "sqlite":
                    url = f"sqlite:///{place}.db"
                elif new is not None:
                    url = new(f"bench{turn}{number}")
                else:
                    continue
                measure = _handled if contest.ours else _alone
                took[name].append(measure(place, contest.kind, contest.count // scale, url, contest.batch))
    return took


def run(folder: Path, quick: bool) -> Section:
    if importlib.util.find_spec("faststream") is None:
        raise machine.NotMeasurable("a peer is missing: make bench installs requirements/bench.txt")
    folder, rounds, scale = folder / "services", 1 if quick else 3, 10 if quick else 1
    folder.mkdir()
    took = _plain(folder, {kind: count // scale for kind, count in _COUNTS.items()}, rounds)
    took |= _databases(folder, scale, rounds)

    def rate(figure: str, name: str, peer: str, with_: str, goal: str = "") -> Row:
        ours, theirs = took[name], took.get(peer, [])
        return Row(figure, "/s", tuple(one.rate for one in ours), with_, tuple(one.rate for one in theirs), goal)

    def cpu(figure: str, name: str) -> Row:
        return Row(f"{figure}, CPU per event", "µs", tuple(one.us for one in took[name]))

    rows = [
        rate("no database", "worker", "faststream", "FastStream, one at a time", "at least 30,000/s"),
        rate("no database", "worker", "faststream batch", "FastStream, batches"),
        rate("no database", "worker", "redis-py", "redis-py"),
        cpu("no database", "worker"),
    ]
    single, batches = "SQLite, one event per call", "SQLite, batches of 100"
    rows += [
        rate(single, "sqlite", "sqlite3, commit 1", "`sqlite3`, a commit per event", "at least 3,000/s"),
        rate(single, "sqlite", "sqlite3, commit 100", "`sqlite3`, a commit per 100"),
        cpu(single, "sqlite"),
        rate(batches, "sqlite batch", "sqlite3, commit 100", "`sqlite3`, a commit per 100", "at least 10,000/s"),
        cpu(batches, "sqlite batch"),
    ]
    if "postgresql" in took:
        single, batches = "PostgreSQL, one event per call", "PostgreSQL, batches of 100"
        rows += [
            rate(single, "postgresql", "asyncpg", "`asyncpg`, a commit per event"),
            rate(batches, "postgresql batch", "asyncpg", "`asyncpg`, a commit per event"),
        ]
    version = metadata.version("faststream")
    return Section("Services", _METHOD.format(keys=orders.KEYS, version=version), tuple(rows))

"""Storms: ten thousand clients come back at once, each with a token of its own and a hundred events to catch up."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import jwt
import msgspec
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import machine
from benchmarks.results import Row, Section
from benchmarks.stage import Stage, stage
from benchmarks.storm_load import Back, Came, Crowd
from benchmarks.topics import PREFIX, TOPICS, payload
from gateway import limits
from gateway.adapters.identity import new_id
from gateway.adapters.log import AppLog, Log
from gateway.adapters.log.keys import log_key
from gateway.adapters.tokens import Verifier
from gateway.core.declared import Declared
from gateway.core.event import Draft, Event, Meta, Partition, Position
from gateway.settings import KeyTable, Settings, TokensTable

_METHOD = (
    "{count:,} clients{fewer} connect at once, each with an EdDSA token of its own, send the SDKs' two commands one "
    "after the other, and have {missed} events of 128 bytes to catch up: from the first connect to the last event of "
    "the last client, each event once and in order. Log reads: what the log server counted as XRANGE and XREVRANGE, "
    "those inside scripts among them. Beyond memory: {filling:,} other events of each partition lie between. Verifying "
    "one token takes {verify:.0f} µs. The edges share one core, clients and log server the other."
)
_CLIENTS, _MISSED, _TOPICS = 10_000, 100, 1_000
_READS = ("xrange", "xrevrange")
#: Descriptors that an edge and a generator need beside their clients' sockets.
_SPARE = 500


class _Key:
    """Signs the tokens of the crowd; the edge has its public half."""

    def __init__(self, folder: Path) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.file = folder / "bench.pem"
        public = self._private.public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.file.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))

    def token(self, n: int) -> str:
        now = int(time.time())
        claims = {"iss": "bench", "aud": "bench", "sub": f"user-{n}", "iat": now, "exp": now + 3_600, "jti": f"{n}"}
        return jwt.encode(claims, self._private, "EdDSA", {"kid": "bench"})

    @property
    def settings(self) -> Settings:
        key = KeyTable(id="bench", algorithm="EdDSA", file=str(self.file), issuer="bench", audience="bench")
        return Settings(tokens=TokensTable(keys=(key,)))


def _clients() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(_CLIENTS, hard - _SPARE)


def _topics(count: int) -> list[str]:
    return [f"{PREFIX}{n:03}" for n in range(count)]


async def _missed(url: str, topics: list[str], missed: int, filling: int) -> dict[str, tuple[str, int]]:
    """Append what the crowd misses, in turns of its topics; return where each client stood before."""
    declared = Declared(TOPICS)
    log = await Log.open(url, [AppLog(app) for app in declared.apps])
    writing = asyncio.create_task(log.run(), name="log")
    tops = {partition: await log.top(partition) for partition in log.partitions()}
    for _ in range(missed):
        await _append(log, declared, topics)
    quiet: dict[Partition, str] = {}
    for topic in (f"{PREFIX}-quiet-{n}" for n in range(limits.PARTITIONS * 16)):
        quiet.setdefault(declared.find(topic).partition, topic)
    for _ in range(filling // limits.APPEND_BATCH):
        await _append(log, declared, [topic for topic in quiet.values() for _ in range(limits.APPEND_BATCH)])
    writing.cancel()
    await asyncio.wait([writing])
    await log.close()
    return {topic: _told(tops[declared.find(topic).partition]) for topic in topics}


def _told(at: Position) -> tuple[str, int]:
    return str(at.epoch), at.offset


async def _append(log: Log, declared: Declared, topics: list[str]) -> None:
    drafts: dict[Partition, list[Draft]] = {}
    for topic in topics:
        found = declared.find(topic)
        meta = Meta(ts=int(time.time() * 1000), producer="mqtt", via="mqtt")
        drafts.setdefault(found.partition, []).append(Draft(Event(topic, payload(0), new_id(), meta), found.key))
    done = [log.append(partition, some, patient=True) for partition, some in drafts.items()]
    for answers in await asyncio.gather(*done):
        assert not any(isinstance(answer, Exception) for answer in answers), answers


def _reads(server: redis.Redis) -> int:
    stats = server.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in _READS)


class _Storm:
    """Edges that know the key, and crowds that come to them."""

    def __init__(self, on: Stage, key: _Key, tokens: list[str], edges: int) -> None:
        self._on, self._tokens = on, tokens
        self._server = redis.Redis.from_url(on.log.url)
        self._edges = [on.keyed_edge(n, str(key.file)) for n in range(edges)]
        self._ports = tuple(edge.port for edge in self._edges)

    def come(self, topics: int, missed: int, filling: int = 0) -> tuple[Came, int, float]:
        """Let them miss and come back; return how that went, how often the log was read, and what CPU edges used."""
        names = _topics(topics)
        self._wait_for_readers()
        at = asyncio.run(_missed(self._on.log.url, names, missed, filling))
        self._wait_until_seen()
        clients = [Back(token, topic := names[n % topics], *at[topic]) for n, token in enumerate(self._tokens)]
        plan = self._on.folder / "crowd.json"
        plan.write_bytes(msgspec.json.encode(Crowd(self._ports, tuple(clients), missed, within=60.0)))
        self._server.config_resetstat()
        argv = [sys.executable, "-m", "benchmarks.storm_load", str(plan)]
        before = sum(machine.cpu_seconds(edge.pid) for edge in self._edges)
        ran = subprocess.run(argv, capture_output=True, timeout=120, check=False)
        used = sum(machine.cpu_seconds(edge.pid) for edge in self._edges) - before
        reads = _reads(self._server)
        came = msgspec.json.decode(ran.stdout, type=Came)
        wrong = f"{came}: {ran.stderr.decode()[-2_000:]}"
        assert came.whole == came.recovered == came.clients, wrong
        assert not came.wrong, wrong
        return came, reads, used

    def _wait_for_readers(self) -> None:
        """Have every edge read every partition: readers stay when their first watcher has gone."""
        for port in self._ports:
            with self._get(port, f"{PREFIX[:-1]}%2B".replace("/", "%2F") + "/events") as answer:
                answer.readline()

    def _wait_until_seen(self) -> None:
        """Wait until every edge stands where the log does."""
        declared, give_up = Declared(TOPICS), time.monotonic() + 60.0
        one_each = {declared.find(topic).partition: topic for topic in _topics(limits.PARTITIONS * 16)}
        for partition, topic in one_each.items():
            info = self._server.xinfo_stream(log_key(partition))
            for port in self._ports:
                while self._position(port, topic) != info["last-generated-id"].decode():
                    assert time.monotonic() < give_up, f"the edge is behind in {partition}"
                    time.sleep(0.05)

    def _position(self, port: int, topic: str) -> str:
        with self._get(port, topic.replace("/", "%2F") + "/history?limit=0") as answer:
            position: str = answer.headers["event-position"]
            return position

    def _get(self, port: int, path: str) -> HTTPResponse:
        headers = {"Authorization": f"Bearer {self._tokens[0]}"}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/topics/{path}", headers=headers)
        answer: HTTPResponse = urllib.request.urlopen(asked, timeout=30)  # noqa: S310 - http, two lines above
        return answer


def _verify(key: _Key, tokens: list[str]) -> float:
    """Return how many microseconds it takes to verify one of ``tokens``."""
    verifier, now = Verifier(key.settings), time.time()
    began = time.perf_counter()
    for token in tokens:
        verifier.verify(token, now)
    return (time.perf_counter() - began) / len(tokens) * 1e6


def _rows(name: str, came: Came, reads: int, used: float, edges: int) -> Iterator[Row]:
    yield Row(f"{name}: all caught up", "s", (came.seconds,), goal="at most 20 s")
    yield Row(f"{name}: half caught up", "s", (came.half,))
    yield Row(f"{name}: longest wait for a reply", "s", (came.longest,), goal="below 5 s, when SDKs give up")
    yield Row(f"{name}: log reads", "", (float(reads),), goal=f"at most {2 * limits.PARTITIONS * edges}")
    yield Row(f"{name}: CPU of the edges per client", "ms", (used / came.clients * 1e3,))
    if came.again:
        yield Row(f"{name}: connections that were cut and came again", "", (float(came.again),))


def run(folder: Path, quick: bool) -> Section:
    count, topics, filling = (200, 20, 0) if quick else (_clients(), _TOPICS, limits.WINDOW_ENTRIES)
    rows: list[Row] = []
    key = _Key(folder)
    tokens = [key.token(n) for n in range(count)]
    verify = _verify(key, tokens[:1_000])
    for edges in (1,) if quick else (1, 2):
        with stage(folder / f"storm-{edges}") as on:
            machine.pin(on.log.pid, machine.GENERATOR_CORE)
            storm = _Storm(on, key, tokens, edges)
            cases = [(f"{topics:,} topics, beyond memory", topics, filling)] if filling else []
            if edges == 1:
                cases = [("one topic", 1, 0), (f"{topics:,} topics", topics, 0), *cases]
            for name, watched, between in cases:
                came, reads, used = storm.come(watched, _MISSED, between)
                said = f"{name}, {edges} {'edge' if edges == 1 else 'edges'}"
                rows += _rows(said, came, reads, used, edges)
    fewer = "" if count == _CLIENTS or quick else f" (of {_CLIENTS:,}: this machine's limit of open files)"
    method = _METHOD.format(count=count, fewer=fewer, missed=_MISSED, filling=filling, verify=verify)
    return Section("Storms", method, tuple(rows))

"""The log's scripts against a model in Python: whatever the order of appends, trims, walks and lives, they agree."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import msgspec
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.adapters.log import AppLog, Log, epochs
from gateway.core.event import Appended, Draft, Position
from gateway.errors import KeyReused
from tests.contracts.log_running import P, draft

T = TypeVar("T")

TOPICS = ("a/1", "a/2", "b")
drafts = st.builds(
    draft,
    st.sampled_from(TOPICS),
    st.uuids().map(str),
    st.sampled_from([b"", b"1", b"\x00\r\n"]),
    key=st.sampled_from(["", "", "a"]),
    retain=st.booleans(),
    replayed=st.booleans(),
    idempotency=st.sampled_from(["", "", "u/1", "u/2"]),
)


class Entry(msgspec.Struct):
    offset: int
    draft: Draft | None  # None: an epoch began


class Model:
    """All that ever happened, and up to where it was trimmed."""

    def __init__(self) -> None:
        self.entries = [Entry(1, None)]
        self.trimmed = 0
        self.last: dict[str, tuple[str, int, bytes]] = {}
        self.idem: dict[tuple[str, str], tuple[str, int, bytes]] = {}

    @property
    def top(self) -> int:
        return self.entries[-1].offset

    @property
    def kept(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.offset > self.trimmed]

    def of(self, key: str, after: int, entries: list[Entry] | None = None) -> list[int]:
        every = self.entries if entries is None else entries
        return [e.offset for e in every if e.draft is not None and e.draft.key == key and e.offset > after]

    def append(self, new: Draft) -> tuple[str, int, bool] | None:
        """(id, offset, duplicate), or None for a key used with another body."""
        event, name = new.event, (new.event.topic, new.idempotency)
        if new.idempotency and name in self.idem:
            id, offset, data = self.idem[name]
            return (id, offset, True) if data == event.data else None
        was = self.last.get(event.topic)
        if new.retain and new.replayed and was is not None and was[2] == event.data:
            return (was[0], was[1], True)
        self.entries.append(Entry(self.top + 1, new))
        if new.idempotency:
            self.idem[name] = (event.id, self.top, event.data)
        if new.retain and event.data:
            self.last[event.topic] = (event.id, self.top, event.data)
        elif new.retain:
            self.last.pop(event.topic, None)
        return (event.id, self.top, False)

    def trim(self, count: int) -> None:
        self.trimmed += count
        self.idem = {name: was for name, was in self.idem.items() if was[1] > self.trimmed}


class Scripts(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.raw = redis.Redis.from_url(self.url)
        self.raw.flushall()
        self.loop = asyncio.Runner()
        self.model = Model()
        self.log = self.run(Log.open(self.url, [AppLog("devices")], partitions=1))
        self.writing = self.loop.get_loop().create_task(self.log._writers[P].run())

    def run(self, what: Coroutine[object, object, T]) -> T:
        return self.loop.run(asyncio.wait_for(what, 10))

    def teardown(self) -> None:
        self.writing.cancel()
        self.run(self._gone())
        self.loop.close()
        self.raw.close()

    async def _gone(self) -> None:
        await asyncio.wait([self.writing])
        await self.log.close()

    @rule(batch=st.lists(drafts, min_size=1, max_size=6))
    def append(self, batch: list[Draft]) -> None:
        for new, answer in zip(batch, self.run(self.log.append(P, batch)), strict=True):
            expected = self.model.append(new)
            if expected is None:
                assert isinstance(answer, KeyReused)
            else:
                assert isinstance(answer, Appended)
                assert (answer.id, answer.position.offset, answer.duplicate) == expected

    @rule(keep=st.integers(0, 10))
    def trim(self, keep: int) -> None:
        promise = AppLog("devices", retention=0.0, keep=keep)
        count = self.run(self.log._trimmer.trim(self.log._links.writes[P], promise, P))
        self.model.trim(count)
        assert not count or self.model.top - self.model.trimmed >= keep

    @rule()
    def another_life(self) -> None:
        self.raw.hset("{devices.0}:epochs", "replid", "of another server")

        async def keep() -> None:
            wire = await self.log._links.writes[P].wire()
            await asyncio.gather(*(epochs.keep(wire, [P], self.log.counters) for _ in range(3)))

        self.run(keep())
        self.model.entries.append(Entry(self.model.top + 1, None))

    @precondition(lambda self: self.model.top > 1)
    @rule(key=st.sampled_from([*TOPICS, "a"]), back=st.integers(0, 15), limit=st.integers(1, 8))
    def walk(self, key: str, back: int, limit: int) -> None:
        after = max(0, self.model.top - back)
        walk = self.run(self.log.walk(P, key, Position(0, after), limit))
        found = [record.offset for record in walk.records]
        truth = self.model.of(key, after)
        assert walk.top.offset == self.model.top
        if walk.complete:
            assert found == truth
        elif walk.reason == "too_many":
            assert found == truth[-limit:]
            assert len(truth) > limit
        else:
            assert walk.reason == "trimmed"
            assert after < self.model.trimmed
            assert found == [offset for offset in truth if offset > self.model.trimmed]
        if after >= self.model.trimmed:
            assert walk.complete == (len(truth) <= limit)

    @invariant()
    def everything_agrees(self) -> None:
        page = self.run(self.log.read(P, Position(0, 0), 1_000))
        kept = self.model.kept
        assert [r.offset for r in page.records] == [e.offset for e in kept if e.draft is not None]
        assert [r.event for r in page.records] == [e.draft.event for e in kept if e.draft is not None]
        keys = [*TOPICS, "a"]
        newest = [max(self.model.of(key, 0, kept), default=None) for key in keys]
        assert self.run(self.log.heads(P, keys)) == newest
        last = self.run(self.log.last(P, None, 100))
        assert {r.event.topic: (r.event.id, r.offset, r.event.data) for r in last} == self.model.last
        assert self.raw.hlen("{devices.0}:idem") == len(self.model.idem)
        table = self.run(self.log.epochs(P))
        assert all(table.continuous(Position(r.epoch, r.offset)) for r in page.records)


def test_the_scripts_do_what_the_model_does(log_server: str) -> None:
    class Here(Scripts):
        url = log_server

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )

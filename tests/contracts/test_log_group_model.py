"""Groups against a model in Python: several workers take, lose, settle and release in any order, and they agree."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import TypeVar

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.adapters.log import AppLog, DeadLetter, Lease, Log, epochs
from gateway.adapters.log.group import Start
from gateway.adapters.log.keys import REPLAYS
from gateway.adapters.log.resp import Reply
from gateway.core.lanes import Changes, Item
from gateway.errors import Busy, Fenced
from tests.contracts.log_running import P, draft

T = TypeVar("T")

GROUPS = ("a", "b")
groups = st.sampled_from(GROUPS)
workers = st.integers(0, 2)


class Group(msgspec.Struct):
    """What the log should remember of a group."""

    cursor: int
    claimed: int
    oldest: int
    parked: dict[int, int] = {}  # offset -> attempts
    crashes: dict[int, int] = {}
    replays: int = REPLAYS
    #: Which worker holds it, None once it released; who holds an expired one may still go on.
    holder: int | None = None
    expired: bool = False
    paused: bool = False


class View(msgspec.Struct):
    """What one worker believes: a lease that may be another's by now."""

    lease: Lease
    worker: int
    cursor: int
    claimed: int
    parked: dict[int, int]
    valid: bool = True


class Scripts(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.raw = redis.Redis.from_url(self.url)
        self.raw.flushall()
        self.loop = asyncio.Runner()
        self.log = self.run(Log.open(self.url, [AppLog("devices")], partitions=1))
        self.writing = self.loop.get_loop().create_task(self.log._writers[P].run())
        self.top, self.floor, self.ids = 1, 0, 0
        self.controls = {1}
        self.groups: dict[str, Group] = {}
        self.views: dict[tuple[str, int], View] = {}
        self.dead: list[tuple[str, str, int]] = []  # group, reason, offset

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

    # --- the log

    @rule(count=st.integers(1, 6))
    def append(self, count: int) -> None:
        self.run(self.log.append(P, [draft(f"t/{n % 2}", f"id-{self.ids + n}") for n in range(count)]))
        self.ids += count
        self.top += count

    @rule()
    def another_life(self) -> None:
        self.raw.hset("{devices.0}:epochs", "replid", "of another server")

        async def keep() -> None:
            await epochs.keep(await self.log._links.writes[P].wire(), [P], self.log.counters)

        self.run(keep())
        self.top += 1
        self.controls.add(self.top)
        for group in self.groups.values():
            self.void(group)

    @rule(keep=st.integers(0, 12), unfinished=st.integers(3, 30))
    def trim(self, keep: int, unfinished: int) -> None:
        promise = AppLog("devices", retention=0.0, keep=keep, unfinished=unfinished)
        self.raw.delete("{devices.0}:marks")  # two marks within a millisecond have no order
        self.run(self.log._trimmer.trim(self.log._links.writes[P], promise, P))
        oldest = min((group.oldest for group in self.groups.values()), default=self.top + 1)
        cut = min(self.top - keep, max(oldest - 1, self.top - unfinished))
        gone = range(self.floor + 1, cut + 1)
        if not gone:
            return
        self.floor = cut
        for name, group in self.groups.items():
            if group.oldest > cut:
                continue
            for offset in gone:
                if offset < group.oldest or offset in self.controls:
                    continue
                if offset > group.cursor or offset in group.parked:
                    self.dead.append((name, "retention", offset))
                    group.parked.pop(offset, None)
                    group.crashes.pop(offset, None)
            group.cursor = max(group.cursor, cut)
            group.claimed = max(group.claimed, group.cursor)
            group.oldest = min([group.cursor + 1, *group.parked])

    # --- workers

    def void(self, group: Group) -> None:
        if group.holder is not None:
            for view in self.views.values():
                view.valid &= self.groups[view.lease.group] is not group
            group.expired = True

    @rule(name=groups, worker=workers, start=st.sampled_from(["earliest", "latest"]))
    def take(self, name: str, worker: int, start: Start) -> None:
        lease = self.run(self.log.groups.take(P, name, f"w{worker}", start, 60.0))
        group = self.groups.get(name)
        # Under its own name it is the same worker, started again.
        if group is not None and (group.paused or (group.holder not in (None, worker) and not group.expired)):
            assert lease is None
            return
        assert lease is not None
        if group is None:
            cursor = self.floor if start == "earliest" else self.top
            group = self.groups[name] = Group(cursor, cursor, cursor + 1)
        self.void(group)
        assert (lease.cursor, lease.claimed) == (group.cursor, group.claimed)
        assert lease.suspects_to == (0 if group.holder is None else max(group.cursor, group.claimed, 1))
        assert {item.offset: item.attempts for item in lease.parked} == group.parked
        assert {item.offset: item.crashes for item in lease.parked} == {
            offset: group.crashes.get(offset, 0) for offset in group.parked
        }
        group.holder, group.expired = worker, False
        self.views[name, worker] = View(lease, worker, group.cursor, group.claimed, dict(group.parked))

    @rule(name=groups)
    def expire(self, name: str) -> None:
        group = self.groups.get(name)
        if group is not None and group.holder is not None:
            self.raw.hset(f"{{devices.0}}:group:{name}", "until", 1)
            group.expired = True

    def view(self, name: str, worker: int) -> tuple[View | None, Group | None]:
        """A worker's view, and the group if it may still change it."""
        view = self.views.get((name, worker))
        return view, self.groups[name] if view is not None and view.valid else None

    def tried(self, group: Group | None, what: Coroutine[object, object, T]) -> T | None:
        if group is None:
            with pytest.raises(Fenced):
                self.run(what)
            return None
        return self.run(what)

    @rule(name=groups, worker=workers, ahead=st.integers(0, 8), claim=st.integers(0, 5), data=st.data())
    def settle(self, name: str, worker: int, ahead: int, claim: int, data: st.DataObject) -> None:
        view, group = self.view(name, worker)
        if view is None:
            return
        cursor = min(self.top, view.cursor + ahead)
        passed = [n for n in range(view.cursor + 1, cursor + 1) if n not in self.controls and n > self.floor]
        fate = {n: data.draw(st.sampled_from(["done", "parked", "buried"]), label=str(n)) for n in passed}
        fate |= {n: data.draw(st.sampled_from(["kept", "parked", "done", "buried"]), label=str(n)) for n in view.parked}
        survived = [n for n in fate if data.draw(st.booleans())]
        parked = {n: view.parked.get(n, 0) + 1 for n, what in fate.items() if what == "parked"}
        buried = [n for n, what in fate.items() if what == "buried"]
        released = [n for n in view.parked if fate[n] in {"done", "buried"}]
        after = {n: attempts for n, attempts in (view.parked | parked).items() if n not in released}
        oldest = min([cursor + 1, *after])
        claimed = max(view.claimed, min(self.top, cursor + claim))
        items = [Item(view.lease.epoch, n, "k", attempts) for n, attempts in parked.items()]
        letters = [DeadLetter("gave_up", "why", "t", b"{}", group=name, id="i", at=f"1-{n}") for n in buried]
        changes = Changes(cursor, oldest, items, released, [], survived)
        self.tried(group, view.lease.settle(changes, claimed, letters))
        if group is None:
            return
        view.cursor, view.claimed, view.parked = cursor, claimed, after
        group.cursor, group.claimed, group.oldest, group.expired = cursor, claimed, oldest, False
        group.parked.update(parked)
        for n in released:
            group.parked.pop(n, None)
        for n in survived:
            group.crashes.pop(n, None)
        self.dead += [(name, "gave_up", n) for n in buried]

    @rule(name=groups, worker=workers, what=st.sampled_from(["renew", "release"]))
    def hold(self, name: str, worker: int, what: str) -> None:
        view, group = self.view(name, worker)
        if view is None:
            return
        self.tried(group, view.lease.renew() if what == "renew" else view.lease.release())
        if group is None:
            return
        if what == "renew":
            group.expired = False
            assert view.lease.paused == group.paused
            self.hear(view, group)
        else:
            view.valid = False
            group.holder, group.claimed, group.expired = None, group.cursor, False

    def hear(self, view: View, group: Group) -> None:
        new = {item.offset: item.attempts for item in self.run(view.lease.fresh())}
        view.parked |= new
        assert {n for n in group.parked if n >= REPLAYS} == {n for n in view.parked if n >= REPLAYS}

    @rule(name=groups, worker=workers, offset=st.integers(1, 40))
    def suspect(self, name: str, worker: int, offset: int) -> None:
        view, group = self.view(name, worker)
        if view is None:
            return
        count = self.tried(group, view.lease.suspect(offset))
        if group is not None:
            group.crashes[offset] = group.crashes.get(offset, 0) + 1
            group.expired = False
            assert count == group.crashes[offset]

    # --- operators

    @rule(name=groups, to=st.integers(0, 60), void=st.booleans())
    def seek(self, name: str, to: int, void: bool) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        seeking = self.log.groups.seek(P, name, to, void=void)
        if group.holder is not None and not group.expired and not void:
            with pytest.raises(Busy):
                self.run(seeking)
            return
        cursor = max(self.floor, min(self.top, to))
        assert self.run(seeking) == cursor
        self.void(group)
        group.holder, group.expired = None, False
        group.parked = {n: a for n, a in group.parked.items() if n <= cursor or n >= REPLAYS}
        group.crashes = {n: a for n, a in group.crashes.items() if n <= cursor or n >= REPLAYS}
        group.cursor = group.claimed = cursor
        group.oldest = min([cursor + 1, *group.parked])

    @rule(name=groups)
    def pause_or_resume(self, name: str) -> None:
        group = self.groups.get(name)
        if group is not None:
            self.run((self.log.groups.resume if group.paused else self.log.groups.pause)(P, name))
            group.paused = not group.paused

    @precondition(lambda self: self.dead)
    @rule(which=st.integers(0, 1_000), name=groups)
    def replay(self, which: int, name: str) -> None:
        letters = self.letters()
        id, letter = letters[which % len(letters)]
        answer = self.run(self.log.groups.replay(P, name, [id, id]))
        if letter.group != name or name not in self.groups:
            assert answer == {}
            return
        group = self.groups[name]
        group.replays += 1
        group.parked[group.replays] = 0
        assert answer == {id: group.replays}
        self.dead.remove((name, letter.reason, int(letter.at.partition("-")[2])))

    @invariant()
    def everything_agrees(self) -> None:
        assert self.run(self.log.floor(P)) == self.floor
        found = Counter((one.group, one.reason, int(one.at.partition("-")[2])) for _, one in self.letters())
        assert found == Counter(self.dead)
        for name, group in self.groups.items():
            state = self.run(self.log.groups.ask(P, name))
            assert (state.cursor, state.oldest, state.parked) == (group.cursor, group.oldest, len(group.parked))
            assert (state.top, state.lag) == (self.top, self.top - max(group.cursor, self.floor))
            held = group.holder is not None and not group.expired
            assert (state.holder, state.paused) == (f"w{group.holder}" if held else "", group.paused)
            crashes = self.raw.hgetall(f"{{devices.0}}:group:{name}:crashes")
            assert {int(n): int(count) for n, count in crashes.items()} == group.crashes
            copies = self.raw.hkeys(f"{{devices.0}}:group:{name}:replays")
            assert {int(n) for n in copies} == {n for n in group.parked if n >= REPLAYS}

    def letters(self) -> list[tuple[str, DeadLetter]]:
        return self.run(self.log.dead(P, count=10_000))


def test_groups_do_what_the_model_does(log_server: str) -> None:
    class Here(Scripts):
        url = log_server

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_settle_without_a_fence_is_found(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's negative control: workers that settle with whatever token is there."""

    class Here(Scripts):
        url = log_server

    async def unfenced(self: Lease, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> Reply:
        token = await self._reads.ask("HGET", self._fence_keys[1], "lease")
        return await insisting(self, keys, [token if isinstance(token, bytes) else b"", *arguments[1:]])

    insisting = Lease._insisting
    monkeypatch.setattr(Lease, "_insisting", unfenced)
    with pytest.raises((AssertionError, pytest.fail.Exception, BaseExceptionGroup)):
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )

"""Lanes against a model that knows every event: order per key, nothing lost, nothing twice, a cursor that is honest."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import limits
from gateway.core.delivery import ACK, Bury, Park, Verdict
from gateway.core.lanes import Changes, Item, Lanes

BURY = Bury("gave_up", "x")


def items(*keys: str, first: int = 1) -> list[Item]:
    return [Item(1, offset, key) for offset, key in enumerate(keys, first)]


def lanes(*keys: str) -> Lanes:
    made = Lanes(0)
    for item in items(*keys):
        assert made.add(item)
    return made


def offsets(taken: list[Item]) -> list[int]:
    return [item.offset for item in taken]


def told(made: Lanes) -> tuple[int, int, list[int], list[int], list[int]]:
    """Cursor, oldest, parked, released, buried."""
    found = made.changes()
    assert found is not None
    buried = [item.offset for item, _ in found.buried]
    return found.cursor, found.oldest, [item.offset for item in found.parked], found.released, buried


def test_keys_run_side_by_side_and_one_key_in_order() -> None:
    made = lanes("a", "b", "a")
    first, second = made.take(9, 0.0)
    assert (first.offset, second.offset) == (1, 2)
    assert made.take(9, 0.0) == []
    made.settle(second, ACK, 0.0)
    assert made.changes() is None  # 2 is done, and the cursor is held by 1
    made.settle(first, ACK, 0.0)
    assert told(made) == (2, 3, [], [], [])
    assert offsets(made.take(9, 0.0)) == [3]


def test_at_most_so_many_are_taken() -> None:
    made = lanes("a", "b", "c")
    assert offsets(made.take(2, 0.0)) == [1, 2]
    assert offsets(made.take(2, 0.0)) == [3]


def test_what_nobody_wants_moves_the_cursor_and_presses_nobody() -> None:
    made = Lanes(5)
    made.skip(9)
    made.skip(7)
    assert not made.pressing
    assert told(made) == (9, 10, [], [], [])
    assert made.changes() is None


def test_a_parked_head_holds_its_lane_and_no_slot() -> None:
    made = lanes("a", "b", "a")
    head, other = made.take(9, 0.0)
    made.settle(head, Park(10.0, 1, "why"), 0.0)
    made.settle(other, ACK, 0.0)
    assert made.pressing
    assert told(made) == (3, 1, [1, 3], [], [])
    assert (head.error, head.attempts, made.next_due()) == ("why", 1, 10.0)
    assert made.take(9, 9.9) == []
    made.add(Item(1, 4, "a"))
    assert told(made) == (4, 1, [4], [], [])
    for offset, after in ((1, 3), (3, 4), (4, 5)):
        (item,) = made.take(9, 10.0)
        made.settle(item, ACK, 10.0)
        assert told(made) == (4, after, [], [offset], [])
    assert (len(made), made.next_due()) == (0, None)


def test_what_is_parked_and_finished_before_the_log_heard_of_it_is_neither_leaked_nor_lost() -> None:
    made = lanes("a")
    for now in (0.0, 1.0):
        (item,) = made.take(1, now)
        made.settle(item, Park(1.0, 1), now)
    (item,) = made.take(1, 2.0)
    made.settle(item, ACK, 2.0)
    assert told(made) == (1, 2, [], [1], [])


def test_what_the_log_heard_of_and_is_parked_again_and_finished_is_released() -> None:
    made = lanes("a")
    for now in (0.0, 1.0):
        (item,) = made.take(1, now)
        made.settle(item, Park(1.0, 1), now)
        assert told(made)[2] == [1]
    (item,) = made.take(1, 2.0)
    made.settle(item, Park(1.0, 1), 2.0)
    (item,) = made.take(1, 3.0)
    made.settle(item, BURY, 3.0)
    assert told(made) == (1, 2, [], [1], [1])


def test_a_parked_event_after_the_cursor_is_not_read_twice() -> None:
    parked = Item(1, 3, "b", attempts=2)
    made = Lanes(1, [parked])
    assert made.add(Item(1, 2, "a"))
    assert not made.add(Item(1, 3, "b"))
    assert sorted(offsets(made.take(9, 0.0))) == [2, 3]
    assert len(made) == 2


def test_a_replay_runs_behind_its_key_and_holds_no_trimming() -> None:
    made = lanes("a")
    (head,) = made.take(9, 0.0)
    replay = Item(1, 2**52 + 1, "a")
    made.restore(replay)
    assert made.take(9, 0.0) == []
    made.settle(head, ACK, 0.0)
    assert told(made) == (1, 2, [], [], [])
    assert made.take(9, 0.0) == [replay]
    made.settle(replay, ACK, 0.0)
    assert told(made) == (1, 2, [], [2**52 + 1], [])


def test_suspects_are_given_out_alone_and_their_return_is_remembered() -> None:
    parked = Item(1, 1, "p", crashes=1)
    made = Lanes(1, [parked], suspects_to=3)
    for one in items("a", "b", "c", first=2):
        made.add(one)
    waiting = made.suspects
    assert waiting
    assert offsets(made.take(9, 0.0)) == [4]
    for offset, verdict in ((1, Park(5.0, 1)), (2, ACK), (3, BURY)):
        item = made.take_suspect(0.0)
        assert item is not None
        assert item.offset == offset
        made.settle(item, verdict, 0.0)
        assert item.crashes == 0
    assert made.take_suspect(0.0) is None
    assert not made.suspects
    found = made.changes()
    assert found is not None
    assert found.survived == [1, 2, 3]
    assert made.take(9, 5.0) == [parked]  # it killed nobody when it was alone


def test_a_clean_hand_over_leaves_no_suspects() -> None:
    made = Lanes(1, [Item(1, 1, "p")])
    made.add(Item(1, 2, "a"))
    assert made.take_suspect(0.0) is None
    assert offsets(made.take(9, 0.0)) == [1, 2]


def test_a_hand_over_leaves_nothing_finished_to_be_read_again() -> None:
    made = lanes("a", "a", "b", "c")
    head, other, _ = made.take(9, 0.0)
    made.settle(head, ACK, 0.0)
    made.settle(other, ACK, 0.0)
    made.hand_over()
    assert told(made) == (3, 2, [2], [], [])
    replay = Item(1, 2**52 + 1, "r")
    made.restore(replay)
    assert replay in made.take(9, 0.0)
    made.settle(replay, ACK, 0.0)
    made.hand_over()  # a replay's number says nothing of what was read
    assert told(made) == (3, 2, [], [2**52 + 1], [])


def test_a_lane_that_grows_too_long_loses_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LANE", 2)
    made = lanes("a")
    (head,) = made.take(9, 0.0)
    made.settle(head, Park(50.0, 1), 0.0)
    for item in items("a", "a", first=2):
        made.add(item)
    assert told(made)[4] == [1]
    # The stale alarm of what is gone wakes nobody twice.
    assert offsets(made.take(9, 60.0)) == [2]
    made.add(Item(1, 4, "a"))
    running = made.changes()
    assert running is not None
    assert running.buried == []  # what runs this moment is left alone
    second = made._lanes["a"][0]
    made.settle(second, Park(1.0, 1), 60.0)
    assert told(made)[4] == [2]


def test_what_was_buried_while_it_waited_for_a_slot_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LANE", 2)
    for suspects_to in (0, 1):
        made = Lanes(1, [Item(1, 1, "a")], suspects_to)
        made.add(Item(1, 2, "a"))
        made.add(Item(1, 3, "a"))
        assert told(made)[4] == [1]
        assert made.take_suspect(0.0) is None
        assert offsets(made.take(1, 0.0)) == [2]


def test_reading_stops_at_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PREFETCH", 2)
    monkeypatch.setattr(limits, "PARKED", 3)
    made = lanes("a")
    full = [made.full]
    made.add(Item(1, 2, "a"))
    assert [*full, made.full] == [False, True]
    (head,) = made.take(9, 0.0)
    made.settle(head, Park(9.0, 1), 0.0)
    assert (made.full, made.parked) == (False, 2)
    made.add(Item(1, 3, "a"))
    assert (made.full, made.parked) == (True, 3)


def test_the_oldest_is_known_whoever_it_is() -> None:
    made = lanes("a", "b")
    head, other = made.take(9, 0.0)
    seen = [made.oldest]
    for item in (other, head):
        made.settle(item, Park(1.0, 1), 0.0)
        seen.append(made.oldest)
    assert offsets(made.take(9, 2.0)) == [1, 2]
    for item in (head, other):
        made.settle(item, ACK, 2.0)
        seen.append(made.oldest)
    assert seen == [head, head, head, other, None]


# --- against a model ------------------------------------------------------------------------------------------------


class World:
    """A log of so many events, the store of one group, and a worker that lives until it dies."""

    def __init__(self, seed: int, count: int, keys: int, wanted: float) -> None:
        self.dice = random.Random(seed)
        self.keys = [f"k{self.dice.randrange(keys)}" for _ in range(count)]
        self.wanted = [self.dice.random() < wanted for _ in range(count)]
        self.cursor, self.claimed = 0, 0
        self.parked: dict[int, tuple[int, float]] = {}
        self.dead: set[int] = set()
        self.done: list[int] = []
        self.now = 0.0
        self.take_lease(clean=True)

    def take_lease(self, *, clean: bool) -> None:
        known = [Item(1, o, self.keys[o - 1], attempts=a, due=d) for o, (a, d) in self.parked.items()]
        self.lanes = Lanes(self.cursor, known, 0 if clean else max(self.claimed, self.cursor, 1))
        self.running: dict[int, Item] = {}
        self.alone: int | None = None
        self.seen: set[int] = set()

    def read(self) -> None:
        for _ in range(self.dice.randrange(1, 8)):
            if self.lanes.read == len(self.keys) or self.lanes.full:
                return
            offset = self.lanes.read + 1
            if self.wanted[offset - 1]:
                self.lanes.add(Item(1, offset, self.keys[offset - 1]))
            else:
                self.lanes.skip(offset)

    def take(self) -> None:
        for item in self.lanes.take(self.dice.randrange(1, 5), self.now):
            self.hand(item)
        if self.alone is None and (suspect := self.lanes.take_suspect(self.now)) is not None:
            assert suspect.suspect
            self.alone = suspect.offset
            self.hand(suspect)

    def hand(self, item: Item) -> None:
        assert item.key not in {other.key for other in self.running.values()}, "two of one key at once"
        assert item.offset not in self.seen or item.parked, "twice in one lease"
        earlier = [o for o in range(1, item.offset) if self.keys[o - 1] == item.key and self.wanted[o - 1]]
        assert set(earlier) <= {*self.done, *self.dead, *(i.offset for i, _ in self.lanes._buried)}, "out of order"
        self.seen.add(item.offset)
        self.running[item.offset] = item

    def end(self) -> None:
        if self.running:
            item = self.running.pop(self.dice.choice(list(self.running)))
            verdict: Verdict = ACK
            if self.dice.random() < 0.4:
                park = Park(self.dice.random() * 9, item.attempts + 1)
                verdict = BURY if item.attempts > 2 or self.dice.random() < 0.2 else park
            if verdict is ACK:
                self.done.append(item.offset)
            if item.offset == self.alone:
                self.alone = None
            self.lanes.settle(item, verdict, self.now)
            self.seen -= {item.offset} if isinstance(verdict, Park) else set()

    def tell(self) -> None:
        self.claimed = max(self.claimed, *self.running, 0)
        found = self.lanes.changes()
        if found is not None:
            self.check(found)

    def check(self, found: Changes) -> None:
        assert found.cursor >= self.cursor
        self.cursor = found.cursor
        for offset in found.released:
            self.parked.pop(offset, None)
        self.parked |= {item.offset: (item.attempts, item.due) for item in found.parked}
        self.dead |= {item.offset for item, _ in found.buried}
        over = {*self.done, *self.dead, *self.parked}
        missing = {o for o in range(1, self.cursor + 1) if self.wanted[o - 1]} - over
        assert not missing, f"the cursor passed {missing}"
        assert found.oldest == min([*self.parked, self.cursor + 1])

    def die(self) -> None:
        self.take_lease(clean=False)

    def leave(self) -> None:
        while self.running:
            self.end()
        self.lanes.hand_over()
        self.tell()
        self.take_lease(clean=True)

    def step(self) -> None:
        self.now += self.dice.random()
        self.dice.choice([self.read, self.take, self.take, self.end, self.end, self.tell])()
        lane = max((len(one) for one in self.lanes._lanes.values()), default=0)
        assert lane <= limits.LANE + limits.PREFETCH
        assert self.lanes.parked <= limits.PARKED + limits.PREFETCH + 8
        assert len(self.lanes) == len(self.lanes._open) + self.lanes.parked


def finish(world: World) -> Iterator[None]:
    for _ in range(20_000):
        if world.cursor == len(world.keys) and not world.parked:
            return
        world.now += 5.0
        for go in (world.read, world.take, world.end, world.end, world.tell):
            go()
        yield


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 9), st.sampled_from([0.2, 0.9, 1.0]))
def test_whatever_happens_no_event_is_lost_and_each_key_keeps_its_order(
    seed: int, count: int, keys: int, wanted: float
) -> None:
    with pytest.MonkeyPatch.context() as bounds:
        for name, value in (("LANE", 4), ("PARKED", 10), ("PREFETCH", 6)):
            bounds.setattr(limits, name, value)
        world = World(seed, count, keys, wanted)
        for _ in range(150):
            world.step()
            if world.dice.random() < 0.03:
                world.dice.choice([world.die, world.leave])()
        for _ in finish(world):
            pass
        wants = {o for o in range(1, count + 1) if world.wanted[o - 1]}
        assert {*world.done, *world.dead} == wants
        assert len(world.lanes) == 0

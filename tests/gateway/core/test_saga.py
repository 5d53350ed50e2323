"""Sagas: the table pair by pair, and a world that delays, repeats, reorders and loses."""

from __future__ import annotations

import random
from itertools import product
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.saga import (
    TABLE,
    Next,
    Phase,
    Plan,
    State,
    Status,
    Step,
    What,
    advance,
    begin,
    waits_for,
)
from gateway.errors import Misconfigured

RUNNING = State("running", ("done", "asked", "idle", "idle"), 1)


def step(name: str, **how: Any) -> Step:
    topics = {verb: f"shop/{{order}}/{name}/{verb}" for verb in ("do", "done", "failed", "undo", "undone")}
    left_out = {verb: "" for verb in how.pop("without", "").split()}
    return Step(name=name, **{**topics, "within": 10.0, **left_out, **how})


def plan(*steps: Step) -> Plan:
    return Plan("checkout", "order", steps)


RESERVE, AUTHORIZE = step("reserve"), step("authorize")
COMMIT = step("commit", without="undo undone", pivot=True)
SHIP = step("ship", without="failed undo undone", within=20.0)
PLAN = plan(RESERVE, AUTHORIZE, COMMIT, SHIP)


def asked(next: Next | None) -> list[str]:
    return [] if next is None else [command.topic(PLAN, "7") for command in next.commands]


def after(*happened: tuple[What, str], of: Plan = PLAN) -> Next:
    """The last change, after facts about steps; what is about the saga has no step."""
    last = begin(of)
    for what, name in happened:
        last = advance(of, last.state, what, step=name, turn=last.state.turn) or last
    return last


def test_one_step_after_another() -> None:
    first = begin(PLAN)
    assert (first.state, first.after) == (State("running", ("asked", "idle", "idle", "idle"), 0), 10.0)
    assert asked(first) == ["shop/7/reserve/do"]
    assert asked(after(("done", "reserve"))) == ["shop/7/authorize/do"]
    third = after(("done", "reserve"), ("done", "authorize"))
    assert (third.state.phase, asked(third)) == ("finishing", ["shop/7/commit/do"])
    last = after(("done", "reserve"), ("done", "authorize"), ("done", "commit"), ("done", "ship"))
    assert (last.state, last.commands, last.after) == (State("completed", ("done",) * 4, 4), (), 0.0)
    assert last.state.ended
    assert waits_for(PLAN, last.state) is None


def test_a_step_that_failed_is_not_undone_and_those_before_it_are() -> None:
    back = after(("done", "reserve"), ("failed", "authorize"))
    assert (back.state.phase, back.state.steps) == ("compensating", ("undoing", "failed", "idle", "idle"))
    assert asked(back) == ["shop/7/reserve/undo"]
    assert after(("failed", "reserve")).state.phase == "compensated"


@pytest.mark.parametrize("what", ["late", "cancelled"])
def test_a_step_that_may_have_been_done_is_undone_and_then_those_before_it(what: What) -> None:
    back = after(("done", "reserve"), (what, ""))
    assert (back.state.steps, asked(back)) == (("done", "undoing", "idle", "idle"), ["shop/7/authorize/undo"])
    back = after(("done", "reserve"), (what, ""), ("undone", "authorize"))
    assert asked(back) == ["shop/7/reserve/undo"]
    end = after(("done", "reserve"), (what, ""), ("undone", "authorize"), ("undone", "reserve"))
    assert (end.state.phase, end.after) == ("compensated", 0.0)


def test_a_pivot_that_is_late_is_asked_again_and_one_that_failed_turns_back() -> None:
    there: tuple[tuple[What, str], ...] = (("done", "reserve"), ("done", "authorize"))
    again = after(*there, ("late", ""))
    assert (again.state.phase, asked(again), again.after) == ("finishing", ["shop/7/commit/do"], 20.0)
    assert advance(PLAN, again.state, "cancelled") is None
    assert asked(after(*there, ("failed", "commit"))) == ["shop/7/authorize/undo"]
    ship = after(*there, ("done", "commit"), ("late", ""), ("late", ""))
    assert (asked(ship), ship.after, ship.state.tries) == (["shop/7/ship/do"], 80.0, 2)


def test_pauses_grow_and_somebody_looks() -> None:
    happened: list[tuple[What, str]] = [("late", "")]
    pauses = []
    for _ in range(12):
        last = after(*happened)
        pauses.append(last.after)
        assert last.state.stuck == (last.state.tries >= limits.SAGA_STUCK)
        happened.append(("late", ""))
    assert pauses[:3] == [10.0, 20.0, 40.0]
    assert pauses[-1] == limits.SAGA_PAUSE_MOST
    slow = plan(step("sign", within=2 * limits.SAGA_PAUSE_MOST))
    assert (after(of=slow).after, after(("late", ""), of=slow).after) == (
        2 * limits.SAGA_PAUSE_MOST,
        limits.SAGA_UNDO_WITHIN,
    )
    pivot = plan(msgspec.structs.replace(SHIP, pivot=True, within=2 * limits.SAGA_PAUSE_MOST))
    assert after(("late", ""), ("late", ""), of=pivot).after == 2 * limits.SAGA_PAUSE_MOST


def test_late_truth_wins() -> None:
    gone: tuple[tuple[What, str], ...] = (("late", ""), ("undone", "reserve"))
    assert after(*gone).state.phase == "compensated"
    again = after(*gone, ("done", "reserve"))
    assert (again.state.phase, asked(again)) == ("compensating", ["shop/7/reserve/undo"])
    assert after(*gone, ("done", "reserve"), ("undone", "reserve")).state.phase == "compensated"
    # While it is being undone it may be done only now: the first undo came too early.
    assert asked(after(("late", ""), ("done", "reserve"))) == ["shop/7/reserve/undo"]
    assert asked(after(("failed", "reserve"), ("done", "reserve"))) == ["shop/7/reserve/undo"]


def test_a_deadline_of_an_earlier_turn_is_over() -> None:
    assert advance(PLAN, RUNNING, "late", turn=0) is None
    assert advance(PLAN, RUNNING, "late", turn=1) is not None


def test_a_deadline_can_be_put_off() -> None:
    later = advance(PLAN, RUNNING, "extended", after=99.0)
    assert later == Next(msgspec.structs.replace(RUNNING, turn=2), (), 99.0)


def test_without_undone_the_command_is_enough_and_without_undo_there_is_nothing_to_do() -> None:
    short = plan(step("a", without="undone"), step("b", without="undo undone"), step("c", without="undone"))
    end = after(("done", "a"), ("done", "b"), ("late", ""), of=short)
    assert (end.state.phase, [command.step.name for command in end.commands]) == ("compensated", ["c", "a"])
    assert end.state.steps == ("undone", "done", "undone")
    seen = after(("late", ""), ("done", "a"), of=plan(step("a", without="undo undone")))
    assert (seen.state.phase, seen.state.steps, seen.commands) == ("compensated", ("done",), ())


@pytest.mark.parametrize(("phase", "status", "what"), list(product(*map(get_args, (Phase, Status, What)))))
def test_what_is_not_in_the_table_changes_nothing(phase: Phase, status: Status, what: What) -> None:
    one = plan(msgspec.structs.replace(AUTHORIZE, failed="", within=5.0))
    state = State(phase, (status,), 3)
    try:
        followed = advance(one, state, what, step="authorize", turn=3)
    except ValueError:
        # A saga that waits for a step that it never asked: no such state.
        assert (phase in ("running", "finishing"), status) == (True, "idle")
        return
    if (phase, status, what) not in TABLE:
        assert followed is None
    elif followed is not None:
        assert followed.state.turn == 4


@pytest.mark.parametrize(
    ("name", "key", "steps", "says"),
    [
        ("Check", "order", (RESERVE,), "no good name"),
        ("checkout", "{order}", (RESERVE,), "no good name"),
        ("checkout", "order", (), "0 steps"),
        ("checkout", "order", (RESERVE, RESERVE), "two steps 'reserve'"),
        ("checkout", "order", (RESERVE, step("two", done="shop/{order}/reserve/done")), "overlaps"),
        ("checkout", "order", (step("one", within=0.0),), "within is 0.0 s"),
        ("checkout", "order", (step("one", without="undo"),), "says when it is undone"),
        ("checkout", "order", (step("one", done="shop/{cart}/reserved"),), "has no {order}"),
        ("checkout", "order", (step("one", do="shop/{order}/{line}/reserve"),), "not one topic"),
        ("checkout", "order", (step("one", undo="shop/{order}/+"),), "not one topic"),
        ("checkout", "order", (step("one", without="do"),), "is empty"),
        ("checkout", "order", (COMMIT, msgspec.structs.replace(SHIP, pivot=True)), "two pivots"),
        ("checkout", "order", (COMMIT, step("two", without="failed")), "never undone"),
        ("checkout", "order", (COMMIT, step("two", without="undo undone")), "cannot fail"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(name: str, key: str, steps: tuple[Step, ...], says: str) -> None:
    with pytest.raises(Misconfigured, match=says.replace("{", r"\{")):
        Plan(name, key, steps)


# --- a world ---


class World:
    """Services that do what they are asked, in their own time, and a saga that asks them.

    Ordered: commands about a step arrive as they were sent, as those of one key do, and then anything may be lost.
    Else they overtake one another, and nothing is lost: a done whose news is lost would be known to nobody.
    """

    def __init__(self, plan: Plan, seed: int, ordered: bool) -> None:
        self.plan, self.ordered, self.dice = plan, ordered, random.Random(seed)
        self.answers = {one.name: self.dice.random() < 0.75 or not one.failed for one in plan.steps}
        self.has = {one.name: False for one in plan.steps}
        self.ever = dict(self.has)
        self.commands: list[tuple[Step, str]] = []
        self.facts: list[tuple[What, str]] = []
        self.timers: list[int] = []
        self.heard: set[tuple[What, str]] = set()
        self.state = begin(plan).state
        self.take(begin(plan))

    def take(self, next: Next | None) -> None:
        if next is None:
            return
        for command in next.commands:
            at = self.plan.steps.index(command.step)
            if command.verb == "do":
                # What is asked stands behind nothing that is not done.
                assert all(("done", one.name) in self.heard for one in self.plan.steps[:at])
                assert self.state.phase in ("running", "finishing")
            else:
                assert next.state.phase in ("compensating", "compensated")
                assert command.step.undo
            self.commands.append((command.step, command.verb))
        self.state = next.state
        assert (next.after > 0) is not self.state.ended
        if next.after:
            self.timers.append(next.state.turn)

    def pick(self, among: list[Any], first: bool, twice: float) -> Any:
        at = 0 if first else self.dice.randrange(len(among))
        return among[at] if self.dice.random() < twice else among.pop(at)

    def serve(self, twice: float = 0.0, lost: float = 0.0) -> None:
        one, verb = self.commands[0] if self.ordered else self.dice.choice(self.commands)
        if not self.ordered and self.dice.random() < twice:
            pass
        else:
            self.commands.remove((one, verb))
        # A command that nobody waits for an answer to is not repeated, so it must not be lost.
        if self.ordered and self.dice.random() < lost and not (verb == "undo" and not one.undone):
            return
        if verb == "undo":
            self.has[one.name] = False
            if one.undone:
                self.facts.append(("undone", one.name))
        elif self.answers[one.name]:
            self.has[one.name] = self.ever[one.name] = True
            self.facts.append(("done", one.name))
        else:
            self.facts.append(("failed", one.name))

    def hear(self, twice: float = 0.0, lost: float = 0.0) -> None:
        what, name = self.pick(self.facts, first=False, twice=twice)
        if self.ordered and self.dice.random() < lost:
            return
        self.heard.add((what, name))
        self.take(advance(self.plan, self.state, what, step=name))

    def ring(self, twice: float = 0.0) -> None:
        # Any of them, also one that is long over; the delayed event itself is durable and cannot be lost.
        self.take(advance(self.plan, self.state, "late", turn=self.pick(self.timers, first=False, twice=twice)))

    def some(self) -> None:
        match self.dice.randrange(4):
            case 0 if self.commands:
                self.serve(0.2, 0.2)
            case 1 if self.facts:
                self.hear(0.3, 0.2)
            case 2 if self.timers and self.dice.random() < 0.3:
                self.ring(0.3)
            case 3 if self.dice.random() < 0.05:
                self.take(advance(self.plan, self.state, "cancelled"))

    def settle(self) -> None:
        """From now on nothing is lost or repeated."""
        for _ in range(2_000):
            if self.commands:
                self.serve()
            elif self.facts:
                self.hear()
            elif self.timers:
                self.ring()
            else:
                return
        pytest.fail(f"it never ends: {self.state}")


PLANS = [
    PLAN,
    plan(step("a"), step("b"), step("c")),
    plan(step("a"), step("b", without="undone"), step("c", without="undo undone failed"), step("d")),
    plan(step("a", without="failed"), step("b", without="undo undone", pivot=True)),
]


def lived(plan: Plan, seed: int, ordered: bool, moves: int) -> World:
    world = World(plan, seed, ordered)
    for _ in range(moves):
        world.some()
    world.settle()
    return world


def complaints(world: World) -> list[str]:
    """What must never be, once nothing is on its way any more."""
    plan, steps = world.plan, world.plan.steps
    found = [] if world.state.ended else [f"it waits for {waits_for(plan, world.state)}"]
    if world.state.phase == "completed":
        found += [f"{one.name} is not done" for one in steps if not world.has[one.name]]
        found += [f"{one.name} was undone" for one in steps if ("undone", one.name) in world.heard]
    else:
        found += [f"{one.name} is done" for one in steps if one.undo and world.has[one.name]]
        found += [f"{one.name} has no way back" for one in steps if one.pivot and world.ever[one.name]]
    return found


@given(st.sampled_from(PLANS), st.integers(0, 10**9), st.booleans(), st.integers(0, 120))
def test_whatever_comes_in_whatever_order_it_ends_and_leaves_nothing_half_done(
    plan: Plan, seed: int, ordered: bool, moves: int
) -> None:
    assert complaints(lived(plan, seed, ordered, moves)) == []


@pytest.mark.parametrize(
    "row",
    [
        ("compensating", "undoing", "done"),
        ("compensating", "undone", "done"),
        ("compensated", "undone", "done"),
        ("compensating", "undoing", "late"),
    ],
)
def test_the_world_finds_what_a_table_without_this_row_would_do(
    row: tuple[Phase, Status, What], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {key: value for key, value in TABLE.items() if key != row}
    monkeypatch.setattr("gateway.core.saga.TABLE", short)
    assert any(complaints(lived(PLANS[1], seed, ordered, 60)) for seed in range(400) for ordered in (True, False))

"""A saga: steps in their order, what undoes each, and what follows where one is done, fails or does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from gateway import limits
from gateway.core.declared import Topic
from gateway.core.topic import is_filter, overlap
from gateway.errors import Misconfigured

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


#: ``finishing``: the pivot was asked, and there is no way back. The last two are ends.
Phase = Literal["running", "finishing", "compensating", "completed", "compensated"]
#: What is known of one step.
Status = Literal["idle", "asked", "done", "failed", "undoing", "undone"]
#: The first three are facts about a step; the others are about the saga, and mean the step that it waits for.
What = Literal["done", "failed", "undone", "late", "cancelled", "extended"]
#: ``on``: ask the next step. ``back``: undo the last one that needs it. ``again``: the same command. ``wait``: longer.
_Way = Literal["on", "back", "again", "wait"]
Verb = Literal["do", "undo"]


class Step(msgspec.Struct, frozen=True):
    """One step that another service does: patterns of topics that hold the saga's key, ``shop/stock/{order}/reserve``.

    Whoever does the step takes the same command twice for one, and answers the second as the first. ``undo`` may come
    for what was never done, and before its ``do``: then there is nothing to do, and it is answered all the same.
    """

    name: str
    #: The command, and the fact that it is done.
    do: str
    done: str
    #: Seconds for the answer.
    within: float
    #: The fact that it was not done and never will be. A failure that somebody may mend is none: leave it out.
    failed: str = ""
    #: The command that undoes it. Without, there is nothing to undo: it is passed over on the way back.
    undo: str = ""
    #: The fact that it is undone. Without, the command is enough.
    undone: str = ""
    #: Once asked, there is no way back, unless it failed: it and what follows is asked again until it is done.
    pivot: bool = False


class Plan(msgspec.Struct, frozen=True):
    """The table of a saga. Raises :class:`Misconfigured` where it contradicts itself."""

    name: str
    #: The variable that all its topics share.
    key: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise Misconfigured(*problem)

    def topics(self, *verbs: str) -> tuple[str, ...]:
        """Return the patterns of all steps under ``verbs``: do, undo, done, failed, undone."""
        return tuple(getattr(step, verb) for step in self.steps for verb in verbs if getattr(step, verb))

    def _problems(self) -> Iterator[tuple[str, str]]:
        where, names = f"saga {self.name!r}", [step.name for step in self.steps]
        for name in (self.name, self.key, *names):
            if not _NAME.fullmatch(name):
                yield f"{where}: {name!r} is no good name", "use a-z, 0-9 and _, at most 32, a letter first"
        if not 1 <= len(names) <= limits.SAGA_STEPS:
            yield f"{where} has {len(names)} steps", f"use 1 to {limits.SAGA_STEPS}"
        if twice := [name for name in names if names.count(name) > 1]:
            yield f"{where} has two steps {twice[0]!r}", "give each its own name"
        for step in self.steps:
            yield from self._of_step(f"{where}, step {step.name!r}", step)
        filters = [(one, Topic(pattern=one).filter) for one in self.topics("do", "done", "failed", "undo", "undone")]
        for n, (one, filter) in enumerate(filters):
            for other, before in filters[:n]:
                if overlap(filter, before):
                    yield f"{where}: {one!r} overlaps {other!r}", "a topic says one thing: give each its own"
        yield from self._of_pivot(where)

    def _of_step(self, where: str, step: Step) -> Iterator[tuple[str, str]]:
        if not 0 < step.within <= limits.DELAY_MOST:
            yield f"{where}: within is {step.within} s", f"use 0 to {limits.DELAY_MOST:g}"
        if step.undone and not step.undo:
            yield f"{where} says when it is undone, not how", "give it undo="
        for verb in ("do", "done", "failed", "undo", "undone"):
            pattern = getattr(step, verb)
            if not pattern and verb not in ("do", "done"):
                continue
            topic = Topic(pattern=pattern)
            if self.key not in topic.variables:
                yield f"{where}: {verb} {pattern!r} has no {{{self.key}}}", "it belongs to no saga without its key"
            if verb in ("do", "undo") and (topic.variables != (self.key,) or is_filter(pattern)):
                yield f"{where}: {verb} {pattern!r} is not one topic", f"a command has no variable but {{{self.key}}}"

    def _of_pivot(self, where: str) -> Iterator[tuple[str, str]]:
        pivots = [n for n, step in enumerate(self.steps) if step.pivot]
        if len(pivots) > 1:
            yield f"{where} has two pivots", "the first is one, and what follows it needs no mark"
        for step in self.steps[pivots[0] :] if pivots else ():
            if step.undo:
                yield f"{where}: {step.name!r} is never undone: it is no sooner than the pivot", "leave undo out"
            if step.failed and not step.pivot:
                yield f"{where}: {step.name!r} cannot fail after the pivot", "leave failed out: it is asked until done"


class State(msgspec.Struct, frozen=True):
    """Where one saga is."""

    phase: Phase
    #: Of each step of the plan.
    steps: tuple[Status, ...]
    #: Counted up by each change; a deadline of an earlier turn is over.
    turn: int
    #: How often the command that now waits for an answer was asked again.
    tries: int = 0

    @property
    def ended(self) -> bool:
        return self.phase in ("completed", "compensated")

    @property
    def stuck(self) -> bool:
        """Whether somebody should look: the same command went unanswered ``limits.SAGA_STUCK`` times."""
        return self.tries >= limits.SAGA_STUCK


class Command(msgspec.Struct, frozen=True):
    """What another service is asked."""

    step: Step
    verb: Verb

    def topic(self, plan: Plan, key: str) -> str:
        pattern = self.step.do if self.verb == "do" else self.step.undo
        return pattern.replace(f"{{{plan.key}}}", key)


class Next(msgspec.Struct, frozen=True):
    """What follows: a new state, what is asked, and in how many seconds it is late; 0 where nothing is waited for."""

    state: State
    commands: tuple[Command, ...]
    after: float


#: (where the saga is, what is known of the step, what happens) → what is then known of it, and the way that the saga
#: goes. Anything absent changes nothing: it came twice, too late to matter, or was never asked for.
TABLE: Final[Mapping[tuple[Phase, Status, What], tuple[Status, _Way]]] = MappingProxyType(
    {
        ("running", "asked", "done"): ("done", "on"),
        ("running", "asked", "failed"): ("failed", "back"),
        # Nobody knows whether it was done. It is undone as if it had been.
        ("running", "asked", "late"): ("asked", "back"),
        ("running", "asked", "cancelled"): ("asked", "back"),
        ("running", "asked", "extended"): ("asked", "wait"),
        ("finishing", "asked", "done"): ("done", "on"),
        # The pivot alone can fail.
        ("finishing", "asked", "failed"): ("failed", "back"),
        ("finishing", "asked", "late"): ("asked", "again"),
        ("finishing", "asked", "extended"): ("asked", "wait"),
        ("compensating", "undoing", "undone"): ("undone", "back"),
        ("compensating", "undoing", "late"): ("undoing", "again"),
        # Late truth wins: it is done after all, perhaps after it was undone. So it is undone once more.
        ("compensating", "undoing", "done"): ("done", "back"),
        ("compensating", "undone", "done"): ("done", "back"),
        ("compensating", "failed", "done"): ("done", "back"),
        ("compensated", "undone", "done"): ("done", "back"),
        ("compensated", "failed", "done"): ("done", "back"),
        # It has no undo. That it is done is kept, for whoever looks.
        ("compensating", "asked", "done"): ("done", "back"),
        ("compensated", "asked", "done"): ("done", "back"),
    }
)


def begin(plan: Plan) -> Next:
    """Return the first state, which asks the first step."""
    return _on(plan, State("running", tuple("idle" for _ in plan.steps), 0), 0)


def waits_for(plan: Plan, state: State) -> int | None:
    """Return the step whose answer is waited for; None where the saga has ended."""
    if state.ended:
        return None
    if state.phase == "compensating":
        return _last_to_undo(plan, state.steps)
    return max(n for n, status in enumerate(state.steps) if status != "idle")


def advance(plan: Plan, state: State, what: What, *, step: str = "", turn: int = -1, after: float = 0.0) -> Next | None:
    """Return what follows; None where nothing does.

    ``step``: whom a fact is about. ``turn``: of the deadline that is over, for ``late``. ``after``: seconds from now,
    for ``extended``.
    """
    if what in ("done", "failed", "undone"):
        at: int | None = next(n for n, one in enumerate(plan.steps) if one.name == step)
    elif what == "late" and turn != state.turn:
        at = None
    else:
        at = waits_for(plan, state)
    if at is None or (found := TABLE.get((state.phase, state.steps[at], what))) is None:
        return None
    status, way = found
    steps = _with(state.steps, at, status)
    state = msgspec.structs.replace(state, steps=steps, turn=state.turn + 1)
    match way:
        case "on":
            return _on(plan, state, at + 1)
        case "back":
            return _back(plan, state)
        case "again":
            return _again(plan, state, at)
    return Next(state, (), after)


def _on(plan: Plan, state: State, at: int) -> Next:
    if at == len(plan.steps):
        return Next(msgspec.structs.replace(state, phase="completed", tries=0), (), 0.0)
    step = plan.steps[at]
    phase: Phase = "finishing" if step.pivot else state.phase
    state = msgspec.structs.replace(state, phase=phase, steps=_with(state.steps, at, "asked"), tries=0)
    return Next(state, (Command(step, "do"),), step.within)


def _back(plan: Plan, state: State) -> Next:
    steps, commands = state.steps, list[Command]()
    while (at := _last_to_undo(plan, steps)) is not None:
        step = plan.steps[at]
        commands.append(Command(step, "undo"))
        if step.undone:
            steps = _with(steps, at, "undoing")
            state = msgspec.structs.replace(state, phase="compensating", steps=steps, tries=0)
            return Next(state, tuple(commands), _pause(step, "undo", 0))
        steps = _with(steps, at, "undone")
    return Next(msgspec.structs.replace(state, phase="compensated", steps=steps, tries=0), tuple(commands), 0.0)


def _again(plan: Plan, state: State, at: int) -> Next:
    verb: Verb = "undo" if state.phase == "compensating" else "do"
    state = msgspec.structs.replace(state, tries=state.tries + 1)
    return Next(state, (Command(plan.steps[at], verb),), _pause(plan.steps[at], verb, state.tries))


def _pause(step: Step, verb: Verb, tries: int) -> float:
    """Seconds for an answer: twice as many with each try, up to an hour, or to what the step itself asks for."""
    first = step.within if verb == "do" else min(step.within, limits.SAGA_UNDO_WITHIN)
    return max(first, min(limits.SAGA_PAUSE_MOST, first * 2.0 ** min(tries, 60)))


def _last_to_undo(plan: Plan, steps: tuple[Status, ...]) -> int | None:
    marked = ("asked", "done", "undoing")
    last = [n for n, status in enumerate(steps) if status in marked and plan.steps[n].undo]
    return last[-1] if last else None


def _with(steps: tuple[Status, ...], at: int, status: Status) -> tuple[Status, ...]:
    return (*steps[:at], status, *steps[at + 1 :])

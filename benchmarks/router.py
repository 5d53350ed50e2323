"""The router: what a walk costs among a thousand filters and among a million."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path

import msgspec

from benchmarks import machine
from benchmarks.results import Row, Section
from gateway.core.router import Router

_METHOD = (
    "Filters of {levels} levels below ten applications, one in ten with a `+` at a random level; topics that one of "
    "the filters was made of, a thousand for each size. The two sizes are walked in turn. Nodes "
    "visited do not depend on the machine; the bound is 2^depth. Memory is what the process grew by, with "
    "the text of the filters."
)
LEVELS = 5
#: The largest number of nodes that a walk may visit here. Filters with ``+`` at every level could make it nearly twice
#: that; of ours none has more than one.
BOUND = 2**LEVELS
#: Topics of either size: as many, so that it is not the caches' size that is compared.
_TOPICS = 1_000
_PASSES = 20


class Tree(msgspec.Struct, frozen=True):
    """A router under measurement, topics to walk it with, and bytes per filter."""

    router: Router[int]
    topics: list[str]
    memory: float


def tree(filters: int, walks: int, seed: int = 7) -> Tree:
    """Build a router of ``filters`` filters, and choose ``walks`` topics."""
    chosen = random.Random(seed)
    before = machine.resident()
    router: Router[int] = Router()
    step = max(1, filters // walks)
    topics: list[str] = []
    for index in range(filters):
        levels = [
            f"app{index % 10}",
            f"site{chosen.randrange(100)}",
            f"line{chosen.randrange(100)}",
            f"device{index}",
            "state",
        ]
        if index % step == 0:
            topics.append("/".join(levels))
        if chosen.random() < 0.1:
            levels[chosen.randrange(LEVELS)] = "+"
        router.add("/".join(levels), index)
    memory = (machine.resident() - before) / filters
    chosen.shuffle(topics)
    return Tree(router, topics[:walks], memory)


def visits(tree: Tree) -> tuple[float, int]:
    """Return mean and largest number of nodes that a walk visited; raises AssertionError beyond the bound."""
    counts = []
    forget(tree)
    for topic in tree.topics:
        before = tree.router.visited
        assert tree.router.match(topic), f"{topic} has a filter"
        counts.append(tree.router.visited - before)
    assert max(counts) <= BOUND, f"a walk visited {max(counts)} nodes, the bound is {BOUND}"
    return sum(counts) / len(counts), max(counts)


def forget(tree: Tree) -> None:
    """Make the router walk again: any filter that comes or goes does."""
    tree.router.add("bench/none", 0)
    tree.router.remove("bench/none")


def walked(tree: Tree, *, again: bool) -> float:
    """Return microseconds per match, over all topics `_PASSES` times: of a first walk, or of a topic met again."""
    match = tree.router.match
    spent = 0.0
    for _ in range(_PASSES):
        if not again:
            forget(tree)
        began = time.perf_counter()
        for topic in tree.topics:
            match(topic)
        spent += time.perf_counter() - began
    return spent / (_PASSES * len(tree.topics)) * 1e6


def run(folder: Path, quick: bool) -> Section:
    many = 100_000 if quick else 1_000_000
    rounds = 3 if quick else 9
    # The collector would look at a million nodes again and again while they are made.
    gc.disable()
    try:
        big, small = tree(many, _TOPICS), tree(1_000, _TOPICS)
        first = [(walked(big, again=False), walked(small, again=False)) for _ in range(rounds)]
        again = [(walked(big, again=True), walked(small, again=True)) for _ in range(rounds)]
        (big_mean, big_most), (small_mean, _) = visits(big), visits(small)
    finally:
        gc.enable()
    peer = "1,000 filters"
    rows = (
        *(
            Row(f"{what}, {many:,} filters", "µs", tuple(b for b, _ in times), peer, tuple(s for _, s in times), goal)
            for what, times, goal in (
                ("a topic met again", again, "at most 1.5"),
                ("a topic's first walk", first, "at most 1.5"),
            )
        ),
        Row("nodes visited, mean", "", (big_mean,), peer, (small_mean,)),
        Row("nodes visited, most", "", (float(big_most),), "the bound", (float(BOUND),), "within the bound"),
        Row("memory per filter", "bytes", (big.memory,)),
    )
    return Section("Router", _METHOD.format(levels=LEVELS), rows)

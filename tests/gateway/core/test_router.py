"""The tree of filters: `matches` is its oracle, and what it visits is counted, not timed."""

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.router import Router
from gateway.core.topic import matches

levels = st.sampled_from(["a", "b", "c", "", "$x", "+y"])
names = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda body, end: "/".join([*body, *end]),
    st.lists(levels | st.just("+"), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(st.lists(st.tuples(st.booleans(), filters), max_size=60), st.lists(names, min_size=1, max_size=20))
def test_it_finds_what_matches_finds_after_any_adds_and_removes(
    steps: list[tuple[bool, str]], asked: list[str]
) -> None:
    router: Router[str] = Router()
    held: set[str] = set()
    for add, filter in steps:
        if add:
            router.add(filter, filter)
            held.add(filter)
        else:
            router.remove(filter)
            held.discard(filter)
    assert len(router) == len(held)
    for name in asked:
        found = router.match(name)
        assert sorted(found) == sorted(f for f in held if matches(f, name))


@given(st.lists(filters, unique=True, max_size=30), st.randoms(use_true_random=False))
def test_what_is_removed_leaves_no_node_behind(held: list[str], order: random.Random) -> None:
    router: Router[int] = Router()
    for n, filter in enumerate(held):
        router.add(filter, n)
    order.shuffle(held)
    for filter in held:
        router.remove(filter)
    assert len(router) == 0
    # A walk from an empty root visits the root alone, whatever the topic.
    assert router._root.empty()
    for name in ("a/b/c", "a", "$x/a"):
        before = router.visited
        assert router.match(name) == ()
        assert router.visited == before + 1


def test_a_second_add_replaces_the_value() -> None:
    router: Router[int] = Router()
    for filter in ("a/b", "a/#"):
        router.add(filter, 1)
        router.add(filter, 2)
    assert len(router) == 2
    assert router.match("a/b") == (2, 2)


@pytest.mark.parametrize("unknown", ["x", "a/x", "a/+", "a/b/c", "#", "a/b/#", "a"])
def test_removing_an_unknown_filter_changes_nothing(unknown: str) -> None:
    router: Router[int] = Router()
    router.add("a/b", 1)
    router.remove(unknown)
    assert len(router) == 1
    assert router.match("a/b") == (1,)


def test_a_removed_filter_leaves_the_nodes_that_others_need() -> None:
    router: Router[str] = Router()
    for filter in ("a/b", "a/b/c", "a/+/c"):
        router.add(filter, filter)
    router.remove("a/b")
    assert router.match("a/b") == ()
    assert sorted(router.match("a/b/c")) == ["a/+/c", "a/b/c"]


def test_the_worst_set_of_filters_costs_two_branches_per_level() -> None:
    depth = 7
    router: Router[str] = Router()
    for parts in product("a+", repeat=depth):
        router.add("/".join(parts), "")
    assert len(router.match("/".join("a" * depth))) == 2**depth
    assert router.visited == 2 ** (depth + 1) - 1


DEPTH = 5
WALKS = 500


def visits(count: int, most_wild: int) -> tuple[int, float]:
    """Return what the worst and the mean walk visits among ``count`` filters, a tenth with 1 to ``most_wild`` ``+``."""
    rng = random.Random(7)
    router: Router[int] = Router()

    def text() -> list[str]:
        n = rng.randrange(count)
        return ["devices", f"site{n % 10}", f"line{n % 100}", f"device{n}", rng.choice(["temp", "rpm", "state"])]

    for n in range(count):
        parts = text()
        if rng.random() < 0.1:
            for level in rng.sample(range(DEPTH), rng.randint(1, most_wild)):
                parts[level] = "+"
        router.add("/".join(parts), n)
    router.visited = worst = 0
    for _ in range(WALKS):
        before = router.visited
        router.match("/".join(text()))
        worst = max(worst, router.visited - before)
    return worst, router.visited / WALKS


def test_a_walk_follows_the_depth_and_not_the_number_of_filters() -> None:
    for count in (1_000, 50_000):
        worst, _ = visits(count, most_wild=1)
        assert worst <= 2**DEPTH
    # Filters with several + each open nearly every branch: the worst walk nears the bound, the mean stays below half.
    worst, mean = visits(50_000, most_wild=3)
    assert worst < 2 ** (DEPTH + 1)
    assert mean <= 2**DEPTH


def test_a_topic_is_walked_once_until_a_filter_comes_or_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    router: Router[int] = Router()
    router.add("a/+", 1)
    assert router.match("a/b") == router.match("a/b") == (1,)
    walked = router.visited
    router.match("a/b")
    assert router.visited == walked
    router.add("a/b", 2)
    assert router.match("a/b") == (2, 1)
    router.remove("a/+")
    assert router.match("a/b") == (2,)
    monkeypatch.setattr("gateway.limits.TOPIC_CACHE", 1)
    walked = router.visited
    for topic in ("a/x", "a/y", "a/x"):
        router.match(topic)
    assert router.visited == walked + 3 * 2, "what is remembered is bounded"

"""The benchmarks still measure: the router's and the services' in small, and a row as readers see it."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import orders, router, services
from benchmarks.orders import Order, Seen, Task
from benchmarks.results import Row, Section, markdown

ROW = Row("a walk", "µs", (3.0, 1.5, 2.0), "1,000 filters", (1.0, 1.0, 2.0), "at most 1.5")


def test_a_walk_among_many_filters_stays_within_its_bound() -> None:
    few, many = router.tree(50, 50), router.tree(2_000, 200)
    assert len(many.router) > 1_900, "a few filters with + are the same"
    for tree in (few, many):
        mean, most = router.visits(tree)
        # Its own path is root and five levels.
        assert router.LEVELS + 1 <= mean <= most <= router.BOUND
        assert router.walked(tree, again=False) > 0
        assert router.walked(tree, again=True) > 0
    plus = sum(1 for topic in many.topics if len(many.router.match(topic)) > 1)
    assert plus or router.visits(many)[1] > router.LEVELS + 1, "wildcards were walked too"


def test_the_bound_is_asserted() -> None:
    tree = router.tree(50, 50)
    tree.router.visited = 0
    assert router.visits(tree)
    with pytest.raises(AssertionError, match="has a filter"):
        router.visits(router.Tree(tree.router, ["nobody/asked"], 0.0))


def test_a_row_shows_medians_and_the_ratio_of_each_repetition() -> None:
    assert ROW.ratios == (3.0, 1.5, 1.0)
    # 1.5, the median of the quotients: not 2.0, the quotient of the medians.
    assert ROW.cells() == ("a walk", "2 µs", "1,000 filters", "1 µs", "1.50 (1.00 to 3.00)", "at most 1.5")
    assert Row("memory", "bytes", (535.4,)).cells() == ("memory", "535 bytes", "", "", "", "")


def test_results_say_where_and_when() -> None:
    text = markdown([Section("Router", "How.", (ROW,))], {"CPU": "one"}, "make bench", datetime.date(2026, 1, 2))
    assert "- command: `make bench`\n- date: 2026-01-02\n- CPU: one\n" in text
    assert "## Router\n\nHow.\n\n| figure | ours |" in text
    assert "| a walk | 2 µs | 1,000 filters | 1 µs | 1.50 (1.00 to 3.00) | at most 1.5 |\n" in text


@pytest.mark.parametrize("kind", ["database", "database batch"])
def test_a_worker_with_a_database_is_measured_and_lost_nothing(kind: str, tmp_path: Path) -> None:
    took = services._handled(tmp_path / "on", kind, 500, f"sqlite:///{tmp_path}/stock.db", batch=100)
    assert took.rate > 0


def test_a_worker_is_measured_until_it_has_acknowledged(tmp_path: Path) -> None:
    with services.ring(tmp_path / "on") as on:
        asyncio.run(orders.fill(on.url, 500))
        took = on.run(Task("worker", on.url, "stock", 500, 50), lambda: orders.at_rest(on.log, "shop.stock"))
    assert took.rate > 0


def test_a_lost_and_a_doubled_order_are_seen() -> None:
    seen = Seen(Task("worker", "", "stock", count=4, warm=1))
    for n in (0, 1, 1, 3):
        seen.note(n)
    told = seen.told()
    assert (told.lost, told.doubled, told.measured) == (1, 1, 3)


def test_an_order_has_the_size_that_the_results_speak_of() -> None:
    for n in (0, 999_999):
        data = orders.payload(n)
        assert len(data) == 128
        assert msgspec.json.decode(data, type=Order).n == n

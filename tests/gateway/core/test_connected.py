"""Tests of core/connected: what many edges say is one answer, and nobody is left out in silence."""

from __future__ import annotations

from gateway import limits
from gateway.adapters.identity import new_id
from gateway.core.connected import Connected, Connection, Said, first, since, together


def row(client: str, waiting: int = 0) -> Connection:
    return Connection(client, "user:a", "edge-1", "websocket", "json", "", 0, 0, [], waiting)


def test_who_reads_nothing_comes_first_then_who_came_first() -> None:
    here, there = Said([row("b", 7), row("a")], 2), Said([row("d", 9), row("c"), row("e")], 3)
    found = together({"edge-2": there, "edge-1": here}, 4)
    assert [one.client for one in found.connections] == ["d", "b", "a", "c"]
    assert (found.left_out, found.edges, found.missing) == (1, ["edge-1", "edge-2"], [])


def test_what_an_edge_left_out_is_counted() -> None:
    assert together({"edge-1": Said([row("a")], 40), "edge-2": Said([row("b")], 2)}, 1).left_out == 41


def test_an_edge_that_said_nothing_is_named() -> None:
    assert together({"edge-1": Said([], 0), "edge-3": None, "edge-2": None}, 9) == Connected(
        [], 0, ["edge-1"], ["edge-2", "edge-3"]
    )


def test_an_id_says_when_the_client_came() -> None:
    assert since("019a8e2c-7d00-7000-8000-000000000000") == 0x019A8E2C7D00
    assert since(before := new_id()) <= since(new_id()) <= since(before) + 60_000


def test_of_many_filters_the_first_are_told() -> None:
    assert first({"b", "a"}) == ["a", "b"]
    assert len(first(map(str, range(100)))) == limits.CONNECTION_FILTERS

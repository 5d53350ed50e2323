"""The benchmarks still measure: the router's, services' and edges' in small, and a row as readers see it."""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from benchmarks import edges, fanout_peers, fleet, idle, loads, orders, room, router, services, shop, storm, storm_load
from benchmarks.fanout_peers import centrifugo, mosquitto, nats
from benchmarks.orders import Order, Seen, Task
from benchmarks.results import Row, Section, markdown
from gateway.errors import ServerMissing
from tests.servers import missing

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


def test_idle_connections_are_held_and_weighed(tmp_path: Path) -> None:
    loads.build()
    assert idle._ours(tmp_path / "on", 200, quick=True) > 0


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


def test_what_an_event_costs_is_measured_and_does_not_hide_that_nothing_came(tmp_path: Path) -> None:
    cost = edges._cost(tmp_path / "log", edges.Case(topics=10, edges=0), 0.3)
    assert cost.edges == 0
    assert 0 < cost.log < 10_000
    for case in edges._CASES:
        changed = [name for name in case.__struct_fields__ if getattr(case, name) != getattr(edges._FIRST, name)]
        assert len(changed) == 1, case


def test_long_commands_become_messages_that_the_generator_can_hold() -> None:
    lines = [f'{{"id":{n}}}' for n in range(100)]
    pieces = edges._pieces("\n".join(lines), 200)
    assert all(len(piece) < 300 for piece in pieces)
    assert [line for piece in pieces for line in piece.removeprefix("text:").split("\\n")] == lines


def test_brokers_are_given_each_event_once() -> None:
    events = [b'{"n":%d,"data":"%b"}' % (n, b"x" * 200) for n in range(3)]
    assert nats.published(events).split(b"\r\n")[:-1] == [x for e in events for x in (b"PUB bench %d" % len(e), e)]
    head, _, body = centrifugo.published(events).partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert [c["publish"]["data"]["n"] for c in msgspec.json.decode(body)["commands"]] == [0, 1, 2]
    sent, found = mosquitto.published(events), []
    while sent:
        assert sent[0] == 0x30
        length = (sent[1] & 127) + 128 * sent[2]  # MQTT 5, 1.5.5
        found.append(sent[3 : 3 + length])
        sent = sent[3 + length :]
    assert found == [b"\x00\x05bench" + event for event in events]


def test_a_peer_that_is_not_here_is_left_out_and_its_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fanout_peers, "SBIN", "")
    monkeypatch.setattr(fanout_peers, "PEERS", {"NATS": ("nats", "")})
    beside = fanout_peers.Beside(tmp_path, 1000, 1, 1.0)
    beside.again()
    (row,) = beside.rows("1,000 watchers", [3.0])
    assert row.cells() == ("1,000 watchers", "3 /CPU s", "NATS: `nats-server` is not on PATH", "", "", "")


def test_a_crowd_comes_back_and_each_has_everything(tmp_path: Path) -> None:
    section = storm.run(tmp_path, quick=True)
    figures = {row.figure: row.ours[0] for row in section.rows}
    assert figures["20 topics, 1 edge: log reads"] == 0
    assert figures["20 topics, 1 edge: all caught up"] > 0


def test_a_shop_is_measured_from_placed_to_the_end(tmp_path: Path) -> None:
    took = shop.Took({"a": 1.0, "b": 2.0}, {"b": 2.25, "a": 1.5}, {"a": 3.0, "b": 3.0}, {"a": 5.0, "b": 4.0})
    assert (took.answers(), took.confirmations(), took.rate()) == ([250.0, 500.0], [2000.0, 1000.0], 0.5)
    paced, at_once = asyncio.run(shop.bare(tmp_path, shop.Load(20, 0.5, 20, 4)))
    assert (len(paced.answered), len(at_once.answered)) == (10, 20)
    assert min(paced.answers() + at_once.answers()) > 0


def test_a_fleet_is_measured_and_a_lost_value_is_seen(tmp_path: Path) -> None:
    try:
        section = fleet.run(tmp_path, quick=True)
    except ServerMissing as error:
        missing(error)
    assert all(row.ours[0] > 0 for row in section.rows)
    load, data = fleet.Load(10, 20, 1), tmp_path / "fleet" / "data"
    assert fleet.lost(data, load) == {"stored": 0, "windowed": 0, "evaluated": 0}
    with closing(sqlite3.connect(data / "devices.storage.db")) as db, db:
        db.execute("DELETE FROM points WHERE (device, metric, ts) = (SELECT device, metric, max(ts) FROM points)")
    assert fleet.lost(data, load)["stored"] > 0


def test_a_room_is_measured_and_everybody_hears_everything(tmp_path: Path) -> None:
    loads.build()
    section = room.run(tmp_path, quick=True)
    assert all(row.ours[0] > 0 < row.theirs[0] for row in section.rows)


def test_a_frame_is_taken_when_all_of_it_is_there() -> None:
    for size, head in (
        (5, b"\x81\x05"),
        (300, b"\x81\x7e\x01\x2c"),
        (70_000, b"\x81\x7f" + (70_000).to_bytes(8, "big")),
    ):
        whole = head + b"x" * size
        assert storm_load._whole(whole) == (len(head), len(whole))
        for cut in (0, 1, 2, 3, len(head), len(whole) - 1):
            assert storm_load._whole(whole[:cut]) is None

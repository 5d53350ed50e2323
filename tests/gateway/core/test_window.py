"""Tests of core/window: against a model that keeps everything in one list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.event import Event, Record
from gateway.core.topic import matches
from gateway.core.window import Window

TOPICS = ("a", "a/1", "a/2", "b/1")
FILTERS = (*TOPICS, "+", "a/+", "a/#", "#", "+/1", "c")


def record(offset: int, topic: str = "a", id: str = "", size: int = 1) -> Record:
    return Record(Event(topic, b"x" * size, id or str(offset)), "p", 1, offset)


class Model:
    """What a window is, without any index: the newest records within two bounds."""

    def __init__(self, entries: int, size: int) -> None:
        self.entries, self.size, self.kept, self.floor = entries, size, list[Record](), 0

    def add(self, new: Record) -> bool:
        if any((r.event.topic, r.event.id) == (new.event.topic, new.event.id) for r in self.kept):
            return False
        self.kept.append(new)
        while len(self.kept) > self.entries or sum(len(r.event.data) for r in self.kept) > self.size:
            self.floor = self.kept.pop(0).offset
        return True

    def after(self, offset: int, filter: str) -> list[Record]:
        return [r for r in self.kept if r.offset > offset and matches(filter, r.event.topic)]


@given(
    entries=st.integers(1, 6),
    size=st.integers(1, 12),
    added=st.lists(st.tuples(st.sampled_from(TOPICS), st.integers(0, 9), st.integers(0, 5), st.integers(1, 3))),
    asked=st.lists(st.tuples(st.integers(0, 80), st.sampled_from(FILTERS)), min_size=1),
)
def test_it_answers_as_the_model_does(
    entries: int, size: int, added: list[tuple[str, int, int, int]], asked: list[tuple[int, str]]
) -> None:
    window, model, offset = Window(entries, size), Model(entries, size), 0
    for topic, id, length, step in added:
        offset += step
        new = record(offset, topic, str(id), length)
        assert window.add(new) is model.add(new)
        assert (len(window), window.floor) == (len(model.kept), model.floor)
        for since, filter in asked:
            assert window.covers(since) is (since >= model.floor)
            assert window.after(since, filter) == model.after(since, filter)


def test_what_was_asked_before_is_answered_as_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    window.add(record(1, "a/1"))
    for filter in ("a/1", "a/+"):
        first = window.after(0, filter)
        first.clear()  # whoever asked may do with it what he likes
        assert [r.offset for r in window.after(0, filter)] == [1]
    window.add(record(2, "a/1"))
    for filter in ("a/1", "a/+"):
        assert [r.offset for r in window.after(0, filter)] == [1, 2]
    monkeypatch.setattr(limits, "WINDOW_ANSWERED", 3)
    for offset in (1, 0, 1):
        assert [r.offset for r in window.after(offset, "a/+")] == [1, 2][offset:]
        assert len(window._answers) == 1, "it remembers no more than that"


def test_it_knows_what_it_has_seen_and_how_large_that_was() -> None:
    window = Window(entries=1)
    window.start(4)
    window.add(record(5, size=9))
    window.add(record(6))
    assert (window.seen, window.largest, window.floor, window.size) == (4, 9, 5, 1)
    window.start(8)
    assert (window.seen, window.largest) == (8, 0)


def test_it_starts_afresh() -> None:
    window = Window()
    window.add(record(5, id="same"))
    window.start(7)
    assert (len(window), window.floor) == (0, 7)
    assert not window.covers(6)
    assert window.covers(7)
    assert window.after(0, "#") == []
    assert window.add(record(8, id="same")), "what was forgotten is no duplicate"


def test_an_id_is_remembered_as_long_as_its_record() -> None:
    window = Window(entries=2)
    assert window.add(record(1, id="i"))
    assert not window.add(record(2, id="i"))
    assert window.add(record(3, "b", id="i")), "ids are told apart by topic"
    assert window.add(record(4))
    assert window.add(record(5, id="i"))


def test_a_record_larger_than_the_window_passes_through() -> None:
    window = Window(size=10)
    window.add(record(1))
    assert window.add(record(2, size=11))
    assert (len(window), window.floor) == (0, 2)

"""Tests of core/fanout: how often a frame is made, and who has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.event import Event, Record
from gateway.core.fanout import Fanout

P = frozenset({"a.0"})


class Sink:
    """Keeps what it is given; ``full`` is what it does instead."""

    def __init__(self, full: Callable[[], object] | None = None) -> None:
        self.frames: list[bytes] = []
        self.full = full
        self.waiting = False

    @property
    def queue(self) -> Sink:
        return self

    @property
    def busy(self) -> bool:
        return self.waiting

    def share(self, queues: list[Sink], frame: bytes) -> None:
        for sink in queues:
            if sink.full is None:
                sink.frames.append(frame)
            else:
                sink.full()


def encoder(codec: str) -> Callable[[str, Event, Record | None], bytes]:
    def encode(filter: str, event: Event, record: Record | None) -> bytes:
        return f"[{codec} {filter} {event.id} {record.offset if record else '-'}]".encode()

    return encode


JSON, SSE = encoder("json"), encoder("sse")


def record(offset: int, topic: str = "a/1") -> Record:
    return Record(Event(topic, b"0", f"e{offset}"), "a.0", 1, offset)


@pytest.mark.parametrize("watchers", [1, 10, 1_000])
def test_frames_made_are_events_times_filters_times_codecs(watchers: int) -> None:
    fanout, events, filters = Fanout(), 5, ("a/1", "a/+", "#")
    sinks = [Sink() for _ in range(watchers)]
    for filter in filters:
        for sink in sinks:
            fanout.join(filter, P, "json", JSON, sink)
            fanout.join(filter, P, "sse", SSE, sink)
    fanout.send([record(n) for n in range(events)])
    assert fanout.encoded == events * len(filters) * 2
    assert fanout.offered == fanout.encoded * watchers


def test_a_batch_to_one_filter_is_one_object_for_all() -> None:
    fanout, first, second = Fanout(), Sink(), Sink()
    fanout.join("a/+", P, "json", JSON, first)
    fanout.join("a/+", P, "json", JSON, second)
    fanout.send([record(1), record(2, "a/2")], [Event("a/3", b"0", "live")])
    assert first.frames == [b"[json a/+ e1 1][json a/+ e2 2][json a/+ live -]"]
    assert first.frames[0] is second.frames[0]
    assert fanout.offered_bytes == 2 * len(first.frames[0])


def test_who_leaves_hears_whether_he_was_there() -> None:
    fanout, one = Fanout(), Sink()
    fanout.join("a/1", P, "json", JSON, one)
    assert [fanout.leave("a/1", codec, one) for codec in ("sse", "json", "json")] == [False, True, False]


def test_only_who_wants_it_is_offered_it() -> None:
    fanout, one, other = Fanout(), Sink(), Sink()
    fanout.join("a/1", P, "json", JSON, one)
    fanout.join("a/2", P, "json", JSON, other)
    fanout.send([record(1), record(2, "b")])
    assert one.frames == [b"[json a/1 e1 1]"]
    assert other.frames == []
    assert fanout.encoded == 1


@pytest.mark.parametrize("codec", ["json", "sse"])
def test_who_is_too_slow_may_leave_at_once_and_the_others_are_served(codec: str) -> None:
    fanout, fast = Fanout(), Sink()
    slow = Sink(lambda: fanout.leave("#", codec, slow))
    fanout.join("#", P, codec, JSON, slow)
    fanout.join("#", P, "json", JSON, fast)
    fanout.send([record(1)])
    fanout.send([record(2)])
    assert len(fast.frames) == 2
    assert fanout.offered == 3


def test_joining_twice_is_joining_once() -> None:
    fanout, sink = Fanout(), Sink()
    fanout.join("a/1", P, "json", JSON, sink)
    fanout.join("a/1", P, "json", JSON, sink)
    fanout.send([record(1)])
    assert len(sink.frames) == 1


def test_who_left_gets_nothing_and_a_filter_nobody_wants_is_forgotten() -> None:
    fanout, one, other, page = Fanout(), Sink(), Sink(), Sink()
    fanout.join("a/1", P, "json", JSON, one)
    fanout.join("a/1", P, "json", JSON, other)
    fanout.join("a/1", P, "sse", SSE, page)
    fanout.leave("a/1", "json", one)
    fanout.leave("a/1", "json", one)  # he did already
    fanout.leave("a/1", "json", page)  # of another codec
    fanout.send([record(1)])
    assert (len(one.frames), len(other.frames), len(page.frames)) == (0, 1, 1)
    fanout.leave("a/1", "json", other)
    fanout.leave("a/1", "json", other)  # nobody has this codec any more
    assert len(fanout) == 1
    fanout.leave("a/1", "sse", page)
    fanout.leave("a/1", "sse", page)  # nobody has this filter any more
    assert len(fanout) == 0
    fanout.send([record(2)])
    assert fanout.encoded == 2


def test_it_counts_who_has_which_filter() -> None:
    fanout, one, other = Fanout(), Sink(), Sink()
    for filter, codec, encode, sink in (("a/1", "json", JSON, one), ("a/1", "sse", SSE, other), ("#", "sse", SSE, one)):
        fanout.join(filter, P, codec, encode, sink)
    assert {interest.filter: interest.count for interest in fanout.interests()} == {"a/1": 2, "#": 1}


def test_it_knows_whom_a_partition_serves() -> None:
    fanout, one, other = Fanout(), Sink(), Sink()
    fanout.join("a/1", frozenset({"a.0"}), "json", JSON, one)
    fanout.join("a/#", frozenset({"a.0", "a.1"}), "json", JSON, one)
    fanout.join("a/#", frozenset({"a.0", "a.1"}), "sse", SSE, other)
    assert [i.filter for i in fanout.of("a.0")] == ["a/1", "a/#"]
    assert [list(i) for i in fanout.of("a.1")] == [[one, other]]
    assert (fanout.wanted("a.1"), fanout.wanted("b.0")) == (True, False)


def test_most_of_those_it_reached_decide_whether_it_is_behind() -> None:
    fanout, sinks, other = Fanout(), [Sink() for _ in range(4)], Sink()
    assert not fanout.behind()
    for sink in sinks:
        fanout.join("a/1", P, "json", JSON, sink)
    fanout.join("a/2", P, "json", JSON, other)
    fanout.send([record(1)])
    other.waiting = sinks[0].waiting = sinks[1].waiting = True
    assert not fanout.behind(), "half of them read"
    sinks[2].waiting = True
    assert fanout.behind()
    fanout.send([record(2, "a/3")])
    assert not fanout.behind(), "nobody was reached"


def test_who_joins_after_a_change_is_served_from_all_places_while_others_stand_where_they_did() -> None:
    fanout, old, new = Fanout(), Sink(), Sink()
    fanout.join("#", frozenset({"a.0"}), "sse", SSE, old)
    fanout.join("#", frozenset({"a.0", "b.0"}), "sse", JSON, new)
    fanout.leave("#", "sse", old)
    assert fanout.wanted("b.0")
    fanout.send([record(1)])
    assert new.frames == [b"[json # e1 1]"], "what it hears names all its places"


def test_the_filters_that_somebody_has_of_a_topic() -> None:
    fanout = Fanout()
    for filter in ("a/1", "a/+", "b"):
        fanout.join(filter, P, "json", JSON, Sink())
    assert sorted(fanout.filters("a/1")) == ["a/+", "a/1"]
    assert fanout.filters("c") == []

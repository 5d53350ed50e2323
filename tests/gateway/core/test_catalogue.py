"""The catalogue: which parts of a topic services name, who takes and gives them, and of what type."""

from __future__ import annotations

import pytest

from gateway.core.catalogue import Consumed, Participant, Place, places
from gateway.core.declared import Topic


def catalogue(topics: list[Topic], *participants: Participant) -> dict[str, Place]:
    found = list(places(topics, participants))
    assert len({place.id for place in found}) == len(found)
    return {place.pattern: place for place in found}


def consumer(*patterns: str, payload: object = None) -> Participant:
    return Participant("a.s", tuple(Consumed(pattern, payload) for pattern in patterns))


def test_every_topic_has_a_place_whatever_the_order() -> None:
    topics = [Topic(pattern="b/{x}"), Topic(pattern="a/#"), Topic(pattern="a")]
    assert [place.id for place in places(topics, ())] == ["a", "a.rest", "b.x"]
    assert list(places(topics, ())) == list(places(topics[::-1], ()))


def test_two_topics_of_one_sound_have_two_ids() -> None:
    found = catalogue(
        [Topic(pattern="a/b c"), Topic(pattern="a/b?c"), Topic(pattern="a/b_c"), Topic(pattern="a/{b_c}")]
    )
    assert sorted(place.id for place in found.values()) == ["a.b_c", "a.b_c.2", "a.b_c.3", "a.b_c.4"]


@pytest.mark.parametrize(
    ("topic", "wanted", "met"),
    [
        ("a/{x}/+", "a/{y}/done", "a/{x}/done"),
        ("a/+", "a/{y}", "a/{y}"),
        ("a/{x}/+", "a/+/{x}", "a/{x}/+"),
        ("a/+/{x}", "a/{x}/b", "a/+/b"),
        ("a/{x}/#", "a/{y}/{x}/{z}", "a/{x}/+/{z}"),
        ("a/#", "a/b/c", "a/b/c"),
        ("a/#", "a/b/#", "a/b/#"),
        ("a/b/c", "a/#", "a/b/c"),
        ("a/#", "a/#", "a/#"),
        ("a/#", "a", "a"),
        ("a", "a/#", "a"),
    ],
)
def test_a_service_names_a_part_of_a_topic(topic: str, wanted: str, met: str) -> None:
    found = catalogue([Topic(pattern=topic)], consumer(wanted))
    # The filter decides; where it is the topic's own, the topic's names stay.
    (place,) = [place for place in found.values() if place.receivers]
    assert place.filter == "/".join("+" if level.startswith("{") else level for level in met.split("/"))
    assert place.pattern == (met if place.filter != Topic(pattern=topic).filter else topic)
    assert place.topic.pattern == topic
    assert len(found) == (1 if place.pattern == topic else 2)


def test_what_a_more_literal_topic_has_is_no_part_of_the_wider_one() -> None:
    topics = [Topic(pattern="a/#"), Topic(pattern="a/{x}/#"), Topic(pattern="c")]
    found = catalogue(topics, consumer("a/{x}/b", "c"))
    assert {pattern: place.topic.pattern for pattern, place in found.items()} == {
        "a/#": "a/#",
        "a/{x}/#": "a/{x}/#",
        "a/{x}/b": "a/{x}/#",
        "c": "c",
    }


def test_groups_stand_where_they_take_and_give() -> None:
    stock = Participant("shop.stock", (Consumed("a/in"),), ("a/out", "a/#"))
    found = catalogue([Topic(pattern="a/#")], stock, consumer("a/in"))
    assert {pattern: (place.receivers, place.senders) for pattern, place in found.items()} == {
        "a/#": ((), ("shop.stock",)),
        "a/in": (("shop.stock", "a.s"), ()),
        "a/out": ((), ("shop.stock",)),
    }


def test_payloads_are_those_declared_else_those_of_all_who_take_everything() -> None:
    topics = [
        Topic(pattern="a/typed", schema=int),
        Topic(pattern="a/bytes", payload="bytes"),
        Topic(pattern="a/{x}/free"),
        Topic(pattern="a/other"),
    ]
    takers = (consumer("a/#", payload=str), consumer("a/{x}/free", payload=dict), consumer("a/1/free", payload=float))
    found = catalogue(topics, *takers, consumer("a/+/free", payload=dict), consumer("a/{x}/free"))
    assert {pattern: place.payloads for pattern, place in found.items()} == {
        "a/typed": (int,),
        "a/bytes": (),
        "a/{x}/free": (str, dict),
        "a/1/free": (str, dict, float),
        "a/other": (str,),
    }

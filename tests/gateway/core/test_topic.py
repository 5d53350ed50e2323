"""Topic names and filters: MQTT's own cases, names that only look like filters, and `overlap` against brute force."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.topic import app_of, check_filter, check_name, is_filter, matches, overlap
from gateway.errors import BadTopic

#: (filter, name, lets it through): MQTT 5, section 4.7, with the standard's own examples first.
MATCHING = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("sport/#", "sports", False),
    ("#", "sport", True),
    ("#", "/", True),
    ("#", "a/b/c", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("+", "finance", True),
    ("+/tennis/#", "sport/tennis/player1", True),
    ("+/tennis/#", "sport/tennis", True),
    ("sport/+/player1", "sport/tennis/player1", True),
    ("sport/+/player1", "sport/tennis/player2", False),
    # 4.7.2: what begins with $ is hidden from a leading wildcard.
    ("#", "$SYS/uptime", False),
    ("+/uptime", "$SYS/uptime", False),
    ("$SYS/#", "$SYS/uptime", True),
    ("$SYS/#", "$SYS", True),
    ("$SYS/+", "$SYS/uptime", True),
    ("a/#", "a/$b", True),
    ("a/+", "a/$b", True),
    # 4.7.3: case counts, spaces are levels' own, a leading or trailing slash is one empty level more.
    ("ACCOUNTS", "Accounts", False),
    ("Accounts payable", "Accounts payable", True),
    ("/finance", "finance", False),
    ("/", "/", True),
    ("+/+", "/", True),
    ("/+", "/", True),
    ("/#", "/", True),
    ("a//b", "a//b", True),
    ("a/+/b", "a//b", True),
    ("a/b", "a//b", False),
    ("a/#", "a//b", True),
    ("a/", "a", False),
    ("a/+", "a/", True),
    # Ours: a wildcard that shares its level is an ordinary character.
    ("news#42", "news#42", True),
    ("news#42", "news#42/a", False),
    ("a#1,2", "a#1,2", True),
    ("+x", "+x", True),
    ("+x", "ax", False),
    ("a/+x", "a/bx", False),
    ("a/x#", "a/x/b", False),
]


@pytest.mark.parametrize(("filter", "name", "through"), MATCHING)
def test_a_filter_lets_a_name_through_as_mqtt_says(filter: str, name: str, through: bool) -> None:
    check_filter(filter)
    assert matches(filter, name) is through


@pytest.mark.parametrize("name", ["a", "a/b", "/", "//", "a//b", "a/", "news#42", "a#1,2", "+x", "x+/#y", "ü/ß", "a b"])
def test_a_name_is_accepted_as_it_is(name: str) -> None:
    assert check_name(name) == name
    assert check_filter(name) == name
    assert not is_filter(name)


@pytest.mark.parametrize("filter", ["#", "+", "+/+", "a/#", "+/a/#", "/+", "/#", "$SYS/#"])
def test_a_filter_is_no_name(filter: str) -> None:
    assert check_filter(filter) == filter
    assert is_filter(filter)
    with pytest.raises(BadTopic):
        check_name(filter)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a/\ud800", "lone surrogate"),
        ("a" * (limits.TOPIC_BYTES + 1), f"is {limits.TOPIC_BYTES + 1} bytes long"),
        ("ü" * limits.TOPIC_BYTES, f"is {2 * limits.TOPIC_BYTES} bytes long"),
        ("a\x00b", "control character"),
        ("a\nb", "control character"),
        ("a\u202eb", "control character"),
        ("a/" * limits.TOPIC_LEVELS, f"has {limits.TOPIC_LEVELS + 1} levels"),
    ],
)
def test_a_bad_text_is_neither_name_nor_filter(text: str, says: str) -> None:
    with pytest.raises(BadTopic, match=says):
        check_name(text)
    with pytest.raises(BadTopic, match=says):
        check_filter(text)


def test_the_bounds_themselves_are_allowed() -> None:
    check_name("a" * limits.TOPIC_BYTES)
    check_name("/" * (limits.TOPIC_LEVELS - 1))


def test_a_name_of_the_broker_is_refused_with_the_reason() -> None:
    with pytest.raises(BadTopic, match=r"belong to the broker"):
        check_name("$SYS/uptime")


@pytest.mark.parametrize("filter", ["#/a", "a/#/b", "#/#", "+/#/+"])
def test_a_hash_may_only_end_a_filter(filter: str) -> None:
    with pytest.raises(BadTopic, match=r"MQTT 5, 4\.7\.1\.2"):
        check_filter(filter)


@pytest.mark.parametrize(
    ("text", "app"),
    [("devices/7/x", "devices"), ("chat:room", "chat"), ("a:b/c", "a"), ("a/b:c", "a"), ("try", "try"), ("/a", "")],
)
def test_level_one_is_the_application(text: str, app: str) -> None:
    assert app_of(text) == app


LEVELS = ["a", "b", "", "$", "+x"]
#: Every name of up to four levels: one more than the filters have, so that the tail of a # is among them.
NAMES = ["/".join(levels) for n in range(1, 5) for levels in product(LEVELS, repeat=n)]

filters = st.builds(
    lambda levels, end: "/".join([*levels, *end]) or "#",
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=3),
    st.sampled_from([[], ["#"]]),
)


@given(filters, filters)
def test_two_filters_overlap_exactly_if_some_name_passes_both(a: str, b: str) -> None:
    if a == "" or b == "":
        return  # one empty level alone is the empty text, which is no filter
    assert overlap(a, b) is any(matches(a, name) and matches(b, name) for name in NAMES)
    assert overlap(a, b) is overlap(b, a)

"""What a broker is to refuse: each denial narrowed to what was given, and what its language cannot say."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.declared import Right, Topic
from gateway.core.denials import Given, denials
from gateway.core.mapping import Rule
from gateway.core.topic import matches
from gateway.errors import Misconfigured

UP = (Given("write", "d/7/up/#"), Given("write", "d/7/status"), Given("read", "d/7/down/#"))


@pytest.mark.parametrize(
    ("pattern", "words", "expected"),
    [
        ("d/#", ["device:7"], ["d/7/up/#", "d/7/status"]),
        ("d/#", ["device:8"], []),
        ("d/#", ["user", "user:7"], []),
        ("d/{device}/up/secret", ["device"], ["d/7/up/secret"]),
        ("d/{device}/+/{x}", ["device:{device}"], ["d/7/up/+"]),
        ("d/{x}/{device}/#", ["device:{device}"], []),  # it has no level of its own name there
        ("d/+/status", ["anyone"], ["d/7/status"]),
        ("d/7/up", ["anyone"], ["d/7/up"]),  # "d/7/up/#" lets its parent through
        ("d/{device}/down/x", ["anyone"], []),  # it may not write there anyhow
        ("e/#", ["anyone"], []),
    ],
)
def test_a_denial_is_narrowed_to_what_was_given(pattern: str, words: list[str], expected: list[str]) -> None:
    assert denials("7", UP, [Topic(pattern=pattern, deny_write=tuple(words))]) == expected


def test_who_has_no_name_is_denied_as_anyone_alone() -> None:
    try_it = [Given("write", "try/#"), Given("read", "try/#")]
    both = Topic(pattern="try/x", deny_write=("anyone",), deny_read=("anyone",))
    assert denials("", try_it, [both, Topic(pattern="try/{device}/y")]) == ["try/x"]
    for word in ("device", "device:{device}"):
        assert denials("", try_it, [Topic(pattern="try/{device}", deny_write=(word,))]) == []


@pytest.mark.parametrize(
    ("pattern", "words", "expected"),
    [
        ("devices/{device}/#", ["device"], ["tele/7/+/+"]),
        ("devices/7/{kind}", ["device:7"], ["tele/7/+/+"]),
        ("devices/8/{kind}", ["device"], []),
        ("devices/{device}/heat", ["device:{device}"], ["tele/7/heat/+"]),
        ("devices/+/+/more", ["device"], []),
    ],
)
def test_what_a_rule_makes_of_old_topics_is_denied_there(pattern: str, words: list[str], expected: list[str]) -> None:
    old = Given("write", "tele/7/+/+", Rule("tele/{device}/{kind}/+", "devices/{device}/{kind}"))
    assert denials("7", [old], [Topic(pattern=pattern, deny_write=tuple(words))]) == expected


def test_a_denial_that_would_take_the_other_right_too_is_refused() -> None:
    given = [Given("write", "d/7/#"), Given("read", "d/7/down")]
    with pytest.raises(Misconfigured, match=r"cannot deny 7 to write 'd/7/down' and let it read there: .*; deny both"):
        denials("7", given, [Topic(pattern="d/#", deny_write=("device",))])
    assert denials("7", given, [Topic(pattern="d/7/up", deny_write=("device",))]) == ["d/7/up"]
    both = [Topic(pattern="d/#", deny_write=("device",)), Topic(pattern="d/+/down", deny_read=("device:7",))]
    assert denials("7", given, both) == ["d/7/#", "d/7/down"]


FILTERS = ["d/7/#", "d/+/up", "d/7/up", "d/7/+", "d/8/up", "+/7/#", "d/#"]
PATTERNS = ["d/{device}/up", "d/{device}/#", "d/+/{device}", "d/7/up", "d/8/#", "d/#", "d/7/up/{x}"]
NAMES = ["/".join(["d", *rest]) for n in range(4) for rest in product(["7", "8", "up"], repeat=n)]
givens = st.builds(Given, st.sampled_from(["read", "write"]), st.sampled_from(FILTERS))
words = st.lists(st.sampled_from(["anyone", "device", "device:7", "device:8", "user"]), max_size=2).map(tuple)
topics = st.builds(
    lambda pattern, read, write, own: Topic(
        pattern=pattern, deny_read=read, deny_write=(*write, "device:{device}") if own and "{d" in pattern else write
    ),
    st.sampled_from(PATTERNS),
    words,
    words,
    st.booleans(),
)


@given(st.lists(givens, max_size=4), st.lists(topics, max_size=3))
def test_the_broker_then_allows_exactly_what_is_given_and_not_denied(given: list[Given], topics: list[Topic]) -> None:
    try:
        lines = denials("7", given, topics)
    except Misconfigured:
        return

    def covered(topic: Topic, name: str, right: Right) -> bool:
        own = topic.bind(name).get("device")
        word = {"anyone", "device", "device:7"} | ({"device:{device}"} if own == "7" else set())
        return matches(topic.filter, name) and bool(word & set(topic.denials(right)))

    rights: list[Right] = ["read", "write"]
    for name, right in product(NAMES, rights):
        allowed = any(one.right == right and matches(one.filter, name) for one in given)
        broker = allowed and not any(matches(line, name) for line in lines)
        assert broker == (allowed and not any(covered(topic, name, right) for topic in topics)), (name, right, lines)

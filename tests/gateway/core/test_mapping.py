"""Burnt-in topics: each rule that contradicts itself, the most literal rule, and what is subscribed to."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.mapping import Rule, TopicMap, apart, covers
from gateway.core.topic import matches
from gateway.errors import Misconfigured


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("", "a", "the filter is empty"),
        ("a/#/b", "a", "has # before its last level"),
        ("a", "b/\n", "control character"),
        ("a/x{d}", "a", "brace that is not a whole level"),
        ("a", "a/{D}", "brace that is not a whole level"),
        ("$share/g/a", "a", "is a shared subscription"),
        ("a/+", "b/+", "the target has a wildcard"),
        ("a/#", "b/#", "the target has a wildcard"),
        ("a/{d}/{d}", "b/{d}", "names a variable twice"),
        ("a/+", "b/{d}", "{d} has no value; name that level in the source"),
        ("a/{d}/{e}", "b/{d}", "{e} is dropped; write + for a level that the target leaves out"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(source: str, target: str, says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Rule(source, target)
    assert says in str(caught.value)
    assert f"map from {source!r} to {target!r}" in str(caught.value)


RULES = TopicMap(
    [
        Rule("tele/{device}/SENSOR", "devices/{device}/telemetry"),
        Rule("tele/{device}/#", "devices/{device}/other"),
        Rule("tele/gate/{what}", "gate/{what}"),
        Rule("{site}/+/{device}/raw", "devices/{device}/{site}/raw"),
        Rule("tele", "root"),
        Rule("tele/#", "rest"),
        Rule("$SYS/broker/uptime", "broker/uptime"),
    ]
)


@pytest.mark.parametrize(
    ("topic", "target"),
    [
        ("tele/7/SENSOR", "devices/7/telemetry"),
        ("tele/7/STATE", "devices/7/other"),
        ("tele/7", "devices/7/other"),
        ("tele/7/a/b", "devices/7/other"),
        ("tele/gate/SENSOR", "gate/SENSOR"),
        ("tele", "root"),
        ("tele/gate/a/b", "devices/gate/other"),
        ("hall/x/7/raw", "devices/7/hall/raw"),
        ("tele//SENSOR", "devices//telemetry"),
        ("$SYS/broker/uptime", "broker/uptime"),
        ("$SYS/x/7/raw", None),
        ("other/7", None),
        ("", None),
    ],
)
def test_the_most_literal_rule_has_the_topic(topic: str, target: str | None) -> None:
    assert RULES.resolve(topic) == target
    assert TopicMap(reversed(RULES.rules)).resolve(topic) == target


def test_a_target_is_not_mapped_again() -> None:
    assert TopicMap([Rule("a", "b"), Rule("b", "a")]).resolve("a") == "b"


def test_one_filter_has_one_target() -> None:
    with pytest.raises(Misconfigured, match=r"maps from 'a/{x}' and 'a/{y}' are one filter"):
        TopicMap([Rule("a/{x}", "b/{x}"), Rule("a/{y}", "c/{y}")])


def test_what_one_subscription_covers_is_not_subscribed_twice() -> None:
    assert RULES.filters() == ("+/+/+/raw", "tele/#", "$SYS/broker/uptime")
    assert TopicMap([]).filters() == ()
    assert Rule("tele/{d}/#", "devices/{d}/x").reach == "devices/+/x"


LEVELS = ["a", "b", "", "$"]
NAMES = ["/".join(levels) for n in range(1, 5) for levels in product([*LEVELS, "fresh"], repeat=n)]
filters = st.builds(
    lambda body, end: "/".join([*body, *end]),
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=3),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(filters, filters)
def test_covers_agrees_with_every_name(wide: str, narrow: str) -> None:
    every = all(matches(wide, name) for name in NAMES if name and matches(narrow, name))
    # "#" and "+/#" let the same names through, as no name has no level; that one pair may be called apart.
    assert covers(wide, narrow) is every or (every and wide.endswith("+/#"))


@given(st.lists(filters, max_size=5))
def test_no_name_passes_two_of_the_filters_set_apart(wanted: list[str]) -> None:
    found = apart(wanted)
    for name in NAMES:
        passed = sum(matches(f, name) for f in found)
        assert passed <= 1
        assert passed or not any(matches(f, name) for f in wanted)


def test_filters_that_cross_are_joined_into_one_that_covers_both() -> None:
    assert apart(["a/b/#", "a/+/c"]) == ("a/+/#",)
    assert apart(["+/b", "a/+"]) == ("+/+",)
    assert apart(["+", "a/#"]) == ("+/#",)


def test_one_object_becomes_other_rules() -> None:
    rules = TopicMap([Rule("old/{x}", "new/{x}")])
    rules.become(TopicMap([Rule("older/{x}", "new/{x}")]))
    assert (rules.resolve("old/1"), rules.resolve("older/1")) == (None, "new/1")
    assert rules.filters() == ("older/+",)

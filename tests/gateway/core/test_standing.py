"""What a change of declarations makes of subscriptions: deciding again is deciding anew, for each of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access import Principal
from gateway.core.declared import Declared, Topic
from gateway.core.standing import Redecision, Verdict, standing
from gateway.errors import GatewayError
from tests.gateway.core.test_declared import ALICE, WHO, declarations, filters

ROOM = Topic(pattern="a/{room}", read=("user",))


@pytest.mark.parametrize(
    ("topics", "filter", "expected"),
    [
        ([ROOM], "a/1", "stays"),
        ([ROOM, Topic(pattern="b/c")], "a/1", "stays"),
        ([Topic(pattern="a/{room}", read=("user", "device"))], "a/1", "stays"),  # others may too
        ([Topic(pattern="a/{room}", read=("device",))], "a/1", "ends"),
        ([Topic(pattern="a/{room}", read=("user",), deny_read=("user:alice",))], "a/1", "ends"),
        ([ROOM, Topic(pattern="a/#", deny_read=("user:alice",))], "a/1", "ends"),
        ([ROOM, Topic(pattern="a/#", deny_read=("user:bob",))], "a/1", "stays"),
        ([Topic(pattern="b/{room}", read=("user",))], "a/1", "ends"),  # no such topic any more
        ([ROOM, Topic(pattern="a/b/c", read=("user",))], "a/+", "stays"),
        ([ROOM, Topic(pattern="a/b/c", read=("user",), ephemeral=True)], "a/#", "returns"),  # nothing recovers it now
        ([ROOM, Topic(pattern="a/b/c", read=("device",))], "a/#", "ends"),
        ([Topic(pattern="a/{room}", read=("user",), key="{room}/x")], "a/1", "returns"),  # it stands elsewhere
        ([Topic(pattern="a/{room}", read=("user",), history=False)], "a/1", "returns"),
        ([Topic(pattern="a/{room}", read=("user",), presence=True)], "a/1", "returns"),
        ([Topic(pattern="a/{room}", read=("user",), retain=True)], "a/1", "stays"),
    ],
)
def test_a_subscription_stays_comes_back_or_ends(topics: list[Topic], filter: str, expected: Verdict) -> None:
    decide = Redecision(Declared([ROOM], 64), Declared(topics, 64))
    assert decide.of(ALICE, filter) == decide.of(ALICE, filter) == expected


def test_what_no_rule_touched_is_not_asked_about() -> None:
    """Who came in by another way, such as a token of one subscription, stays where nothing changed."""
    decide = Redecision(Declared([ROOM]), Declared([ROOM, Topic(pattern="b/c")]))
    assert decide.of(Principal("device", "7"), "a/1") == "stays"


@given(declarations(), declarations(), st.lists(st.tuples(st.sampled_from(WHO), filters), max_size=6))
def test_deciding_again_is_deciding_anew(old: Declared, new: Declared, asked: list[tuple[Principal, str]]) -> None:
    decide = Redecision(old, new)
    for who, filter in asked:
        try:
            before = old.readable(who, filter)
        except GatewayError:
            continue  # nobody has such a subscription
        verdict = decide.of(who, filter)
        try:
            after = new.readable(who, filter)
        except GatewayError:
            assert verdict == "ends"
            continue
        assert verdict == ("stays" if standing(old, before) == standing(new, after) else "returns")

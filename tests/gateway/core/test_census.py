"""Tests of core/census: whatever clients call themselves, there are few kinds of them."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.core.census import SDKS, Census


@pytest.mark.parametrize(
    ("client", "sdk"), [("js 5.3.0", "js"), ("dart", "dart"), ("", "other"), ("alice", "other"), ("JS 5", "other")]
)
def test_only_a_known_sdk_has_a_name(client: str, sdk: str) -> None:
    assert Census().kind("websocket", client).sdk == sdk


def test_the_kinds_are_bounded_and_each_is_one() -> None:
    census = Census()
    kinds = {census.kind("websocket", name) for name in [*SDKS, *map(str, range(1000))]}
    assert len(kinds) == len(SDKS) + 1
    assert set(census) == kinds | {census.kind("sse", "")}


def test_both_transports_are_told_before_anybody_came() -> None:
    assert {(kind.transport, kind.connections, kind.subscriptions) for kind in Census()} == {
        ("sse", 0, 0),
        ("websocket", 0, 0),
    }


def test_what_clients_call_themselves_is_kept_once_and_bounded() -> None:
    census = Census()
    names = [f"js {n}" for n in range(limits.SDK_NAMES + 1)]
    assert [census.name(name) for name in names] == names
    assert census.name("".join(["js ", "0"])) is names[0]
    beyond = "".join(["js ", str(limits.SDK_NAMES)])
    assert census.name(beyond) is beyond

"""What becomes of a shadow: merge patches, the difference that a device is told, versions, times and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, convert
from msgspec.json import decode, encode

from devices import limits
from devices.shadow.rules import (
    Gone,
    Patch,
    Shadow,
    Stale,
    Times,
    TooMuch,
    Tree,
    difference,
    forgotten,
    merged,
    patched,
    same,
    updated,
)

FLAT = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
KEYS = st.sampled_from("abcd")
VALUES = st.recursive(
    FLAT, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
#: What a patch may say, and what is kept: null is no value of a field, though one of an array.
PATCHES = st.dictionaries(KEYS, VALUES, max_size=4)
TREES = PATCHES.map(lambda patch: merged({}, patch))


def leaves(tree: Any) -> Any:
    """The shape of an object: its fields alone."""
    return {key: leaves(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def test_a_merge_patch_is_that_of_the_standard() -> None:
    """RFC 7396, appendix A, as far as both are objects."""
    cases: list[tuple[Tree, Tree, Tree]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    assert [merged(target, patch) for target, patch, _ in cases] == [wanted for *_, wanted in cases]


def test_equal_is_what_a_device_cannot_tell_apart() -> None:
    assert same({"a": [1, {"b": 2.0}]}, {"a": [1.0, {"b": 2}]})
    for one, other in ((1, True), (0, False), ([1], [1, 2]), ({"a": 1}, {"a": 1, "b": 1}), ([1], {"a": 1}), ("1", 1)):
        assert not same(one, other)
        assert not same(other, one)


def test_a_device_is_told_what_it_is_not_yet() -> None:
    wanted = {"every": 5, "wifi": {"name": "x", "on": True}, "zones": [1, 2], "new": {"a": 1}}
    assert difference(wanted, {}) == wanted
    assert difference(wanted, {"every": 5.0, "wifi": {"name": "y", "on": True, "rssi": -60}, "zones": [2]}) == {
        "wifi": {"name": "x"},
        "zones": [1, 2],
        "new": {"a": 1},
    }
    assert difference({"a": {}}, {"a": {"b": 1}}) == {}
    assert difference({"a": {"b": 1}}, {"a": 1}) == {"a": {"b": 1}}


@given(TREES, TREES)
def test_a_device_that_does_as_it_is_told_is_in_sync(desired: Tree, reported: Tree) -> None:
    told = difference(desired, reported)
    assert difference(desired, merged(reported, told)) == {}


@given(st.lists(st.tuples(st.sampled_from(["desired", "reported"]), PATCHES), max_size=6))
def test_each_field_has_the_time_of_its_last_change(patches: list[tuple[str, Tree]]) -> None:
    shadow, version = Shadow(), 0
    for at, (part, patch) in enumerate(patches, 1):
        before = shadow
        shadow = patched(before, convert({part: patch}, Patch), at)
        version += shadow is not before
        assert shadow.version == version
        assert leaves(shadow.times.desired) == leaves(shadow.desired)
        assert leaves(shadow.times.reported) == leaves(shadow.reported)
        for key, value in getattr(shadow, part).items():
            if not isinstance(value, dict):
                old = getattr(before, part).get(key, UNSET)
                kept = getattr(before.times, part).get(key)
                assert getattr(shadow.times, part)[key] == (kept if same(old, value) else at)
        assert patched(shadow, convert({part: patch}, Patch), at + 1) is shadow  # a repeat changes nothing
    assert decode(encode(shadow), type=Shadow) == shadow


def test_a_version_that_was_overtaken_changes_nothing() -> None:
    one = patched(Shadow(), Patch(desired={"every": 5}, version=0), 1)
    with pytest.raises(Stale, match="of version 1, and not 0") as told:
        patched(one, Patch(desired={"every": 9}, version=0), 2)
    assert told.value.version == 1
    assert patched(one, Patch(desired={"every": 5}, version=0), 2) is one
    two = patched(one, Patch(desired=None, reported={"every": 5}, version=1), 2)
    assert (one.delta, two.delta) == ({"every": 5}, {})
    assert two == Shadow(2, {}, {"every": 5}, Times({}, {"every": 2}))


def test_a_shadow_has_bounds() -> None:
    deep: Tree = {}
    for _ in range(limits.SHADOW_DEPTH - 1):
        deep = {"a": deep}
    full = patched(Shadow(), Patch(desired=deep), 1)
    for more in ({"a": deep}, {"a": [deep]}):
        with pytest.raises(TooMuch, match="deeper than 8 levels"):
            patched(full, Patch(reported=more), 2)
    half = {"a": "x" * (limits.SHADOW_BYTES // 2)}
    large = patched(Shadow(), Patch(desired=half), 1)
    with pytest.raises(TooMuch, match="32768 are all there may be"):
        patched(large, Patch(reported=half), 2)
    assert patched(large, Patch(desired={"a": None}), 2).desired == {}


def test_what_was_said_before_a_device_was_deleted_is_forgotten() -> None:
    shadow = patched(Shadow(), Patch(desired={"a": 1, "in": {"b": 1}, "out": {"c": 1}}, reported={"a": 0}), 5)
    assert forgotten(shadow, 5) == Shadow(2)
    assert forgotten(forgotten(shadow, 5), 9) == Shadow(2)
    later = patched(shadow, Patch(desired={"in": {"d": 2}, "e": 3}), 7)
    assert forgotten(later, 6) == Shadow(3, {"in": {"d": 2}, "e": 3}, {}, Times({"in": {"d": 7}, "e": 7}))
    assert forgotten(later, 4) is later


def test_what_a_deleted_device_still_says_is_nobodys() -> None:
    gone = Shadow(2, gone=True)
    with pytest.raises(Gone, match="is deleted") as told:
        updated(gone, Patch(reported={"a": 1}), 7)
    assert told.value.version == 2
    # What people want of the one that is made next they may say before.
    assert patched(gone, Patch(desired={"a": 1}), 7) == Shadow(3, {"a": 1}, {}, Times({"a": 7}), gone=True)
    assert updated(Shadow(2), Patch(reported={"a": 1}), 7).reported == {"a": 1}

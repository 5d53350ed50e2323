"""Declared topics: what contradicts itself, which pattern has a name, and who may read what a filter covers."""

import zlib
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.access import ANONYMOUS, Principal, denied, may
from gateway.core.declared import Declared, Topic, valid
from gateway.core.topic import matches
from gateway.errors import BadPayload, BadTopic, Denied, Misconfigured, NotDeclared, TooLarge

DEVICE, OPERATOR, ALICE = Principal("device", "7"), Principal("operator", "root"), Principal("user", "alice")

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"pattern": ""}, "the filter is empty"),
    ({"pattern": "a/#/b"}, "has # before its last level"),
    ({"pattern": "a/\n"}, "control character"),
    ({"pattern": "/".join("a" * 13)}, "has 13 levels"),
    ({"pattern": "a/x{b}"}, "has a brace that is not a whole level; write {name} between two slashes"),
    ({"pattern": "a/{B}"}, "has a brace that is not a whole level"),
    ({"pattern": "a/{}"}, "has a brace that is not a whole level"),
    ({"pattern": "{app}/x"}, "does not begin with a plain level"),
    ({"pattern": "+/x"}, "does not begin with a plain level"),
    ({"pattern": "#"}, "does not begin with a plain level"),
    ({"pattern": "$SYS/x"}, "does not begin with a plain level"),
    ({"pattern": "a/events"}, "ends in a word of the HTTP interface"),
    ({"pattern": "a/{b}/history"}, "ends in a word of the HTTP interface"),
    ({"pattern": "a/{b}/{b}"}, "names a variable twice"),
    ({"pattern": "Shop/x"}, "'Shop' is no application name"),
    ({"pattern": "/x"}, "'' is no application name"),
    ({"pattern": "a/x", "app": "a b"}, "'a b' is no application name"),
    ({"pattern": "a/{b}", "key": "{c}"}, "key '{c}' names {c}; use variables of the pattern"),
    ({"pattern": "a/x", "retain": True, "ephemeral": True}, "is both retained and ephemeral"),
    ({"pattern": "a/x", "payload": "text", "schema": int}, "has a schema and the payload type 'text'"),
    ({"pattern": "a/x", "max_bytes": 0}, "max_bytes is 0"),
    ({"pattern": "a/x", "max_bytes": limits.PAYLOAD_BYTES + 1}, f"use 1 to {limits.PAYLOAD_BYTES}"),
    ({"pattern": "a/x", "write": ("admin",)}, "write: 'admin' is not a grant"),
    ({"pattern": "a/x", "write": ("user", "viewer:eve")}, "write names a viewer, who changes nothing"),
    ({"pattern": "a/x", "read": ("user:{u}",)}, "read: grant 'user:{u}' names {u}, which is no level of the pattern"),
]


@pytest.mark.parametrize(("fields", "says"), CONTRADICTIONS)
def test_a_topic_that_contradicts_itself_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        Topic(**fields)
    assert says in str(caught.value)
    assert repr(fields["pattern"]) in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "filter", "variables", "owner"),
    [
        ("devices/{device}/telemetry", "devices/+/telemetry", ("device",), "devices"),
        ("try/#", "try/#", (), "try"),
        ("chat:{room}", "", (), ""),
        ("chat:lobby", "chat:lobby", (), "chat"),
        ("a/{b_2}/+/{c}/#", "a/+/+/+/#", ("b_2", "c"), "a"),
        ("news#42", "news#42", (), ""),
    ],
)
def test_a_pattern_is_a_filter_with_names(pattern: str, filter: str, variables: tuple[str, ...], owner: str) -> None:
    if not filter:
        with pytest.raises(Misconfigured):
            Topic(pattern=pattern)
        return
    topic = Topic(pattern=pattern, app="" if owner else "news")
    assert (topic.filter, topic.variables, topic.owner) == (filter, variables, owner or "news")


def test_two_topics_may_not_be_one_pattern() -> None:
    for a, b in [("a/{x}", "a/{y}"), ("a/+", "a/{y}"), ("a/#", "a/#")]:
        with pytest.raises(Misconfigured, match="are one pattern; declare each pattern once"):
            Declared([Topic(pattern=a), Topic(pattern=b)])
    Declared([Topic(pattern="a"), Topic(pattern="a/#"), Topic(pattern="a/+")])


LITERAL = ["a", "a/#", "a/{x}", "a/b", "a/{x}/c", "a/b/#", "a/{x}/{y}", "a/b/{y}/d", "a/{x}/c/d"]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a/z", "a/{x}"),
        ("a/b/c", "a/b/#"),  # level by level from the left: b is more literal than {x}, whatever follows
        ("a/z/c", "a/{x}/c"),
        ("a/z/z", "a/{x}/{y}"),
        ("a/b/c/d", "a/b/{y}/d"),
        ("a/b/c/z", "a/b/#"),
        ("a/z/c/d", "a/{x}/c/d"),
        ("a/z/c/e", "a/#"),
        ("a/", "a/{x}"),
    ],
)
def test_the_most_literal_pattern_has_the_name(name: str, pattern: str) -> None:
    for topics in (LITERAL, LITERAL[::-1]):
        declared = Declared(Topic(pattern=p) for p in topics)
        assert declared.find(name).topic.pattern == pattern
        assert declared.find(name) is declared.find(name)  # remembered


def test_a_name_is_bound_keyed_and_placed() -> None:
    declared = Declared(
        [Topic(pattern="devices/{device}/{what}", key="{device}"), Topic(pattern="try/#")], partitions=8
    )
    found = declared.find("devices/7/temp")
    assert found.bound == {"device": "7", "what": "temp"}
    assert found.key == "7"
    assert found.partition == f"devices.{zlib.crc32(b'7') % 8}"
    assert declared.find("devices/7/rpm").partition == found.partition
    assert declared.find("try/a/b").key == "try/a/b"


def test_an_empty_level_still_has_a_key_and_a_partition() -> None:
    declared = Declared([Topic(pattern="devices/{device}/temp", key="{device}")])
    found = declared.find("devices//temp")
    assert (found.bound, found.key) == ({"device": ""}, "devices//temp")
    assert found.partition in declared.places(declared.meeting("devices//+"))


@pytest.mark.parametrize("name", ["b", "a/x/y", "A/x"])
def test_an_unknown_name_is_not_declared(name: str) -> None:
    with pytest.raises(NotDeclared, match="is not declared"):
        Declared([Topic(pattern="a/{x}")]).find(name)


def test_a_bad_name_is_a_bad_topic_and_a_filter_is_no_name() -> None:
    declared = Declared([Topic(pattern="a/#", write=("anyone",))])
    for bad in ("", "a/\x00", "a/#", "$a"):
        with pytest.raises(BadTopic):
            declared.find(bad)
    with pytest.raises(BadTopic, match="is a filter"):
        declared.writable(ALICE, "a/+")
    with pytest.raises(BadTopic):
        declared.meeting("a/#/b")
    with pytest.raises(NotDeclared, match="meets no declared topic"):
        declared.meeting("b/#")


def test_the_memory_of_names_is_bounded() -> None:
    declared = Declared([Topic(pattern="a/{x}")])
    for n in range(limits.TOPIC_CACHE + 1):
        declared.find(f"a/{n}")
    assert len(declared._cache) == 1
    assert declared.find("a/0").bound == {"x": "0"}


def test_a_filter_lies_in_the_partitions_its_events_may_have() -> None:
    declared = Declared(
        [
            Topic(pattern="devices/{device}/{what}", key="{device}"),
            Topic(pattern="orders/{order}"),
            Topic(pattern="log/{x}/{y}", key="all"),
        ],
        partitions=4,
    )
    everything = {f"devices.{n}" for n in range(4)}
    assert declared.places(declared.meeting("devices/+/temp")) == everything
    assert declared.places(declared.meeting("devices/7/+")) == {declared.find("devices/7/temp").partition}
    assert declared.places(declared.meeting("orders/1")) == {declared.find("orders/1").partition}
    assert declared.places(declared.meeting("orders/+")) == set(declared.partitions("orders"))
    # A key without variables is never open.
    assert declared.places(declared.meeting("log/#")) == {declared.find("log/a/b").partition}
    assert declared.apps == ("devices", "log", "orders")
    assert [t.pattern for t in declared] == ["devices/{device}/{what}", "orders/{order}", "log/{x}/{y}"]


def test_rights_name_what_refused_them() -> None:
    declared = Declared(
        [
            Topic(pattern="a/{user}/inbox", read=("user:{user}", "operator"), write=("user:{user}",)),
            Topic(pattern="a/{user}/secret"),
        ]
    )
    assert declared.readable(ALICE, "a/alice/inbox")[0].bound == {"user": "alice"}
    assert declared.readable(OPERATOR, "a/+/inbox")
    with pytest.raises(
        Denied, match=r"user:alice may not read 'a/\+/inbox': 'a/{user}/inbox' grants read to user:{user}, o"
    ):
        declared.readable(ALICE, "a/+/inbox")
    with pytest.raises(Denied, match=r"'a/{user}/secret' grants read to nobody"):
        declared.readable(OPERATOR, "a/#")
    with pytest.raises(Denied, match=r"anonymous may not read"):
        declared.readable(ANONYMOUS, "a/alice/inbox")
    assert declared.writable(ALICE, "a/alice/inbox").topic.pattern == "a/{user}/inbox"
    with pytest.raises(Denied, match=r"may not publish 'a/bob/inbox': .* grants write to user:{user}"):
        declared.writable(ALICE, "a/bob/inbox")
    with pytest.raises(Denied, match=r"grants write to nobody"):
        declared.writable(OPERATOR, "a/x/secret")


def test_what_a_token_or_a_server_opens_a_deny_keeps_shut() -> None:
    declared = Declared([Topic(pattern="a/#", deny_read=("user:bob",)), Topic(pattern="a/{n}/b", read=("service",))])
    alice, bob = Principal("user", "alice"), Principal("user", "bob")
    for filter in ("a/1/b", "a/+/b", "a/x"):
        assert declared.opened(alice, filter) == declared.meeting(filter)
    for filter in ("a/1/b", "a/#", "a/x"):
        with pytest.raises(Denied, match="denies read to user:bob"):
            declared.opened(bob, filter)
    with pytest.raises(NotDeclared):
        declared.opened(alice, "b")


def test_a_deny_wins_over_every_grant_below_it() -> None:
    wide = Topic(pattern="a/#", read=("user",), deny_read=("user:mallory", "device"), deny_write=("user:bob",))
    own = Topic(pattern="a/{user}/inbox", read=("anyone",), write=("user",), deny_read=("user:{user}",))
    declared, mallory, bob = Declared([wide, own]), Principal("user", "mallory"), Principal("user", "bob")
    with pytest.raises(Denied, match=r"mallory may not read 'a/x/inbox': 'a/#' denies read to user:mallory, device; s"):
        declared.readable(mallory, "a/x/inbox")
    with pytest.raises(Denied, match=r"bob may not publish 'a/x/inbox': 'a/#' denies write to user:bob; use"):
        declared.writable(bob, "a/x/inbox")
    with pytest.raises(Denied, match=r"'a/{user}/inbox' denies read to user:{user}"):
        declared.readable(bob, "a/bob/inbox")
    with pytest.raises(Denied, match=r"'a/{user}/inbox' denies read to user:{user}"):
        declared.readable(bob, "a/+/inbox")  # his own is among them
    assert declared.readable(bob, "a/x/inbox")[0].topic is own
    assert declared.readable(bob, "a/x") == [declared.find("a/x")]


def test_one_object_becomes_other_declarations_and_a_copy_stays() -> None:
    declared = Declared([Topic(pattern="a/#", read=("user",))], partitions=3)
    assert declared.readable(ALICE, "a/b")
    before = declared.copy()
    declared.become(
        Declared([Topic(pattern="a/#", read=("user",), deny_read=("user:alice",)), Topic(pattern="b/c")], 3)
    )
    assert (declared.generation, before.generation) == (1, 0)
    with pytest.raises(Denied):
        declared.readable(ALICE, "a/b")
    assert declared.find("b/c").partition.startswith("b.")
    assert before.readable(ALICE, "a/b")
    declared.become(before)
    assert declared.readable(ALICE, "a/b")
    with pytest.raises(NotDeclared):
        declared.find("b/c")


class Reading(msgspec.Struct):
    value: float


def test_a_payload_is_what_its_topic_declares() -> None:
    topic = Topic(pattern="a/b", schema=Reading, max_bytes=20)
    assert valid(topic, b'{\n"value":1}') == b'{ "value":1}'
    assert valid(Topic(pattern="a/b", payload="bytes"), b"\xff") == b"\xff"
    with pytest.raises(BadPayload, match=r"not a a/b payload: .*`float`.*value"):
        valid(topic, b'{"value":"x"}')
    with pytest.raises(BadPayload, match="not JSON"):
        valid(topic, b"{")
    with pytest.raises(TooLarge):
        valid(topic, b" " * 21)


# --- the decision about a filter, against every single name it covers -------------------------------------------------

NAMES = ["/".join(["a", *rest]) for n in range(4) for rest in product(["7", "alice", "x", ""], repeat=n)]
PATTERNS = [
    "a",
    "a/#",
    "a/{v}",
    "a/7",
    "a/{v}/x",
    "a/{v}/{w}",
    "a/7/{w}",
    "a/{v}/#",
    "a/alice/x/{v}",
    "a/+/{v}",
    "a/+/x/#",
]
GRANTS = ["anyone", "user", "device", "operator", "user:alice", "user:{v}", "device:{v}"]
WHO = [ANONYMOUS, ALICE, DEVICE, OPERATOR, Principal("user", "x"), Principal("user", "")]


@st.composite
def declarations(draw: st.DrawFn) -> Declared:
    topics: dict[str, Topic] = {}
    for pattern in draw(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=6)):
        grants = st.sampled_from([g for g in GRANTS if "{" not in g or "{v}" in pattern])
        key = draw(st.sampled_from(["", "{v}", "k"] if "{v}" in pattern else ["", "k"]))
        denials = draw(st.lists(grants, max_size=2)) if draw(st.booleans()) else ()
        topic = Topic(
            pattern=pattern, read=tuple(draw(st.lists(grants, max_size=3))), key=key, deny_read=tuple(denials)
        )
        topics.setdefault(topic.filter, topic)
    return Declared(topics.values(), partitions=5)


levels = st.sampled_from(["+", "7", "alice", "x", ""])
filters = st.builds(
    lambda first, body, end: "/".join([first, *body, *end]),
    st.sampled_from(["a", "+"]),
    st.lists(levels, max_size=3),
    st.sampled_from([[], ["#"]]),
) | st.just("#")


@given(declarations(), st.sampled_from(WHO), filters)
def test_who_may_read_a_filter_may_read_every_topic_it_covers(declared: Declared, who: Principal, filter: str) -> None:
    try:
        met = declared.readable(who, filter)
    except (Denied, NotDeclared):
        return
    places = declared.places(met)
    for name in NAMES:
        if not matches(filter, name):
            continue
        try:
            found = declared.find(name)
        except NotDeclared:
            continue
        assert may(who, found.topic.read, found.bound)
        assert not any(denied(who, t.deny_read, t.bind(name)) for t in declared if matches(t.filter, name))
        assert found.topic in [m.topic for m in met]
        assert found.partition in places


@given(declarations(), st.sampled_from(WHO), st.sampled_from(NAMES))
def test_one_name_is_readable_exactly_if_its_topic_grants_it(declared: Declared, who: Principal, name: str) -> None:
    winners = [t for t in declared if matches(t.filter, name)]
    if not winners:
        with pytest.raises(NotDeclared):
            declared.readable(who, name)
        return
    found = declared.find(name)
    assert found.topic in winners
    if may(who, found.topic.read, found.bound) and not any(denied(who, t.deny_read, t.bind(name)) for t in winners):
        assert declared.readable(who, name) == [found]
    else:
        with pytest.raises(Denied):
            declared.readable(who, name)


def test_an_empty_payload_clears_a_last_value_and_is_no_payload_otherwise() -> None:
    kept = Topic(pattern="a/kept", retain=True)
    assert valid(kept, b"") == b""
    with pytest.raises(BadPayload):
        valid(Topic(pattern="a/other"), b"")


@pytest.mark.parametrize("wrong", [{"identity": "same"}, {"identity": "{seq}", "payload": "bytes"}])
def test_an_identity_needs_fields_to_be_made_of(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="identity"):
        Topic(pattern="a/b", **wrong)


def test_what_clears_a_last_value_has_no_fields_to_be_named_by() -> None:
    assert Declared([Topic(pattern="a/b", identity="{seq}", retain=True)]).find("a/b").identity(b"") == ""


def test_what_another_way_grants_is_still_denied() -> None:
    declared = Declared([Topic(pattern="a/#", deny_read=("user:bob",))])
    assert declared.opened(ALICE, "a/b") == declared.meeting("a/b")
    assert declared.opened(ALICE, "a/+")
    for filter in ("a/b", "a/+"):
        with pytest.raises(Denied, match="denies read"):
            declared.opened(Principal("user", "bob"), filter)

"""Tests of core/explain: what would happen to a topic, and because of which line."""

from __future__ import annotations

import msgspec
import pytest

from gateway.core.access import ANONYMOUS, Principal
from gateway.core.catalogue import Consumed, Participant
from gateway.core.declared import Declared, Topic
from gateway.core.explain import Receiver, explain
from gateway.core.mapping import Rule
from gateway.errors import BadTopic, NotDeclared

DECLARED = Declared(
    [
        Topic(
            pattern="devices/{device}/telemetry", key="{device}", write=("device:{device}",), read=("user",), mqtt="in"
        ),
        Topic(pattern="devices/{device}/secret", write=("operator",), read=("operator",), retain=True, kind="command"),
        Topic(pattern="rooms/{room}/typing", write=("user",), read=("anyone",), ephemeral=True, key="{room}"),
        Topic(pattern="rooms/{room}/whispers", write=("user",), read=("anyone",), history=False),
        Topic(pattern="try/#", write=("anyone",), read=("anyone",), payload="bytes"),
    ]
)
ALICE, PUMP = Principal("user", "alice"), Principal("device", "7")


def test_a_topic_is_explained_by_its_one_declaration() -> None:
    told = explain(DECLARED, "devices/7/telemetry", PUMP)
    (line,) = told.lines
    assert (told.topic, told.principal) == ("devices/7/telemetry", "device:7")
    assert (told.may_write, told.may_read, told.recoverable) == (True, False, True)
    assert (line.pattern, line.app, line.kind, line.payload) == (
        "devices/{device}/telemetry",
        "devices",
        "fact",
        "json",
    )
    assert (line.key, line.partition) == ("7", DECLARED.find("devices/7/telemetry").partition)
    assert (line.presence, line.history, line.ephemeral, line.schema) == (False, True, False, "")
    assert (told.receivers, told.mapped) == ((), ())
    assert (line.write, line.read, line.mqtt, line.retain) == (("device:{device}",), ("user",), "in", False)
    assert told.payload_error == ""


def test_another_device_may_not_write_it() -> None:
    told = explain(DECLARED, "devices/8/telemetry", PUMP)
    assert (told.may_write, told.lines[0].may_write) == (False, False)


def test_a_filter_may_be_read_if_all_of_it_may() -> None:
    told = explain(DECLARED, "devices/+/#", ALICE)
    assert [(line.pattern, line.may_read) for line in told.lines] == [
        ("devices/{device}/telemetry", True),
        ("devices/{device}/secret", False),
    ]
    assert told.may_read is False
    assert [line.key for line in told.lines] == ["", ""]
    assert (told.lines[1].retain, told.lines[1].kind, told.lines[1].mqtt) == (True, "command", "")


def test_what_denies_is_named() -> None:
    declared = Declared(
        [
            Topic(pattern="a/#", read=("user",), write=("user",), deny_read=("user:mallory",)),
            Topic(pattern="a/{user}", read=("user",), write=("user",), deny_write=("user:{user}",)),
        ]
    )
    told = explain(declared, "a/x", Principal("user", "mallory"))
    assert (told.may_read, told.may_write, told.write_refused) == (False, True, "")
    assert told.read_refused == "'a/#' denies read to user:mallory"
    assert [(line.pattern, line.may_read) for line in told.lines] == [("a/{user}", True)]  # by its own words
    told = explain(declared, "a/alice", ALICE)
    assert (told.may_read, told.may_write, told.lines[0].may_write) == (True, False, False)
    assert told.write_refused == "'a/{user}' denies write to user:{user}"
    assert (told.lines[0].deny_read, told.lines[0].deny_write) == ((), ("user:{user}",))
    assert explain(declared, "a/+", ALICE).write_refused == "events have one concrete topic"


def test_nobody_publishes_to_a_filter() -> None:
    assert explain(DECLARED, "try/+", ANONYMOUS).may_write is False
    assert explain(DECLARED, "try/x", ANONYMOUS).may_write is True


@pytest.mark.parametrize(
    ("topic", "recoverable"),
    [
        ("devices/7/telemetry", True),
        ("devices/7/#", False),  # the secrets of device 7 may stand anywhere
        ("devices/+/telemetry", False),
        ("rooms/1/typing", False),
        ("rooms/1/whispers", False),
        ("try/x", True),
    ],
)
def test_what_lies_in_one_partition_and_is_kept_can_be_recovered(topic: str, recoverable: bool) -> None:
    assert explain(DECLARED, topic, ALICE).recoverable is recoverable


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [
        ("devices/7/telemetry", b'{"t":1}', ""),
        ("devices/7/telemetry", b"{", "not JSON"),
        ("devices/7/telemetry", b'{"a":1,"a":2}', "twice"),
        ("devices/7/telemetry", b"1" * 70_000, "at most"),
        ("try/x", b"\xff", ""),
    ],
)
def test_a_payload_is_judged_as_a_door_would(topic: str, payload: bytes, says: str) -> None:
    error = explain(DECLARED, topic, ALICE, payload).payload_error
    assert says in error
    assert bool(error) is bool(says)


def test_what_is_not_declared_has_no_explanation() -> None:
    with pytest.raises(NotDeclared):
        explain(DECLARED, "nothing/here", ALICE)
    with pytest.raises(BadTopic):
        explain(DECLARED, "a/#/b", ALICE)


def test_it_says_whether_one_may_ask_who_is_there() -> None:
    declared = Declared([Topic(pattern="lobby/{room}", read=("user",), presence=True), Topic(pattern="lobby/+/log")])
    (line,) = explain(declared, "lobby/1", Principal("user", "alice")).lines
    assert (line.presence, line.may_read) == (True, True)
    (line,) = explain(declared, "lobby/1/log", Principal("user", "alice")).lines
    assert line.presence is False


class Reading(msgspec.Struct):
    t: float


STORAGE = Participant("devices.storage", (Consumed("devices/{device}/telemetry", Reading), Consumed("devices/+/gone")))
ALERTS = Participant("devices.alerts", (Consumed("devices/#"),))
SHOP = Participant("shop.orders", (Consumed("orders/{order}/placed", Reading),), emits=("devices/7/telemetry",))


@pytest.mark.parametrize(
    ("topic", "payload", "receivers"),
    [
        ("devices/7/telemetry", None, [("devices.alerts", "devices/#", ""), ("devices.storage", "telemetry", "")]),
        (
            "devices/7/telemetry",
            b'{"t": 1}',
            [("devices.alerts", "devices/#", ""), ("devices.storage", "telemetry", "")],
        ),
        (
            "devices/7/telemetry",
            b'{"t": "x"}',
            [("devices.alerts", "devices/#", ""), ("devices.storage", "telemetry", "$.t")],
        ),
        # What no door takes reaches nobody, and so is nobody's dead letter.
        ("devices/7/telemetry", b"{", [("devices.alerts", "devices/#", ""), ("devices.storage", "telemetry", "")]),
        ("devices/7/secret", None, [("devices.alerts", "devices/#", "")]),
        ("rooms/1/whispers", b"{}", []),
    ],
)
def test_it_names_the_services_that_would_get_it(
    topic: str, payload: bytes | None, receivers: list[tuple[str, str, str]]
) -> None:
    found = explain(DECLARED, topic, ALICE, payload, participants=[STORAGE, ALERTS, SHOP]).receivers
    assert [(one.group, one.pattern.removeprefix("devices/{device}/")) for one in found] == [r[:2] for r in receivers]
    for one, (_, _, says) in zip(found, receivers, strict=True):
        assert says in one.payload_error
        assert bool(one.payload_error) is bool(says)


def test_of_a_filter_it_names_everybody_who_gets_some_of_it() -> None:
    found = explain(DECLARED, "devices/#", ALICE, participants=[STORAGE, ALERTS, SHOP]).receivers
    assert [(one.group, one.pattern) for one in found] == [
        ("devices.alerts", "devices/#"),
        ("devices.storage", "devices/{device}/telemetry"),
        ("devices.storage", "devices/+/gone"),
    ]


@pytest.mark.parametrize("payload", [b"\xff", b"[" * 50_000, b'"\xff"'])
def test_bytes_that_a_function_cannot_read_are_told_not_raised(payload: bytes) -> None:
    parties = [Participant("try.all", (Consumed("try/#", list[int]),))]
    (found,) = explain(DECLARED, "try/x", ALICE, payload, participants=parties).receivers
    assert found == Receiver("try.all", "try/#", found.payload_error)
    assert found.payload_error


def test_it_names_the_mqtt_topics_that_are_mapped_to_it() -> None:
    rules = [Rule("tele/{device}/SENSOR", "devices/{device}/telemetry"), Rule("old/x", "try/x")]
    assert explain(DECLARED, "devices/7/telemetry", ALICE, rules=rules).mapped == ("tele/{device}/SENSOR",)
    assert explain(DECLARED, "#", ALICE, rules=rules).mapped == ("tele/{device}/SENSOR", "old/x")


def test_a_schema_is_told_by_its_name_and_asked_of_the_payload() -> None:
    declared = Declared([Topic(pattern="a/x", schema=Reading), Topic(pattern="a/y", schema=list[int] | None)])
    told = explain(declared, "a/x", ALICE, b'{"t": "warm"}')
    assert told.lines[0].schema == "Reading"
    assert "not a a/x payload" in told.payload_error
    assert explain(declared, "a/y", ALICE).lines[0].schema == "list[int] | None"

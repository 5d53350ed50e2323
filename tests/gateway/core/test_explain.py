"""Tests of core/explain: what would happen to a topic, and because of which line."""

from __future__ import annotations

import pytest

from gateway.core.access import ANONYMOUS, Principal
from gateway.core.declared import Declared, Topic
from gateway.core.explain import explain
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
    assert line.presence is False
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

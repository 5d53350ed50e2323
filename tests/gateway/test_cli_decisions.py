"""What the commands decide without a server: how a line looks, its pace, and which rights a broker's accounts get."""

from __future__ import annotations

import json
import logging

from gateway import limits
from gateway.adapters.device_rights import rights, unreadable, unwritable
from gateway.cli.explain import granted
from gateway.cli.pace import Pace
from gateway.cli.shown import shown
from gateway.core.declared import Declared, Topic
from gateway.core.mapping import Rule, TopicMap
from gateway.logs import Line


def test_an_event_cannot_move_the_cursor() -> None:
    line = shown("try/x", "id", 0, b"\x1b[2Jgone\nnext", "text/plain").line()
    assert line == "--:--:--  try/x  \\x1b[2Jgone\\nnext"
    assert len(shown("try/x", "id", 0, b"x" * 10_000, "text/plain").line()) < limits.SHOWN_CHARACTERS + 50


def test_the_live_tail_keeps_a_readable_pace() -> None:
    pace = Pace(0.0)
    admitted = sum(pace.admit(n / 100) for n in range(1000))
    assert admitted <= 10 * limits.SHOWN_PER_SECOND + 1
    assert pace.left_out(1.0) == 0
    assert pace.left_out(limits.TOLD_EVERY) == 1000 - admitted
    assert pace.left_out(limits.TOLD_EVERY) == 0


def test_devices_get_the_rights_that_are_declared() -> None:
    declared = Declared(
        [
            Topic(pattern="sensors/{site}/{device}/up", mqtt="in", write=("device:{device}",)),
            Topic(pattern="sensors/secret", write=("device",)),
            Topic(pattern="greenhouse/{bed}/humidity", mqtt="in", write=("device", "operator")),
            Topic(pattern="gates/pump-7", mqtt="in", write=("device:pump-7",)),
            Topic(pattern="try/#", payload="bytes", mqtt="in", write=("anyone",)),
        ]
    )
    topic_map = TopicMap([Rule("tele/{device}/SENSOR", "devices/{device}/telemetry")])
    everybody = ["pattern write sensors/+/%u/up", "pattern write try/#", "pattern write tele/%u/SENSOR"]
    assert rights(declared, topic_map) == everybody
    assert rights(declared, topic_map, ["pump-7", "x"]) == [
        *everybody,
        "user pump-7",
        "topic write greenhouse/+/humidity",
        "topic write gates/pump-7",
        "user x",
        "topic write greenhouse/+/humidity",
    ]


def test_devices_may_read_what_leaves_for_them() -> None:
    declared = Declared(
        [
            Topic(pattern="sensors/{site}/{device}/down", mqtt="out", read=("device:{device}", "user")),
            Topic(pattern="sensors/{site}/{device}/told", read=("device:{device}",)),
            Topic(pattern="gates/pump-7", mqtt="out", write=("device:pump-7",), read=("device:pump-7",)),
            Topic(pattern="alarms/#", mqtt="out", read=("device",)),
            Topic(pattern="news/#", mqtt="out", read=("anyone",)),
            Topic(pattern="bills/#", mqtt="out", read=("user",)),
            Topic(pattern="devices/{device}/commands/{name}", mqtt="out", read=("operator",)),
        ]
    )
    assert rights(declared, TopicMap([]), ["pump-7", "x"]) == [
        "pattern read sensors/+/%u/down",
        "pattern read news/#",
        "user pump-7",
        "topic read alarms/#",
        "topic read gates/pump-7",
        "user x",
        "topic read alarms/#",
    ]
    assert unreadable(declared) == ["bills/#"]


def test_who_may_is_said_with_who_may_not() -> None:
    assert granted((), ()) == "nobody"
    assert granted(("user", "device"), ("user:bob", "device:7")) == "user, device; not user:bob, device:7"


def test_a_log_record_is_one_line_without_passwords() -> None:
    try:
        raise ValueError("no\nrest at redis://me:secret@host")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "at %s", "args": ("redis://me:secret@host/0",), "name": "gateway.x"})
        record.exc_info = (ValueError, error, error.__traceback__)
    text, as_json = Line("text").format(record), Line("json").format(record)
    assert "secret" not in text + as_json
    assert "\n" not in text + as_json
    assert "from=gateway.x" in text
    assert json.loads(as_json)["says"] == "at redis://***@host/0"


def test_a_topic_that_no_device_may_write_is_found() -> None:
    declared = Declared(
        [
            Topic(pattern="plant/{line}", mqtt="in", write=("user",)),
            Topic(pattern="plant/by/{who}", mqtt="in", write=("device",)),
            Topic(pattern="plant/old/state", mqtt="in"),
            Topic(pattern="devices/{device}/telemetry", mqtt="in", write=("operator",)),
            Topic(pattern="rooms/#", write=("user",)),
        ]
    )
    assert unwritable(declared, TopicMap([Rule("old/+", "plant/old/state")])) == ["plant/{line}"]

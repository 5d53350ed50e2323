"""What devices are denied at the broker: the lines, and what a real Mosquitto then takes and delivers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from gateway.adapters.child import Server
from gateway.adapters.device_rights import acl, rights
from gateway.core.declared import Declared, Topic
from gateway.core.mapping import Rule, TopicMap
from gateway.errors import Misconfigured
from tests.servers import DEVICE, GATEWAY, USERS, eventually

NOT_AUTHORIZED = 0x87
TOPICS = Declared(
    [
        Topic(
            pattern="devices/{device}/telemetry",
            mqtt="in",
            write=("device:{device}",),
            deny_write=(f"device:{DEVICE}",),
        ),
        Topic(pattern="devices/{device}/commands/{name}", mqtt="out", read=("device:{device}",)),
        Topic(pattern="devices/{device}/commands/format", mqtt="out", read=("device",), deny_read=("device:{device}",)),
        Topic(pattern="plant/#", mqtt="in", write=("device",)),
        Topic(pattern="plant/secret/#", mqtt="in", write=("device",), deny_write=("anyone",)),
        Topic(pattern="try/#", mqtt="in", write=("anyone",), read=("anyone",)),
        Topic(pattern="try/secret", write=("anyone",), deny_write=("anyone",), deny_read=("anyone",)),
    ]
)
OLD = TopicMap([Rule("tele/{device}/SENSOR", "devices/{device}/telemetry")])


def test_a_denial_is_a_line_before_what_is_granted() -> None:
    assert rights(TOPICS, OLD, [DEVICE, "x"]) == [
        "pattern write devices/%u/telemetry",
        "pattern read devices/%u/commands/+",
        "pattern write try/#",
        "pattern write tele/%u/SENSOR",
        "pattern deny try/secret",
        f"user {DEVICE}",
        f"topic deny devices/{DEVICE}/telemetry",
        f"topic deny tele/{DEVICE}/SENSOR",
        f"topic deny devices/{DEVICE}/commands/format",
        "topic deny plant/secret/#",
        "topic deny try/secret",
        "topic read devices/+/commands/format",
        "topic write plant/#",
        "topic write plant/secret/#",
        "user x",
        "topic deny devices/x/commands/format",
        "topic deny plant/secret/#",
        "topic deny try/secret",
        "topic read devices/+/commands/format",
        "topic write plant/#",
        "topic write plant/secret/#",
    ]
    # What stands before the first account is for clients without a name.
    assert acl(TOPICS, OLD).startswith("topic deny try/secret\ntopic readwrite try/#\n")


def test_what_the_broker_cannot_say_is_refused() -> None:
    narrow = Topic(pattern="plant/#", mqtt="in", write=("device",), deny_write=("device:x",))
    down = Topic(pattern="plant/{device}/down", mqtt="out", read=("device:{device}",))
    with pytest.raises(Misconfigured, match="cannot deny x to write 'plant/x/down' and let it read there"):
        rights(Declared([narrow, down]), TopicMap([]), ["x"])


@contextmanager
def connected(broker: Server, name: str) -> Iterator[tuple[Paho, Callable[[str], int], list[str]]]:
    """A client, what publishes and returns the reason code of PUBACK, and the topics of what came."""
    paho, there = Paho(CallbackAPIVersion.VERSION2, protocol=MQTTv5), threading.Event()
    codes, got = dict[int, int](), list[str]()
    if name:
        paho.username_pw_set(name, USERS[name])
    paho.on_connect = lambda *_: there.set()
    paho.on_publish = lambda _, __, mid, code, ___: codes.__setitem__(mid, code.value)
    paho.on_message = lambda _, __, message: got.append(message.topic)
    paho.connect("127.0.0.1", broker.port)
    paho.loop_start()
    assert there.wait(20)

    def publish(topic: str) -> int:
        sent = paho.publish(topic, b"1", 1)
        sent.wait_for_publish(20)
        return codes[sent.mid]

    try:
        yield paho, publish, got
    finally:
        paho.disconnect()
        paho.loop_stop()


async def test_the_broker_denies_by_delivery(mosquitto: Callable[[], Server]) -> None:
    broker = mosquitto()
    (broker.data / "acl").write_text(acl(TOPICS, OLD, [DEVICE]))
    os.kill(broker.pid, signal.SIGHUP)
    with connected(broker, DEVICE) as (pump, says, got), connected(broker, GATEWAY) as (_, commands, _):
        # The broker reads its rights again when it comes to it.
        await eventually(lambda: says(f"devices/{DEVICE}/telemetry") == NOT_AUTHORIZED, within=30)
        refused = (f"tele/{DEVICE}/SENSOR", "plant/secret/x", "try/secret")
        assert [says(topic) for topic in refused] == [NOT_AUTHORIZED] * 3
        assert all(says(topic) < 0x80 for topic in ("plant/x", "try/x", f"devices/{DEVICE}/status"))
        pump.subscribe("devices/#", 1)
        pump.subscribe("try/#", 1)
        await eventually(lambda: says("try/mine") == 0, within=30)  # somebody hears it: the subscription is there
        for topic in (f"devices/{DEVICE}/commands/format", "try/secret", f"devices/{DEVICE}/commands/stop"):
            assert commands(topic) < 0x80
        await eventually(lambda: f"devices/{DEVICE}/commands/stop" in got, within=30)
        assert set(got) == {f"devices/{DEVICE}/commands/stop"}
    with connected(broker, "") as (_, says, _):
        others = ("try/secret", f"devices/{DEVICE}/status", f"devices/{DEVICE}/telemetry", "plant/x")
        assert [says(topic) for topic in others] == [NOT_AUTHORIZED] * 4
        assert says("try/x") < 0x80

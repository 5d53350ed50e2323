"""`gateway up` as a newcomer meets it: what it prints, a first publish, and every death it survives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gateway.adapters import embedded
from gateway.errors import ServerMissing
from tests.journeys.running_up import STARTED_WITHIN, Up, gone
from tests.servers import eventually, missing

#: What an anonymous publisher and the rights of accounts need.
MOSQUITTO = ServerMissing("mosquitto", "apt install mosquitto")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    running.process.terminate()
    running.process.wait(60)


class Publisher:
    """An anonymous MQTT 5 client that publishes numbers to try/numbers, each acknowledged or sent again."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")
        self.sent = 0
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            self._client.publish("try/numbers", str(self.sent), qos=1).wait_for_publish(60)
            self.sent += 1

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        self._client.publish("try/numbers", "end", qos=1).wait_for_publish(60)
        self._client.disconnect()
        self._client.loop_stop()


async def test_a_newcomer_sees_a_first_event(up: Up) -> None:
    await up.up()
    assert re.search(r"user +ey\S+\.\S+\.\S+", up.said)
    assert "an operator's" in up.said

    watching = up.start("sub", "try/hello", "-n", "2")
    await up.watched(1)
    by_http = up.start("pub", "try/hello", "by http")
    assert "durability disk" in by_http.communicate(timeout=60)[0]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    if "(mosquitto)" not in up.said:
        client.username_pw_set("gateway", (up.data / "mqtt" / "gateway.password").read_text())
    client.connect("127.0.0.1", up.broker_port)
    client.loop_start()
    client.publish("try/hello", "by mqtt", qos=1).wait_for_publish(60)
    out, _ = watching.communicate(timeout=60)
    client.disconnect()
    client.loop_stop()
    assert [line.split("  ", 2)[2] for line in out.splitlines()] == ["by http", "by mqtt"]
    await eventually(lambda: up.said.count("  try/hello  by ") == 2, 60)
    children = up.children()
    assert len(children) == 4, children
    up.process.terminate()
    assert up.process.wait(60) == 0
    assert [name for name, pid in children.items() if not gone(pid)] == []
    assert up.said.endswith("everything is stopped\n")


async def test_every_death_heals_and_a_subscriber_misses_nothing(up: Up) -> None:
    await up.up()
    if "(mosquitto)" not in up.said:
        missing(MOSQUITTO)
    watching = up.start("sub", "try/numbers")
    await up.watched(1)
    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(read(watching)), name="reader")
    reading.start()
    publisher = Publisher(up.broker_port)
    for name in ("bridge", "edge", "valkey"):
        before = publisher.sent
        await eventually(grown(publisher, before + 20), 60)
        os.kill(up.children()[name], signal.SIGKILL)
        await eventually(lambda name=name: f"{name} is back" in up.said or up.dead(), 60)
        await eventually(grown(publisher, publisher.sent + 20), 60)
    publisher.stop()
    reading.join(60)
    watching.kill()
    _, notes = watching.communicate()
    assert "something is missing" not in notes
    numbers = [int(text) for text in dict.fromkeys(seen)]
    assert numbers == list(range(publisher.sent)), notes
    for name in ("bridge", "edge", "valkey"):
        assert up.said.count(f"{name} was killed (signal 9); starting it again\n") == 1


def grown(publisher: Publisher, to: int) -> Callable[[], bool]:
    return lambda: publisher.sent >= to


def read(watching: subprocess.Popen[str]) -> Iterator[str]:
    for line in watching.stdout or ():
        text = line.rstrip("\n").split("  ", 2)[2]
        if text == "end":
            return
        yield text


async def test_own_topics_take_the_words_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "data" / "mqtt").mkdir(parents=True)
    (tmp_path / "data" / "mqtt" / "devices.json").write_text('{"room-01": "a word"}')
    demo = Up(tmp_path)
    try:
        await eventually(lambda: "Try next" in demo.said or demo.dead(), STARTED_WITHIN)
        assert "runs with gateway.toml." in demo.said
        ready = demo.found(r"health +bridge: (\S+)")
        await eventually(lambda: httpx.get(ready).text == "ok\n", 60)
        if "(mosquitto)" not in demo.said:
            missing(MOSQUITTO)
        device = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        device.username_pw_set("room-01", "a word")
        device.connect("127.0.0.1", demo.broker_port)
        device.loop_start()
        device.publish("try" + "/x" * 12, "1", qos=1).wait_for_publish(60)
        device.publish("greenhouse/3/humidity", "wet", qos=1).wait_for_publish(60)
        device.publish("greenhouse/3/humidity", '{"percent": 71}', qos=1).wait_for_publish(60)
        device.disconnect()
        device.loop_stop()
        await eventually(lambda: '  greenhouse/3/humidity  {"percent": 71}' in demo.said, 60)
        await eventually(lambda: re.search(r"(?m)^\S+ refused: .*; see gateway dead ls$", demo.said), 60)

        which = ("dead", "ls", "--reason", "schema", "--topic", "greenhouse/#")
        out, _ = demo.start(*which).communicate(timeout=60)
        (line,) = out.splitlines()
        at = line.split()[0]
        out, err = demo.start("dead", "replay", at).communicate(timeout=60)
        assert out.startswith(f"0 replayed, 1 left out\n{at} is refused again: not JSON"), err
        out, err = demo.start("dead", "edit", at, "--data", '{"percent": 72}').communicate(timeout=60)
        assert out == f"replayed {at} with another payload\n", err
        await eventually(lambda: '  greenhouse/3/humidity  {"percent": 72}' in demo.said, 60)
        assert demo.start(*which).communicate(timeout=60)[0] == ""

        # A topic that nothing can declare: a letter of no application.
        out, _ = demo.start("dead", "ls", "--reason", "bad_topic").communicate(timeout=60)
        assert re.match(r"gateway\.0/\S+  .*  -  bad_topic  try(/x){12} ", out)
        out, err = demo.start("dead", "drop", out.split()[0]).communicate(timeout=60)
        assert out == "1 dropped, 0 left out\n", err

        # An account that somebody else made, as a registry of devices does.
        passwords = demo.data / "mqtt" / "passwords"
        passwords.write_text(f"{passwords.read_text()}bed-1:{embedded.mosquitto_hash('its word')}\n")
        os.kill(int((demo.data / "mqtt" / "mosquitto.pid").read_text()), signal.SIGHUP)
        await eventually(lambda: published(demo.broker_port, "bed-1", "its word", "greenhouse/4/humidity"), 60)
    finally:
        demo.process.terminate()
        demo.process.wait(60)


def published(port: int, name: str, word: str, topic: str) -> bool:
    """Whether the broker takes a reading of this account there."""
    device = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
    device.username_pw_set(name, word)
    codes = list[str]()
    device.on_publish = lambda client, data, mid, reason, properties: codes.append(str(reason))
    device.connect("127.0.0.1", port)
    device.publish(topic, "1", qos=1)  # sent once the broker lets it in
    give_up = time.monotonic() + 5
    while not codes and device.loop(0.1) == mqtt.MQTT_ERR_SUCCESS and time.monotonic() < give_up:
        pass
    device.disconnect()
    return codes == ["Success"]


async def test_it_goes_on_when_nobody_reads(tmp_path: Path) -> None:
    demo = Up(tmp_path, heard=False)
    try:
        await eventually(lambda: "nobody reads" in demo.said or demo.dead(), STARTED_WITHIN)
        await eventually(lambda: (demo.data / "user.token").exists() or demo.dead(), STARTED_WITHIN)
        assert demo.start("pub", "try/x", "hi").communicate(timeout=60)[0].endswith("durability disk\n")
    finally:
        demo.process.terminate()
    assert demo.process.wait(60) == 0


async def test_a_second_one_needs_a_folder_and_takes_the_next_port(up: Up, tmp_path: Path) -> None:
    await up.up()
    second = up.start("up")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert out == ""
    assert err == f"error: another `gateway up` uses {up.data}; stop it, or set gateway.data to another folder\n"

    (tmp_path / "other").mkdir()
    taken = int(up.edge.rpartition(":")[2])
    other = Up(tmp_path / "other", taken)
    try:
        await other.up()
        free = int(other.edge.rpartition(":")[2])
        assert free > taken
        assert f"port {taken} is taken: the edge listens on {free}\n" in other.said
    finally:
        other.process.terminate()
        other.process.wait(60)

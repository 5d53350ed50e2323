"""mosquitto.conf and the generated rights, shown by what is delivered: SUBACK says "granted" to everything."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import MQTTv311

from tests.deploy.mqtt_clients import Peer, Refused, in_time, still
from tests.deploy.stage import Stage

#: Another stage may be before this one, see `Stage.start`.
pytestmark = pytest.mark.timeout(300)

NOT_AUTHORIZED = 0x87
BAD_PASSWORD = 0x86
#: Nobody is subscribed (MQTT 5, 3.4.2.1): accepted all the same.
NOBODY = 0x10


class Broker:
    """Mosquitto as the compose file starts it, with two devices."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.folder = stage.secrets / "mosquitto"
        self.host = stage.address["mosquitto"]
        self.ca = str(stage.authority.file)
        self.words = self.command("add", "pump-7", "pump-8")

    def command(self, verb: str, *devices: str) -> dict[str, str]:
        pid = str(self.stage.pid("mosquitto"))
        said = self.stage.gateway("device-credentials", verb, *devices, "--folder", str(self.folder), "--pid", pid)
        return dict(line.split() for line in said.splitlines())

    def device(self, name: str = "pump-7", **more: object) -> Peer:
        return Peer(self.host, name, self.words[name], ca=self.ca, **more)  # type: ignore[arg-type]  # as Peer takes them

    def bridge(self) -> Peer:
        word = (self.stage.secrets / "mqtt").read_text().strip()
        peer = Peer(self.host, "gateway", word, ca=self.ca)
        for filter in ("devices/#", "try/#", "elsewhere/#", "$SYS/broker/uptime", "$share/g/elsewhere/#"):
            assert peer.subscribe(filter) < 0x80
        return peer


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Stage() as stage:
        stage.start("mosquitto")
        stage.healthy("mosquitto")
        yield Broker(stage)


def test_a_device_writes_its_own_branch_alone(broker: Broker) -> None:
    with broker.bridge() as bridge, broker.device() as device:
        for topic in (
            "devices/pump-8/telemetry",
            "devices/pump-8/status",
            "devices/pump-7",
            "devices/pump-7/commands/stop",
            "devices/pump-7/shadow/delta",
            "devices/pump-7/shadow/get/accepted",
            "devices/pump-7/receipts",
            "devices/pump-70/telemetry",
            "devices/PUMP-7/telemetry",
            "devices//telemetry",
            "/devices/pump-7/telemetry",
            "elsewhere/pump-7",
            "$SYS/broker/uptime",
            "$CONTROL/dynamic-security/v1",
        ):
            assert device.publish(topic, b"forged") == NOT_AUTHORIZED, topic
        assert device.publish("devices/pump-7/telemetry", b"mine") == 0
        before = bridge.until("devices/pump-7/telemetry")
        assert set(before) <= {"$SYS/broker/uptime"}
        assert b"forged" not in [payload for _, payload in bridge.got]


@pytest.mark.parametrize(
    "topic",
    [
        "telemetry",
        "telemetry/fast",
        "events/alarm",
        "responses/c1",
        "state/valve",
        "status",
        "shadow/get",
        "shadow/update",
    ],
)
def test_all_that_goes_up_arrives(broker: Broker, topic: str) -> None:
    with broker.bridge() as bridge, broker.device() as device:
        assert device.publish(f"devices/pump-7/{topic}") == 0
        bridge.until(f"devices/pump-7/{topic}")


def test_a_device_receives_its_own_branch_alone(broker: Broker) -> None:
    with broker.bridge() as bridge, broker.device() as device:
        bridge.publish("devices/pump-8/shadow/delta", b"kept", retain=True)
        for filter in (
            "#",
            "+/+/+/+",
            "devices/#",
            "devices/+/commands/#",
            "devices/pump-8/#",
            "devices/pump-8/commands/stop",
            "$SYS/#",
            "$SYS/broker/uptime",
            "$share/g/#",
            "$share/g/devices/+/commands/#",
            "$share/pump-7/devices/pump-8/#",
            "devices/pump-7/commands/+",
        ):
            device.subscribe(filter)  # Whatever the answer: what counts is what comes.
        for _ in range(3):  # a shared subscription gives every other one to another member
            bridge.publish("devices/pump-8/commands/stop")
        bridge.publish("devices/pump-8/telemetry")
        bridge.publish("elsewhere/x")
        bridge.publish("devices/pump-7/telemetry")  # its own, and yet it only writes there
        assert bridge.publish("devices/pump-7/commands/end") == 0
        assert set(device.until("devices/pump-7/commands/end")) == set()
        bridge.publish("devices/pump-8/shadow/delta", b"", retain=True)


def test_nobody_takes_anothers_client_id(broker: Broker) -> None:
    with broker.bridge() as bridge, broker.device("pump-8") as other:
        other.subscribe("devices/pump-8/commands/#")
        with (
            broker.device("pump-7", client_id="pump-8") as thief,
            broker.device("pump-7", client_id="gateway") as again,
        ):
            # The second one is pump-7 too, whatever it calls itself: it takes over the first one, and nobody else.
            assert in_time(thief)
            again.subscribe("devices/pump-8/commands/#")
            bridge.publish("devices/pump-8/commands/go")
            assert other.until("devices/pump-8/commands/go") == []
            assert still(other, "devices/pump-8/telemetry")
            assert still(bridge, "elsewhere/x")
            assert again.got == []


def test_a_will_for_another_is_not_sent(broker: Broker) -> None:
    with broker.bridge() as bridge:
        broker.device(will="devices/pump-8/status").vanish()
        broker.device(will="devices/pump-7/status").vanish()
        assert "devices/pump-8/status" not in bridge.until("devices/pump-7/status")


def test_an_old_device_is_told_yes_and_yet_not_heard(broker: Broker) -> None:
    with broker.bridge() as bridge, broker.device(version=MQTTv311) as device:
        assert device.publish("devices/pump-8/telemetry", b"forged") == 0  # MQTT 3.1.1 has no word for no
        assert device.publish("devices/pump-7/telemetry", b"mine") == 0
        assert "devices/pump-8/telemetry" not in bridge.until("devices/pump-7/telemetry")


def test_a_page_speaks_mqtt_by_websocket(broker: Broker) -> None:
    with broker.bridge() as bridge, broker.device(transport="websockets", port=9001) as page:
        page.subscribe("devices/pump-7/commands/#")
        assert page.publish("devices/pump-8/telemetry") == NOT_AUTHORIZED
        assert page.publish("devices/pump-7/telemetry") == 0
        bridge.until("devices/pump-7/telemetry")
        bridge.publish("devices/pump-7/commands/go")
        assert page.until("devices/pump-7/commands/go") == []


@pytest.mark.parametrize(("name", "word"), [(None, ""), ("pump-7", ""), ("pump-7", "wrong"), ("nobody", "x"), ("", "")])
@pytest.mark.parametrize(("port", "transport"), [(8883, "tcp"), (9001, "websockets"), (1883, "tcp")])
def test_nobody_comes_in_without_a_password(
    broker: Broker, name: str | None, word: str, port: int, transport: str
) -> None:
    ca = "" if port == 1883 else broker.ca
    with pytest.raises(Refused) as refused:
        Peer(broker.host, name, word, ca=ca, port=port, transport=transport, client_id="pump-7")
    assert refused.value.code in (NOT_AUTHORIZED, BAD_PASSWORD)


def test_the_network_sees_tls_alone(broker: Broker) -> None:
    for known, name, why in (
        (None, broker.host, "unable to get local issuer"),
        (broker.ca, "mosquitto.example.org", "not valid for"),
    ):
        tls = ssl.create_default_context(cafile=known)
        with socket.create_connection((broker.host, 8883), 10) as raw:
            with pytest.raises(ssl.SSLCertVerificationError, match=why):
                tls.wrap_socket(raw, server_hostname=name)
    # In clear text there is no MQTT: CONNECT gets no CONNACK, and nothing that was said is answered.
    for port in (8883, 9001):
        with socket.create_connection((broker.host, port), 10) as raw:
            raw.sendall(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc")
            try:
                answer = raw.recv(64)
            except ConnectionResetError:
                continue
            assert not answer.startswith(b"\x20"), answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(broker: Broker, version: ssl.TLSVersion) -> None:
    old = ssl.create_default_context(cafile=broker.ca)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version, old.maximum_version = version, version
    for port in (8883, 9001):
        with socket.create_connection((broker.host, port), 10) as raw:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                old.wrap_socket(raw, server_hostname=broker.host)


def test_clear_text_is_for_this_machine_alone() -> None:
    conf = (Path(__file__).parents[2] / "mosquitto/mosquitto.conf").read_text()
    listeners = re.findall(r"(?m)^listener (.+)$", conf)
    assert listeners == ["1883 127.0.0.1", "8883", "9001"]
    for one in conf.split("\nlistener ")[2:]:
        assert {"certfile", "keyfile", "tls_version", "use_username_as_clientid"} <= set(
            re.findall(r"(?m)^(\w+) ", one)
        )


def test_a_new_device_comes_in_at_once(broker: Broker) -> None:
    with pytest.raises(Refused):
        Peer(broker.host, "pump-9", "x", ca=broker.ca)
    with broker.device("pump-8") as other:
        broker.words |= broker.command("add", "pump-9")
        with broker.bridge() as bridge, broker.device("pump-9") as device:
            assert device.publish("devices/pump-9/telemetry") == 0
            bridge.until("devices/pump-9/telemetry")
        assert still(other, "devices/pump-8/telemetry")


def test_an_old_password_is_of_no_use_and_who_used_it_is_cut_off(broker: Broker) -> None:
    broker.words |= broker.command("add", "pump-10")
    with broker.device("pump-10") as before, broker.device("pump-8") as other:
        old = broker.words["pump-10"]
        broker.words |= broker.command("rotate", "pump-10")
        assert broker.words["pump-10"] != old
        assert in_time(before)
        with pytest.raises(Refused):
            Peer(broker.host, "pump-10", old, ca=broker.ca)
        with broker.device("pump-10") as after:
            assert still(after, "devices/pump-10/telemetry")
        assert still(other, "devices/pump-8/telemetry")


def test_a_revoked_device_is_cut_off(broker: Broker) -> None:
    broker.words |= broker.command("add", "pump-11")
    with broker.device("pump-11") as device, broker.device("pump-8") as other:
        broker.command("revoke", "pump-11")
        assert in_time(device)
        with pytest.raises(Refused):
            broker.device("pump-11")
        assert still(other, "devices/pump-8/telemetry")


def test_sessions_survive_a_restart(broker: Broker) -> None:
    stage = broker.stage
    with broker.bridge() as bridge:
        bridge.publish("devices/pump-8/shadow/delta", b"kept", retain=True)
    assert stage.stop("mosquitto") == 0
    stage.start("mosquitto")
    stage.healthy("mosquitto")
    with broker.device("pump-8") as device:
        device.subscribe("devices/pump-8/shadow/delta")
        assert device.until("devices/pump-8/shadow/delta") == []


def test_the_healthcheck_asks_the_broker_itself(broker: Broker) -> None:
    stage = broker.stage
    process = stage.pid("mosquitto")
    subprocess.run(["kill", "-STOP", str(process)], check=True)
    try:
        assert not stage.health("mosquitto")
    finally:
        subprocess.run(["kill", "-CONT", str(process)], check=True)
    stage.healthy("mosquitto")

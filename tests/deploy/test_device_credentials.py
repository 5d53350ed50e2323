"""`gateway device-credentials`: what it writes, what it says, what it refuses; rights of declarations by delivery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway import limits
from tests.deploy.compose import ROOT
from tests.deploy.mqtt_clients import Peer
from tests.deploy.stage import Stage

#: Another stage may be before this one, see `Stage.start`.
pytestmark = pytest.mark.timeout(300)

NOT_AUTHORIZED = 0x87

DECLARED = """
[[topics]]
pattern = "greenhouse/{bed}/humidity"
write = ["device"]
mqtt = "in"

[[topics]]
pattern = "gates/{gate}/opened"
write = ["device:gate-1"]
mqtt = "in"

[[topics]]
pattern = "pools/{device}/level"
write = ["device:{device}"]
mqtt = "in"

[[topics]]
pattern = "news/today"
write = ["anyone"]
mqtt = "in"

[[topics]]
pattern = "orders/{order}"
write = ["user"]

[[topics]]
pattern = "devices/{device}/telemetry"
write = ["device:{device}"]
mqtt = "in"

[[mqtt.map]]
from = "tele/{device}/SENSOR"
to = "devices/{device}/telemetry"
"""


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    line = [sys.executable, "-m", "gateway.cli", "device-credentials", *words, "--folder", str(folder)]
    return subprocess.run(
        line, env=env | {"PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True, text=True, check=False
    )


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_password_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    told = ask(tmp_path, "add", "pump-7", "pump-8")
    assert told.returncode == 0, told.stderr
    words = dict(line.split() for line in told.stdout.splitlines())
    assert words.keys() == {"pump-7", "pump-8"}
    assert all(len(word) == 24 for word in words.values())
    lines = (tmp_path / "passwords").read_text().splitlines()
    assert [line.partition(":")[2][:7] for line in lines] == ["$7$101$", "$7$101$"]
    everything = "".join(path.read_text() for path in tmp_path.iterdir()) + told.stderr
    assert [word for word in words.values() if word in everything] == []
    assert {mode(tmp_path / name) for name in ("passwords", "acl")} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acl", "passwords"]
    assert ask(tmp_path, "ls").stdout.split() == ["pump-7", "pump-8"]
    audit = [line for line in told.stderr.splitlines() if "from=gateway.audit" in line]
    assert ["add credentials of pump-7" in line for line in audit] == [True, False]


def test_rotate_and_revoke_change_one_line(tmp_path: Path) -> None:
    ask(tmp_path, "add", "pump-7", "pump-8")
    before = (tmp_path / "passwords").read_text().splitlines()
    told = ask(tmp_path, "rotate", "pump-8", "--json")
    assert json.loads(told.stdout).keys() == {"device", "password"}
    after = (tmp_path / "passwords").read_text().splitlines()
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert ask(tmp_path, "revoke", "pump-7").returncode == 0
    assert (tmp_path / "passwords").read_text().splitlines() == after[1:]


def test_a_line_of_mosquitto_passwd_stays_as_it_is(tmp_path: Path) -> None:
    theirs = "old-1:$7$101$c2FsdA==$aGFzaA=="
    (tmp_path / "passwords").write_text(f"{theirs}\n")
    ask(tmp_path, "add", "pump-7")
    assert (tmp_path / "passwords").read_text().startswith(f"{theirs}\npump-7:$7$101$")


def test_the_bridges_password_is_made_once(tmp_path: Path) -> None:
    word = tmp_path / "word"
    assert ask(tmp_path, "bridge", str(word)).returncode == 0
    made = word.read_text()
    assert len(made.strip()) == 43
    assert mode(word) == 0o600
    assert ask(tmp_path, "bridge", str(word)).returncode == 0
    assert word.read_text() == made
    assert (tmp_path / "passwords").read_text().startswith("gateway:$7$")


@pytest.mark.parametrize(
    "words",
    [
        ("add", "gateway"),
        ("add", "UPPER"),
        ("add", "a/b"),
        ("add", "a:b"),
        ("add", "a b"),
        ("add", "+"),
        ("add", "#"),
        ("add", ""),
        ("add", "-x" * 32),
        ("add", "a\nroot:x"),
        ("add", "pump-9", "%u/x"),
        ("add", "ä"),
        ("add", "pump-7"),
        ("rotate", "pump-9"),
        ("revoke", "pump-9"),
        ("revoke", "pump-7", "pump-9"),
        ("revoke", "gateway"),
    ],
)
def test_a_refusal_changes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    ask(tmp_path, "add", "pump-7")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    told = ask(tmp_path, *words)
    assert told.returncode in (1, 2)
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "device-credentials", "add", "x", "--folder", str(tmp_path / "nowhere")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stderr.startswith("error: ")
    assert "make it, or name another" in told.stderr
    gone = subprocess.Popen(["true"])
    gone.wait()
    told = ask(tmp_path, "add", "pump-7", "--pid", str(gone.pid))
    assert told.returncode == 1
    assert "did not get SIGHUP" in told.stderr
    assert told.stdout.startswith("pump-7 ")


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    names = [f"pump-{n}" for n in range(6)]
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda name: ask(tmp_path, "add", name), names))
    assert [one.returncode for one in told] == [0] * len(names)
    assert ask(tmp_path, "ls").stdout.split() == names


def test_accounts_are_bounded(tmp_path: Path) -> None:
    full = "".join(f"d{n}:$7$101$x$x\n" for n in range(limits.BROKER_ACCOUNTS))
    (tmp_path / "passwords").write_text(full)
    told = ask(tmp_path, "add", "one-more")
    assert told.returncode == 1
    assert "use a second broker" in told.stderr
    assert (tmp_path / "passwords").read_text() == full


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        running.start("mosquitto")
        running.healthy("mosquitto")
        yield running


def test_rights_of_declarations_by_delivery(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(DECLARED)
    broker = stage.secrets / "mosquitto"
    own = ("--config", str(tmp_path / "gateway.toml"), "--pid", str(stage.pid("mosquitto")))
    told = ask(broker, "add", "gate-1", "pump-7", *own)
    words = dict(line.split() for line in told.stdout.splitlines())
    at, ca = stage.address["mosquitto"], str(stage.authority.file)
    with (
        Peer(at, "gateway", (stage.secrets / "mqtt").read_text().strip(), ca=ca) as bridge,
        Peer(at, "gate-1", words["gate-1"], ca=ca) as gate,
        Peer(at, "pump-7", words["pump-7"], ca=ca) as pump,
    ):
        assert bridge.subscribe("#") < 0x80
        may = [
            (pump, "greenhouse/3/humidity"),
            (gate, "greenhouse/3/humidity"),
            (gate, "gates/north/opened"),
            (pump, "pools/pump-7/level"),
            (pump, "news/today"),
            (pump, "tele/pump-7/SENSOR"),
        ]
        may_not = [
            (pump, "gates/north/opened"),
            (pump, "pools/gate-1/level"),
            (pump, "orders/7"),
            (pump, "tele/gate-1/SENSOR"),
            (pump, "greenhouse/3/4/humidity"),
            (gate, "news/tomorrow"),
        ]
        assert [(topic, peer.publish(topic, b"forged")) for peer, topic in may_not] == [
            (topic, NOT_AUTHORIZED) for _, topic in may_not
        ]
        assert [peer.publish(topic, b"mine") for peer, topic in may] == [0] * len(may)
        assert bridge.publish("try/end") == 0
        assert sorted(bridge.until("try/end")) == sorted(topic for _, topic in may)
        for filter in ("greenhouse/#", "gates/#", "pools/#", "news/#", "orders/#", "tele/#"):
            pump.subscribe(filter)
            bridge.publish(f"{filter[:-1]}x/y", b"not for devices")
        bridge.publish("news/today", b"not for devices")
        bridge.publish("devices/pump-7/commands/end")
        pump.subscribe("devices/pump-7/commands/#")
        bridge.publish("devices/pump-7/commands/end")
        assert pump.until("devices/pump-7/commands/end") == []

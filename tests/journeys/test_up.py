"""`gateway up --demo` as a newcomer meets it: what it prints, a first publish, and every death it survives."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gateway.adapters import embedded
from tests.servers import eventually

PROGRAM = (sys.executable, "-m", "gateway.cli")
EXAMPLES = Path(__file__).parents[2] / "examples"
#: A guard against hanging; `up` itself promises 5 s on an idle machine.
STARTED_WITHIN = 50.0


#: The example of the README.
OWN = """
[edge]
anonymous = true

[[topics]]
pattern = "greenhouse/{bed}/humidity"
write = ["device", "operator"]
read = ["user", "operator"]
key = "{bed}"
retain = true
mqtt = "in"

[[topics]]
pattern = "try/#"
payload = "bytes"
write = ["anyone"]
mqtt = "in"
"""


class Demo:
    """A running `gateway up --demo` in a folder of its own."""

    def __init__(self, folder: Path, port: int = 0, cwd: Path | None = None, head: int = 0) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.env |= {
            "GATEWAY_DATA": str(self.data),
            "GATEWAY_EDGE_PORT": str(port or embedded.free_port()),
            "COLUMNS": "200",
        }
        self.out = folder / "up.out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*PROGRAM, "up", "--demo"], env=self.env, cwd=cwd, stdout=subprocess.PIPE if head else out, stderr=out
            )
        if self.process.stdout is not None:
            with self.process.stdout:  # as `| head` reads
                for _ in range(head):
                    self.process.stdout.readline()

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.said)
        assert match, self.said
        return match[1]

    @property
    def edge(self) -> str:
        return self.found(r"HTTP, SSE +(\S+)")

    @property
    def broker_port(self) -> int:
        return int(self.found(r"MQTT +mqtt://127\.0\.0\.1:(\d+)"))

    @property
    def commands(self) -> list[str]:
        _, _, rest = self.said.partition("Try next, in another terminal:\n")
        return [line.strip() for line in rest.split("\n\n")[0].splitlines()]

    async def up(self) -> None:
        await eventually(lambda: "devices/" in self.said.partition("Try next")[2][400:] or self.dead(), STARTED_WITHIN)

    def dead(self) -> bool:
        assert self.process.poll() is None, self.said
        return False

    def children(self) -> dict[str, int]:
        """Name -> process, of the children that run now."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                words = (status.parent / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid:
                found[name_of(words)] = int(status.parent.name)
        return found

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *words], env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def watched(self, filters: int) -> None:
        await eventually(lambda: f"gateway_filters {filters}.0" in httpx.get(f"{self.edge}/metrics").text, 60)


def name_of(words: list[str]) -> str:
    line = " ".join(words)
    return next(
        (n for n in ("valkey", "mosquitto", "iotcore", "fleet.py") if n in line), words[3] if words[3:] else line
    )


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
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


async def test_a_newcomer_sees_a_first_event(demo: Demo) -> None:
    await demo.up()
    assert re.search(r"user +ey\S+\.\S+\.\S+", demo.said)
    assert "operator's is in" in demo.said

    watching = demo.start("sub", "try/hello", "-n", "2")
    await demo.watched(1)
    by_http = demo.start("pub", "try/hello", "by http")
    assert "durability disk" in by_http.communicate(timeout=60)[0]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    if "(mosquitto)" not in demo.said:
        client.username_pw_set("gateway", (demo.data / "mqtt" / "gateway.password").read_text())
    client.connect("127.0.0.1", demo.broker_port)
    client.loop_start()
    client.publish("try/hello", "by mqtt", qos=1).wait_for_publish(60)
    out, _ = watching.communicate(timeout=60)
    client.disconnect()
    client.loop_stop()
    assert [line.split("  ", 2)[2] for line in out.splitlines()] == ["by http", "by mqtt"]
    await eventually(lambda: demo.said.count("  try/hello  by ") == 2, 60)

    what_it_says_works(demo)
    await eventually(lambda: "  try/hello  hello, world" in demo.said, 60)

    secrets_stay_secret(demo)
    children = demo.children()
    assert len(children) == 5, children
    demo.process.terminate()
    assert demo.process.wait(60) == 0
    assert [name for name, pid in children.items() if not gone(pid)] == []
    assert demo.said.endswith("everything is stopped\n")


def what_it_says_works(demo: Demo) -> None:
    """Each printed command as it stands there."""
    watch, publish, stream = (shlex.split(command) for command in demo.commands)
    example = [sys.executable, str(EXAMPLES / "watch.py"), demo.found(r"WebSocket +(\S+)"), "devices/+/telemetry"]
    for words, expected in ((watch, "  devices/"), (stream, '"devices/'), (example, "devices/")):
        with subprocess.Popen(
            words, env=demo.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as told:
            assert told.stdout is not None
            assert any(expected in line for line in told.stdout)
            told.kill()
    subprocess.run(publish, env=demo.env, check=True, timeout=60, capture_output=True)


def secrets_stay_secret(demo: Demo) -> None:
    files = [demo.data / name for name in ("token.secret", "operator.token", "user.token")]
    files += [demo.data / "mqtt" / name for name in ("gateway.password", "devices.json", "passwords")]
    kept = [path for path in files if path.exists()]
    assert len(kept) >= 5
    assert [path.name for path in kept if path.stat().st_mode & 0o077] == []
    assert demo.data.stat().st_mode & 0o077 == 0
    secret = [word for path in kept for word in re.findall(r"[\w.$/+=-]{20,}", path.read_text())]
    assert len(secret) > 5
    logs = {path.name: path.read_text(errors="replace") for path in demo.data.rglob("*.log")}
    assert len(logs) == 5
    lines = {f"{pid}": Path(f"/proc/{pid}/cmdline").read_text() for pid in demo.children().values()}
    for name, text in (logs | lines).items():
        assert [word for word in secret if word in text] == [], name
    shown = (demo.data / "user.token").read_text().strip()
    assert [word for word in secret if word in demo.said and word != shown] == []


async def test_every_death_heals_and_a_subscriber_misses_nothing(demo: Demo) -> None:
    await demo.up()
    if "(mosquitto)" not in demo.said:
        pytest.skip("an anonymous publisher needs mosquitto: apt install mosquitto")
    watching = demo.start("sub", "try/numbers")
    await demo.watched(1)
    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(read(watching)), name="reader")
    reading.start()
    publisher = Publisher(demo.broker_port)
    for name in ("bridge", "edge", "valkey"):
        before = publisher.sent
        await eventually(grown(publisher, before + 20), 60)
        os.kill(demo.children()[name], signal.SIGKILL)
        await eventually(lambda name=name: f"{name} is back" in demo.said or demo.dead(), 60)
        await eventually(grown(publisher, publisher.sent + 20), 60)
    publisher.stop()
    reading.join(60)
    watching.kill()
    _, notes = watching.communicate()
    assert "something is missing" not in notes
    numbers = [int(text) for text in dict.fromkeys(seen)]
    assert numbers == list(range(publisher.sent)), notes
    for name in ("bridge", "edge", "valkey"):
        assert demo.said.count(f"{name} was killed (signal 9); starting it again\n") == 1


def grown(publisher: Publisher, to: int) -> Callable[[], bool]:
    return lambda: publisher.sent >= to


def read(watching: subprocess.Popen[str]) -> Iterator[str]:
    for line in watching.stdout or ():
        text = line.rstrip("\n").split("  ", 2)[2]
        if text == "end":
            return
        yield text


async def test_own_topics_take_the_words_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(OWN)
    demo = Demo(tmp_path, cwd=tmp_path)
    try:
        await eventually(lambda: "Try next" in demo.said or demo.dead(), STARTED_WITHIN)
        assert "runs with gateway.toml." in demo.said
        ready = demo.found(r"health +bridge: (\S+)")
        await eventually(lambda: httpx.get(ready).text == "ok\n", 60)
        if "(mosquitto)" not in demo.said:
            pytest.skip("rights of accounts need mosquitto: apt install mosquitto")
        device = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        device.username_pw_set("room-01", json.loads((demo.data / "mqtt" / "devices.json").read_text())["room-01"])
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
    finally:
        demo.process.terminate()
        demo.process.wait(60)


async def test_it_goes_on_when_nobody_reads(tmp_path: Path) -> None:
    demo = Demo(tmp_path, head=1)
    try:
        await eventually(lambda: "nobody reads" in demo.said or demo.dead(), STARTED_WITHIN)
        assert demo.start("pub", "try/x", "hi").communicate(timeout=60)[0].endswith("durability disk\n")
    finally:
        demo.process.terminate()
    assert demo.process.wait(60) == 0


async def test_killed_it_leaves_nobody_behind(demo: Demo) -> None:
    await demo.up()
    children = demo.children()
    assert len(children) == 5, children
    demo.process.kill()
    demo.process.wait(60)
    await eventually(lambda: all(gone(pid) for pid in children.values()), 60)


async def test_a_second_one_needs_a_folder_and_takes_the_next_port(demo: Demo, tmp_path: Path) -> None:
    await demo.up()
    second = demo.start("up", "--demo")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert out == ""
    assert err == f"error: another `gateway up` uses {demo.data}; stop it, or set gateway.data to another folder\n"

    (tmp_path / "other").mkdir()
    taken = int(demo.edge.rpartition(":")[2])
    other = Demo(tmp_path / "other", taken)
    try:
        await other.up()
        free = int(other.edge.rpartition(":")[2])
        assert free > taken
        assert f"port {taken} is taken: the edge listens on {free}\n" in other.said
    finally:
        other.process.terminate()
        other.process.wait(60)

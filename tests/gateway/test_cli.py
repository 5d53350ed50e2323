"""Every command as a user types it, against a real edge on a real log server; and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Door, Plan, Server
from tests.servers import eventually

CONFIG = """
[edge]
anonymous = true
port = {port}

[log]
url = "{log}"

[[topics]]
pattern = "try/#"
payload = "bytes"
mqtt = "in"
write = ["anyone"]
read = ["anyone"]

[[topics]]
pattern = "rooms/{{room}}/messages"
key = "{{room}}"
write = ["user"]
read = ["anyone"]
"""
PROGRAM = (sys.executable, "-m", "gateway.cli")
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | {"COLUMNS": "200"}


class Place:
    """A folder with a gateway.toml, and the commands in it."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder, self.url = folder, url

    def run(self, *words: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PROGRAM, *words],
            cwd=self.folder,
            env=ENV | env,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *words: str, stdin: bytes = b"", **env: str) -> str:
        done = self.run(*words, stdin=stdin, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *words: str, code: int = 1, **env: str) -> str:
        done = self.run(*words, stdin=b"", **env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.strip()

    def write(self, text: str) -> None:
        (self.folder / "gateway.toml").write_text(text)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*PROGRAM, *words], cwd=self.folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder whose gateway.toml names a running log server, and whose edge runs as `gateway edge`."""
    folder = tmp_path_factory.mktemp("cli")
    port = embedded.free_port()
    with embedded.valkey(folder / "log") as log:
        place = Place(folder, f"http://127.0.0.1:{port}")
        place.write(CONFIG.format(port=port, log=log.url))
        with edge(folder, port):
            yield place


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    return Place(tmp_path)


def edge(folder: Path, port: int) -> Server:
    asks = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    door = Door(f"http://127.0.0.1:{port}", port=port, asks=asks, expects=b"HTTP/1.1 200")
    argv = (*PROGRAM, "edge", "--config", str(folder / "gateway.toml"))
    previous = Path.cwd()
    os.chdir(folder)
    try:
        return Server(Plan("edge", argv, folder, (door,)))
    finally:
        os.chdir(previous)


def stored(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(text)
    return found


# --- publish and subscribe -------------------------------------------------------------------------------------------


def test_pub_says_where_the_event_stands(here: Place) -> None:
    said = here.ok("pub", "try/pub", "hello")
    id, topic, _, at, _, durability = said.split()
    assert len(id) == 36
    assert topic == "try/pub"
    assert "-" in at
    assert durability == "disk"


def test_pub_takes_a_file_standard_input_and_an_id(here: Place) -> None:
    (here.folder / "payload").write_bytes(b"\x00\xff")
    first = stored(here.ok("pub", "try/file", "--file", "payload", "--json", "--id", "one"))
    again = stored(here.ok("pub", "try/file", "-", "--json", "--id", "two", stdin=b"from stdin"))
    assert first["id"] == "one"
    assert again["id"] == "two"
    kept = [
        json.loads(line) for line in here.ok("tail", "try/file", "--from", "1m", "--no-follow", "--json").splitlines()
    ]
    assert [event.get("data") for event in kept] == [None, "from stdin"]
    assert kept[0]["base64"] == "AP8="


async def test_sub_shows_what_comes(here: Place) -> None:
    watching = here.start("sub", "try/sub/+", "rooms/+/messages", "-n", "3")
    await eventually(lambda: "gateway_filters 2.0" in httpx.get(f"{here.url}/metrics").text, 30)
    token = here.ok("token", "--role", "user", "--sub", "alice", "--for", "15m").strip()
    here.ok("pub", "try/sub/a", "plain text")
    here.ok("pub", "try/sub/b", "-", stdin=b"\x00\xff")
    here.ok("pub", "rooms/a/messages", '{"text": "hi"}', GATEWAY_TOKEN=token)
    out, _ = watching.communicate(timeout=60)
    lines = [line.split("  ", 2)[1:] for line in out.decode().splitlines()]
    assert lines == [
        ["try/sub/a", "plain text"],
        ["try/sub/b", "<2 bytes> AP8="],
        ["rooms/a/messages", '{"text": "hi"}'],
    ]
    assert watching.returncode == 0


@pytest.mark.parametrize("command", [("sub",), ("tail", "--from", "1m")])
async def test_a_reader_who_has_enough_ends_it(here: Place, command: tuple[str, ...]) -> None:
    topic = f"try/head/{command[0]}"
    here.ok("pub", topic, "first")
    watching = here.start(*command, topic)
    assert watching.stdout is not None
    if command[0] == "sub":
        await eventually(lambda: "gateway_filters 1.0" in httpx.get(f"{here.url}/metrics").text, 30)
        here.ok("pub", topic, "second")
    watching.stdout.readline()
    watching.stdout.close()
    # The first that is shown to nobody ends it.
    await eventually(lambda: here.ok("pub", topic, "more") and watching.poll() is not None, 60)
    assert watching.returncode == 0
    assert watching.stderr is not None
    with watching.stderr as notes:
        assert notes.read() == b""


def test_pub_says_what_text_is(here: Place) -> None:
    for topic, data in (("text", b"hello"), ("json", b'{"a": 1}'), ("bytes", b"\xff")):
        here.ok("pub", f"try/type/{topic}", "-", stdin=data)
    rows = here.ok("tail", "try/type/+", "--from", "1m", "--no-follow", "--json").splitlines()
    types = {row["topic"].rpartition("/")[2]: row["type"] for row in map(json.loads, rows)}
    assert types == {
        "text": "text/plain",
        "json": "application/octet-stream",
        "bytes": "application/octet-stream",
    }


def test_pub_with_a_key_is_answered_once(here: Place) -> None:
    first = stored(here.ok("pub", "try/key", "hi", "--key", "k", "--json"))
    again = stored(here.ok("pub", "try/key", "hi", "--key", "k", "--json"))
    assert again == first | {"duplicate": True}


def test_pub_of_a_topic_that_the_edge_has_not_read(here: Place) -> None:
    newer = here.folder / "newer.toml"
    newer.write_text((here.folder / "gateway.toml").read_text() + '[[topics]]\npattern = "new/#"\n')
    said = here.fails("pub", "new/x", "1", "--config", "newer.toml")
    assert said.endswith("it is declared here, but the edge that runs has not read your change: restart it")


def test_pub_is_refused_in_words(here: Place) -> None:
    assert here.fails("pub", "nope/x", "hi") == (
        "error: topic 'nope/x' is not declared; see `gateway topics`, or declare it"
    )
    assert here.fails("pub", "try/x", "hi", GATEWAY_TOKEN="forged") == (
        "error: the token is not three parts of base64url; get a new one, for development by `gateway token`"
    )
    damaged = here.fails("pub", "try/x", "hi", GATEWAY_TOKEN="a.b.c")
    assert damaged.startswith("error: the token cannot be read: its header cannot be read")
    assert "JSON document" not in here.fails("pub", "try/x", "hi", GATEWAY_TOKEN="ew.ew.ew")
    assert "cannot be read" in here.fails("pub", "try/x", "hi", "--token-file", "nowhere")
    (here.folder / "a.token").write_text("forged\n")
    assert "three parts" in here.fails("pub", "try/x", "hi", "--token-file", "a.token")
    assert here.fails("pub", "rooms/a/messages", "{}") == (
        "error: anonymous may not publish 'rooms/a/messages': 'rooms/{room}/messages' grants write to user; "
        "use another token or topic"
    )
    assert "give either PAYLOAD or --file" in here.fails("pub", "try/x", code=2)


def test_sub_is_refused_in_words(here: Place) -> None:
    assert here.fails("sub", "nope") == "error: topic 'nope' is not declared; see `gateway topics`, or declare it"
    assert here.fails("sub", "try/x", GATEWAY_TOKEN="forged").startswith("error: the token is not three parts")


def test_an_edge_that_is_not_there(alone: Place) -> None:
    port = embedded.free_port()
    for words in (("pub", "try/x", "hi"), ("sub", "try/x")):
        said = alone.fails(*words, "--url", f"http://127.0.0.1:{port}")
        assert said.startswith(f"error: no edge answers at http://127.0.0.1:{port} (")
        assert said.endswith("; start one with `gateway up`, or name it by --url")


# --- the log ---------------------------------------------------------------------------------------------------------


async def test_tail_reads_the_log_itself(here: Place) -> None:
    here.ok("pub", "try/tail", "before")
    tailing = here.start("tail", "try/tail", "--from", "earliest", "-n", "2", "--json")
    here.ok("pub", "try/tail", "after")
    out, err = tailing.communicate(timeout=60)
    assert [json.loads(line)["data"] for line in out.decode().splitlines()] == ["before", "after"], err
    assert (tailing.returncode, err) == (0, b"")
    assert here.ok("tail", "try/tail", "--no-follow") == ""
    assert "neither earliest" in here.fails("tail", "--from", "yesterday", code=2)


def test_tail_without_a_log_server(alone: Place) -> None:
    alone.write(CONFIG.format(port=1, log="").replace('url = ""', ""))
    assert alone.fails("tail") == ("error: no log server is named and none runs here; set log.url, or run `gateway up`")


# --- declarations ----------------------------------------------------------------------------------------------------


def test_topics_lists_what_is_declared(here: Place) -> None:
    assert "rooms/{room}/messages" in here.ok("topics")
    rows = [json.loads(line) for line in here.ok("topics", "--json").splitlines()]
    assert [row["pattern"] for row in rows] == ["try/#", "rooms/{room}/messages"]
    assert rows[1]["app"] == "rooms"


def test_explain_says_who_may_and_does_nothing(here: Place) -> None:
    said = here.ok("explain", "rooms/a/messages", "--as", "user:alice", "--payload", "{}")
    assert "user:alice may publish rooms/a/messages" in said
    assert {"the payload is taken", "no service handles it"} <= set(said.splitlines())
    assert re.search(r"rooms/\{room\}/messages +rooms +rooms\.\d +a +json +yes", said)
    assert "MQTT in" in here.ok("explain", "try/x")
    found = stored(here.ok("explain", "rooms/#", "--json"))
    assert (found["may_write"], found["may_read"]) == (False, True)
    done = here.run("explain", "rooms/a/messages", "--payload", '{"a":}')
    assert done.returncode == 1
    assert "the payload is refused: not JSON" in done.stdout
    assert here.fails("explain", "nope").startswith("error: topic 'nope' is not declared")
    assert "is nobody" in here.fails("explain", "try/x", "--as", "alice", code=2)
    assert here.ok("tail", "rooms/a/messages", "--from", "earliest", "--no-follow").count("\n") <= 1


def test_a_token_names_its_role(here: Place) -> None:
    made = stored(here.ok("token", "--role", "operator", "--sub", "me", "--for", "12h", "--json"))
    assert (made["sub"], made["role"]) == ("me", "operator")
    assert stored(here.ok("token", "--role", "viewer", "--json"))["role"] == "viewer"
    assert (here.folder / ".gateway" / "token.secret").stat().st_mode & 0o777 == 0o600
    assert "is no duration" in here.fails("token", "--for", "long", code=2)
    assert here.fails("token", "--sub", "a/b").startswith("error: the name 'a/b' has /")
    assert stored(here.ok("token", "--channel", "rooms/1", "--json"))["channel"] == "rooms/1"


def test_check_says_what_is_well(here: Place) -> None:
    said = here.ok("check", "--connect").splitlines()
    assert said[0] == "gateway.toml: 2 topics of rooms, try; 0 mapped from MQTT: ok"
    assert said[2].startswith("log: unix://")
    assert said[2].endswith(": ok")


def test_check_says_what_is_wrong_and_where(alone: Place) -> None:
    alone.write('[edge]\nprot = 1\n[[topics]]\npattern = "try/#"\nwrite = ["everyone"]\n')
    assert (
        alone.fails("check") == "error: gateway.toml:2: edge.prot is unknown; did you mean port?; nothing was applied"
    )
    alone.write('[[topics]]\npattern = "try/#"\nwrite = ["everyone"]\n')
    assert alone.fails("check").startswith("error: gateway.toml:1: topics[0] ")
    assert alone.fails("check", "--config", "absent.toml").startswith("error: absent.toml cannot be read")
    alone.write('[gateway]\napps = ["nowhere:app"]\n')
    assert alone.fails("check") == (
        "error: gateway.apps: nowhere:app cannot be imported: No module named 'nowhere'; write module:attribute"
    )


def test_check_reaches_nobody(alone: Place) -> None:
    alone.write(f'[log]\nurl = "unix://{alone.folder}/absent.sock"\n')
    done = alone.run("check", "--connect", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert findings[2]["checked"] == "log"
    assert findings[2]["error"]


def test_check_warns_of_topics_that_no_device_may_write(alone: Place) -> None:
    alone.write('[[topics]]\npattern = "plant/{line}"\nmqtt = "in"\nwrite = ["user"]\n')
    assert alone.ok("check").splitlines()[1] == (
        "warning: topic 'plant/{line}' has mqtt = \"in\", but no device may write it: "
        'add "device" or "device:{name}" to its write'
    )


def test_check_warns_of_topics_that_no_device_may_read(alone: Place) -> None:
    alone.write('[[topics]]\npattern = "plant/{line}"\nmqtt = "out"\nread = ["user"]\n')
    assert alone.ok("check").splitlines()[1] == (
        "warning: topic 'plant/{line}' has mqtt = \"out\", but no device may read it: "
        'add "device" or "device:{name}" to its read'
    )


def test_a_typing_mistake_is_no_service_link(alone: Place) -> None:
    assert "did you mean GATEWAY_EDGE_PORT?" in alone.fails("check", GATEWAY_EGDE_PORT="1")


def test_narrow_terminals_break_no_word(here: Place) -> None:
    for words in (("topics",), ("explain", "rooms/a/messages")):
        said = here.ok(*words, COLUMNS="60")
        assert "rooms/{room}/messages\n" in said
        assert re.search(r"(?m)^  key +(\{room\}|a)$", said)


# --- processes -------------------------------------------------------------------------------------------------------


async def test_an_edge_waits_for_its_log_server(tmp_path: Path) -> None:
    port = embedded.free_port()
    Place(tmp_path).write(CONFIG.format(port=port, log=f"unix://{tmp_path}/log/valkey.sock"))

    def ready() -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}/readyz")

    with edge(tmp_path, port) as waiting:
        first = ready()
        assert first.status_code == 503
        assert first.text.startswith("log: ")
        with embedded.valkey(tmp_path / "log"):

            def is_ready() -> bool:
                try:
                    return ready().status_code == 200
                except httpx.TransportError:
                    return False  # between the probe of the waiting process and its doors

            await eventually(is_ready, 30)
            assert waiting.alive
            waiting.stop()


def test_a_process_without_what_it_needs_says_so(alone: Place) -> None:
    alone.write("")
    assert alone.fails("bridge") == "error: no broker is named; set mqtt.url, or run everything with `gateway up`"
    assert alone.fails("edge") == "error: no log server is named and none runs here; set log.url, or run `gateway up`"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        alone.write(CONFIG.format(port=port, log="unix:///nowhere.sock"))
        assert alone.fails("edge").splitlines()[-1] == (
            f"error: 127.0.0.1:{port} is taken; end the process that has it, or choose another address"
        )
    assert "is not HOST:PORT" in alone.fails("bridge", "--health", "here", code=2)

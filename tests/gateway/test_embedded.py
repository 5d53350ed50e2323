"""Servers as child processes: they answer, they come back, they end with us, and what is missing says how to get it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_client

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.errors import ServerFailed, ServerMissing
from tests.servers import GATEWAY, USERS, eventually, missing

MOSQUITTO = Path(__file__).parents[2] / "mosquitto"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_log_server_keeps_what_it_acknowledged_over_a_kill(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    with redis_client.Redis.from_url(server.url) as client:
        ids = [client.xadd("stream", {"n": n}) for n in range(50)]
        server.kill()
        server.start()
        assert [entry for entry, _ in client.xrange("stream")] == ids


def test_the_log_server_never_evicts_and_writes_every_append(log_server: str) -> None:
    with redis_client.Redis.from_url(log_server, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendfsync")["appendfsync"] == "always"
        assert client.config_get("appendonly")["appendonly"] == "yes"


def test_tcp_is_a_second_door_on_loopback(fresh_log_server: Callable[..., Server]) -> None:
    port = embedded.free_port()
    server = fresh_log_server(port=port)
    assert server.port == port
    for url in server.urls:
        with redis_client.Redis.from_url(url) as client:
            assert client.ping()


def test_further_lines_of_configuration_win(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server(extra=("maxmemory 64mb", "appendfsync everysec"))
    with redis_client.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(64 * 1024 * 1024)
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"


def test_a_folder_with_a_long_name_still_gets_a_socket_which_is_gone_afterwards(tmp_path: Path) -> None:
    with embedded.valkey(tmp_path / ("long" * 30)) as server:
        place = Path(server.doors[0].path)
        for end in (server.kill, server.stop):
            with redis_client.Redis.from_url(server.url) as client:
                assert client.ping()
            end()
            server.start()
    assert not place.parent.exists()


def test_configuration_files_are_for_the_owner_alone(mosquitto: Callable[[], Server]) -> None:
    data = mosquitto().data
    for name in ("passwords", "acl", "mosquitto.conf"):
        assert (data / name).stat().st_mode & 0o777 == 0o600
    assert USERS[GATEWAY] not in (data / "passwords").read_text()


@pytest.mark.parametrize("kind", ["mosquitto", "iotcore_broker"])
def test_a_broker_comes_back_on_its_port(kind: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)()
    first, urls = server.pid, server.urls
    server.restart()
    assert server.pid != first
    assert server.urls == urls
    server.kill()
    assert not server.alive
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5):
        pass


def test_stop_ends_even_a_frozen_server(
    fresh_log_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SERVER_STOP_WITHIN", 0.2)
    server = fresh_log_server()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert not server.alive


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with pytest.raises(ServerFailed, match=f"port {port} of valkey is taken"):
            embedded.valkey(tmp_path, port=port)


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no-such-option"):
        embedded.valkey(tmp_path, extra=("no-such-option yes",))


def test_the_pid_of_a_stopped_server_is_an_error(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    server.stop()
    with pytest.raises(ServerFailed):
        _ = server.pid


def test_a_missing_program_comes_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ServerMissing, match="apt install mosquitto"):
        embedded.mosquitto(tmp_path, users={})


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_server_skips_at_home_and_fails_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt install mosquitto"):
        missing(ServerMissing("mosquitto", "apt install mosquitto"))


_PARENT = """
import sys, time
from pathlib import Path
from gateway.adapters import embedded
server = embedded.valkey(Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    server = int(await parent.stdout.readline())
    os.kill(server, 0)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not _running(server))


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a container without an init leaves the dead unburied


def test_the_operators_broker_and_the_embedded_one_agree(tmp_path: Path) -> None:
    # Where they differ, each for its reason: the operator's has no anonymous clients, its own paths, and TLS.
    differ = {
        "user",
        "listener",
        "protocol",
        "certfile",
        "keyfile",
        "tls_version",
        "max_connections",
        "allow_anonymous",
        "use_username_as_clientid",
        "password_file",
        "acl_file",
        "pid_file",
        "persistence_location",
        "log_dest",
    }
    both = [(MOSQUITTO / "mosquitto.conf").read_text(), embedded.mosquitto_conf(tmp_path, 1883)]
    ours, theirs = ([line for line in _lines(text) if line.split()[0] not in differ] for text in both)
    assert sorted(ours) == sorted(theirs)
    assert {line.split()[0] for line in _lines(both[0])} >= {"use_username_as_clientid", "password_file", "acl_file"}


def test_the_operators_rights_and_the_embedded_ones_agree() -> None:
    # `try/#` without a name is a first look, on loopback, of an embedded broker alone.
    operators = _lines((MOSQUITTO / "acl").read_text())
    assert operators == [line for line in _lines(embedded.mosquitto_acl()) if not line.endswith(" try/#")]


def test_every_line_of_the_operators_configuration_has_its_reason() -> None:
    lines = (MOSQUITTO / "mosquitto.conf").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith("#"):
            assert before, f"no reason above: {line}"

"""`gateway conns` as an operator types it, against two edges on one log; one of them stops answering."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.cli.target import RefusedByEdge, Target, find, read
from gateway.core.connected import Connected
from gateway.core.declared import Topic
from gateway.up import Running as Up
from tests.gateway.test_cli import ENV, PROGRAM, Place, edge
from tests.gateways import SECRET, Running, client, running_edge, token
from tests.letters import audited, door
from tests.servers import eventually

CONFIG = """
[tokens]
hs256_secret_file = "secret"
[edge]
port = {port}
[log]
url = "{log}"
[[topics]]
pattern = "try/#"
read = ["anyone"]
"""
TOPICS = (Topic(pattern="try/#", read=("anyone",)),)


class Another:
    """An edge in a process of its own, and the commands of an operator beside it."""

    def __init__(self, place: Place, log: str, server: Server) -> None:
        self.place, self.log, self.server = place, log, server
        self.ws = place.url.replace("http", "ws") + "/connection/websocket"

    async def run(self, *words: str, role: str = "operator") -> tuple[int, str, str]:
        jwt = token("root", kind=role)
        done = await asyncio.to_thread(lambda: self.place.run("conns", *words, GATEWAY_TOKEN=jwt))
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Another]:
    folder, port = tmp_path_factory.mktemp("conns"), embedded.free_port()
    (folder / "secret").touch(mode=0o600)
    (folder / "secret").write_bytes(SECRET)
    with embedded.valkey(folder / "log") as log:
        place = Place(folder, f"http://127.0.0.1:{port}")
        place.write(CONFIG.format(port=port, log=log.url))
        with edge(folder, port) as server:
            yield Another(place, log.url, server)


async def found(http: httpx.AsyncClient, count: int, edges: int = 2) -> bool:
    answer = (await http.get("/connections")).json()
    return (len(answer["connections"]), len(answer["edges"]), answer["missing"]) == (count, edges, [])


async def test_who_is_connected_and_which_edge_did_not_answer(
    another: Another, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EDGE_SILENT", 600.0)  # a command may take long to start
    async with (
        running_edge(another.log, TOPICS) as one,
        client(one.ws) as alice,
        client(another.ws, token("bob")),
        door(one) as http,
    ):
        await alice.ask("connect", token=token("alice"), name="js\x1b[2J", version="5")
        await alice.ask("subscribe", channel="try/+/x")
        await eventually(lambda: found(http, 2), 60)

        code, said, more = await another.run("--json", "--limit", "1", "--url", one.http)
        (row,) = map(json.loads, said.splitlines())
        assert (code, row["user"], more) == (0, "user:alice", "1 more are not shown; see --limit\n")
        (bob,) = (await http.get("/connections?user=bob")).json()["connections"]

        os.kill(another.server.pid, signal.SIGSTOP)
        try:
            code, table, missing = await another.run("--url", one.http)
            kicked, _, unknown = await another.run("kick", bob["client"], "--url", one.http)
        finally:
            os.kill(another.server.pid, signal.SIGCONT)
        assert (code, missing) == (0, f"edges answered 1 of 2: nothing is known of {bob['edge']}\n")
        assert (kicked, f"no edge that answered has {bob['client']}" in unknown) == (1, True), unknown
        heading, line = table.splitlines()
        assert heading.split() == "client user edge speaks sdk since waiting ping watches".split()
        cells = line.split("  ")
        assert cells[:4] == [row["client"], "user:alice", one.edge.name, "websocket json"]
        assert (cells[4].strip(), cells[-1].strip()) == ("js\\x1b[2J 5", "try/+/x")


async def test_sending_away_asks_before_and_reaches_every_edge(
    another: Another, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    jwt = token("alice")
    async with running_edge(another.log, TOPICS) as one, door(one) as http:
        async with client(one.ws, jwt) as here, client(another.ws, jwt) as there, client(one.ws, jwt) as other:
            await eventually(lambda: found(http, 3), 60)
            assert await asyncio.to_thread(at_a_terminal, another, one, "n") == 1
            await eventually(lambda: found(http, 3), 60)
            (first, *_) = (await http.get("/connections")).json()["connections"]
            said = await another.run("kick", first["client"], "--url", one.http)
            assert said == (0, f"told every edge to close {first['client']} of user:alice\n", "")
            await eventually(lambda: found(http, 2), 60)
            assert await asyncio.to_thread(at_a_terminal, another, one, "y") == 0
            assert {await here.closed(), await there.closed(), await other.closed()} == {3503}
        who = "operator:root: disconnect user 'alice'"
        assert audited(caplog) == [f"{who}, client '{first['client']}'", who]


def at_a_terminal(another: Another, edge: Running, answer: str) -> int:
    """Send alice away at a terminal, and ``answer`` what it asks; return the exit code."""
    ours, theirs = pty.openpty()
    words = [*PROGRAM, "conns", "kick", "--user", "alice", "--url", edge.http]
    env = ENV | {"GATEWAY_TOKEN": token("root", kind="operator")}
    process = subprocess.Popen(words, cwd=another.place.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        os.write(ours, f"{answer}\n".encode())
        return process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


async def test_what_cannot_be_done_is_said(another: Another) -> None:
    for words, role, code, says in (
        ((), "user", 1, "error: connections are for operators"),
        (("kick", "--user", "user:nobody"), "operator", 1, "nobody is connected as user:nobody"),
        (("kick", "7", "--yes"), "operator", 1, "nobody is connected as 7"),
        (("kick",), "operator", 2, "give either CLIENT or --user"),
    ):
        done, _, said = await another.run(*words, role=role)
        assert (done, says in said) == (code, True), said


def test_the_kept_token_of_an_operator_goes_to_the_edge_that_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEWAY_TOKEN", raising=False)
    config, data = tmp_path / "gateway.toml", tmp_path / ".gateway"
    config.write_text(f'[gateway]\ndata = "{data}"\n')
    data.mkdir()
    (data / "operator.token").write_text("T\n")
    (data / "user.token").write_text("U\n")
    other = "http://127.0.0.1:8124"
    assert find("", None, config, "operator").token == ""
    (data / "up.json").write_bytes(msgspec.json.encode(Up(os.getpid(), "http://127.0.0.1:8123", "", "", "")))
    assert find("", None, config, "operator") == Target("http://127.0.0.1:8123", "T")
    assert find(other, None, config, "operator").token == ""
    assert find(other, None, config).token == "U"


@pytest.mark.parametrize("status", ["308 Permanent Redirect", "200 OK"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"edges": "\xff"}'])
async def test_an_answer_that_is_not_ours_is_said(status: str, body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        edge = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "")
        with pytest.raises(RefusedByEdge, match=f"the edge answered {status[:3]}"):
            await asyncio.to_thread(lambda: read(edge.ask("GET", "/connections", 60), Connected))

"""EventSource clients on the edge: live, resumed exactly wherever they were cut, and told where that is impossible."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncGenerator, Callable

import httpx
import pytest

from gateway import limits
from gateway.adapters.child import Server
from gateway.core.declared import Topic
from tests.gateways import TOPICS, Running, running_edge, token
from tests.journeys.event_source import HANG, OPERATOR, USER, Source, publisher, source
from tests.journeys.steps import step
from tests.servers import Relay, eventually

ALL = "devices/+/telemetry"


async def test_live_events_carry_a_cursor(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, "devices/7/telemetry") as one:
            step("a fresh watcher has a cursor before any event")
            before = one.last_id
            told = await publish("devices/7/telemetry", {"t": 21.5})
            await publish("devices/8/telemetry", 0)
            await eventually(lambda: one.events)
            ((name, shown),) = one.events
            assert name == "message"
            assert shown["data"] == {"t": 21.5}
            assert shown["offset"] == told["offset"]
            assert (shown["tags"]["topic"], shown["tags"]["id"]) == ("devices/7/telemetry", told["id"])
            step("each event moves it")
            place = edge.edge.declared.find("devices/7/telemetry").partition
            assert one.last_id == f"{place}:{told['epoch']}-{told['offset']}" != before
        step("who leaves leaves nothing behind")
        await eventually(lambda: len(edge.edge.fanout) == 0)
        async with httpx.AsyncClient(headers=USER) as http:
            head = await http.head(one.url)
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_one_event_for_all_watchers(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish, contextlib.AsyncExitStack() as stack:
        many = [await stack.enter_async_context(source(edge.port, ALL)) for _ in range(20)]
        before = edge.edge.fanout.encoded
        for n in range(10):
            await publish(f"devices/{n}/telemetry", n)
        await eventually(lambda: all(len(one.events) == 10 for one in many))
        assert edge.edge.fanout.encoded - before == 10
        assert len({one.last_id for one in many}) == 1


@pytest.mark.parametrize("filter", ["devices/7/telemetry", ALL])
async def test_who_was_away_misses_nothing(log_server: str, filter: str) -> None:
    devices = [7] if filter != ALL else list(range(16))
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, filter) as one:
            for device in devices:
                await publish(f"devices/{device}/telemetry", [device, 0])
            await eventually(lambda: len(one.events) == len(devices))
        places = {edge.edge.declared.find(f"devices/{device}/telemetry").partition for device in devices}
        step(f"while it is away, {len(devices)} devices speak in {len(places)} partitions")
        for n in range(1, 4):
            for device in devices:
                await publish(f"devices/{device}/telemetry", [device, n])
                await publish(f"devices/{device}/status", "of no interest")
        step("back with its cursor it has every event once, in the order of each device")
        async with source(edge.port, filter, one.last_id) as back:
            await eventually(lambda: len(back.events) == 3 * len(devices))
            await publish("devices/7/telemetry", "live")
            await eventually(lambda: back.data()[-1] == "live")
            for device in devices:
                assert [n for d, n in back.data()[:-1] if d == device] == [1, 2, 3]
        assert back.names == {"message"}
        step("another edge, which remembers nothing, tells the same")
        async with running_edge(log_server) as other, source(other.port, filter, one.last_id) as again:
            await eventually(lambda: len(again.events) == 3 * len(devices) + 1)
            assert sorted(map(str, again.data())) == sorted(map(str, back.data()))


@pytest.mark.slow
@pytest.mark.parametrize("filter", ["devices/3/telemetry", ALL])
async def test_twenty_cuts_while_events_flow(log_server: str, filter: str) -> None:
    dice = random.Random(20)
    devices = [3] if filter != ALL else list(range(12))
    sent: dict[int, list[int]] = {device: [] for device in devices}
    async with running_edge(log_server) as edge, publisher(edge) as publish, Relay(edge.port) as relay:
        over = False

        async def flow() -> None:
            n = 0
            while not over:
                device = devices[n % len(devices)]
                await publish(f"devices/{device}/telemetry", [device, n, "x" * dice.randrange(2_000)])
                sent[device].append(n)
                n += 1

        async with source(relay.port, filter) as one:
            flowing = asyncio.create_task(flow(), name="flow")
            for cut in range(20):
                seen = len(one.events) + dice.randrange(1, 12)
                await eventually(lambda seen=seen: len(one.events) >= seen, within=HANG)
                connects = one.connects
                relay.cut()
                await eventually(lambda cs=connects: one.connects > cs, within=HANG)
                step(f"cut {cut + 1} at {len(one.events)} events")
            over = True
            await flowing
            total = sum(map(len, sent.values()))
            await eventually(lambda: len(one.events) >= total, within=HANG)
            await publish("devices/3/telemetry", [3, -1, ""])
            sent[3].append(-1)
            await eventually(lambda: one.data()[-1][1] == -1, within=HANG)
        assert one.names == {"message"}
        assert {d: [n for e, n, _ in one.data() if e == d] for d in devices} == sent


async def test_what_comes_while_the_past_is_sent_is_not_skipped(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, "devices/7/telemetry") as one:
            pass
        for n in (1, 2):
            await publish("devices/7/telemetry", n)
        stream = await edge.edge.watch(token("alice"), "devices/7/telemetry", one.last_id)
        assert isinstance(stream, AsyncGenerator)
        back = Source(edge.port, "devices/7/telemetry")

        async def read_until(count: int) -> None:
            while len(back.events) < count:
                for block in (await anext(stream)).split(b"\n\n"):
                    back.take(block)

        async with contextlib.aclosing(stream), asyncio.timeout(HANG):
            await read_until(1)
            step("the watcher has one of two events when a third reaches the edge")
            told = await publish("devices/7/telemetry", 3)
            await edge.edge.readers.feed(place(edge)).reached(told["offset"])
            await read_until(3)
        assert back.data() == [1, 2, 3]


async def test_a_fresh_watcher_has_the_last_values(log_server: str) -> None:
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        for n in range(3):
            for device in range(5):
                await publish(f"devices/{device}/status", [device, n])
        async with source(edge.port, "devices/+/status") as one:
            await eventually(lambda: len(one.events) == 5)
            assert sorted(one.data()) == [[device, 2] for device in range(5)]
            assert all("offset" not in shown for _, shown in one.events), "a last value moves no position"
            await publish("devices/1/status", [1, 3])
            await eventually(lambda: one.data()[-1] == [1, 3])
        step("who comes back has what he missed, and no last values again")
        await publish("devices/2/status", [2, 3])
        async with source(edge.port, "devices/+/status", one.last_id) as back:
            await eventually(lambda: back.events)
            assert back.data() == [[2, 3]]


async def test_who_may_watch(log_server: str) -> None:
    async with running_edge(log_server) as edge:
        for headers, filter, status, code in [
            ({}, "devices/7/telemetry", 401, "bad_token"),
            ({"Authorization": "Basic YTpi"}, "devices/7/telemetry", 401, "bad_token"),
            (OPERATOR, "rooms/1/messages", 403, "denied"),
            (USER, "users/bob/inbox", 403, "denied"),
            (USER, "users/+/inbox", 403, "denied"),
            (USER, "#", 403, "denied"),
            (USER, "nothing/+", 404, "unknown_topic"),
            (USER, "devices/#/x", 400, "bad_topic"),
            ({**USER, "Origin": "https://evil.example"}, "devices/7/telemetry", 403, "denied"),
        ]:
            step(f"{filter}: {status} {code}")
            async with source(edge.port, filter, headers=headers) as one:
                assert one.refused is not None
                assert one.refused.status_code == status
                assert one.refused.headers["content-type"] == "application/problem+json"
                assert one.refused.json()["type"] == f"urn:topic-gateway:{code}"
        async with source(edge.port, "users/alice/inbox") as own:
            assert own.refused is None


async def test_text_and_bytes_are_shown_for_what_they_are(log_server: str) -> None:
    topics = (*TOPICS, Topic(pattern="notes/{note}", payload="text", write=("operator",), read=("anyone",)))
    async with running_edge(log_server, topics) as edge, publisher(edge) as publish:
        async with source(edge.port, "#", headers=OPERATOR) as everything:
            assert everything.refused is not None, "not all of it is an operator's to read"
        async with source(edge.port, "notes/1") as notes, source(edge.port, "try/x") as tries:
            text = "süß\r\n\n\u2028 data: x\n\nid: forged\x00"
            await publish("notes/1", content=text.encode())
            await publish("try/x", content=b"\x00\xff\n\n")
            await publish("try/x", content=b"\xff\xfe", headers={"Content-Type": "text/csv"})
            await publish("try/x", content=b"a,b", headers={"Content-Type": "text/csv; charset=utf-8"})
            await eventually(lambda: notes.events and len(tries.events) == 3)
            ((_, note),) = notes.events
            assert (note["data"], note["tags"]["content_type"]) == (text, "text/plain")
            assert "forged" not in notes.last_id
            shown = [(e["data"], e["tags"]["content_type"], e["tags"].get("encoding")) for _, e in tries.events]
            assert shown == [
                ("AP8KCg==", "application/octet-stream", "base64"),
                ("//4=", "application/octet-stream", "base64"),
                ("a,b", "text/csv", None),
            ]


async def test_what_is_not_kept_has_a_name_of_its_own(log_server: str) -> None:
    async with running_edge(log_server) as edge, httpx.AsyncClient(base_url=edge.http, headers=USER) as http:
        async with source(edge.port, "rooms/1/typing") as one:
            before = one.last_id
            assert (await http.post("/topics/rooms/1/typing", json={"who": "bob"})).status_code == 201
            await eventually(lambda: one.events)
            ((name, shown),) = one.events
            assert (name, shown["data"]) == ("live", {"who": "bob"})
            assert one.last_id == before


async def test_comments_keep_a_quiet_stream_open(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SSE_COMMENT_EVERY", 0.05)
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        async with source(edge.port, "devices/7/telemetry") as one:
            await eventually(lambda: one.comments >= 3)
            await publish("devices/7/telemetry", 1)
            await eventually(lambda: one.data() == [1])
            assert one.connects == 1


@pytest.mark.slow
async def test_a_watcher_who_does_not_read_is_cut_and_resumes(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_WITHIN", 1.0)
    async with running_edge(log_server) as edge, publisher(edge) as publish:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", edge.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4_096)
        head = (
            f"GET /topics/devices%2F7%2Ftelemetry/events HTTP/1.1\r\nHost: x\r\nAuthorization: {USER['Authorization']}"
        )
        writer.write(f"{head}\r\n\r\n".encode())
        await eventually(lambda: len(edge.edge.fanout) == 1)
        async with source(edge.port, "devices/7/telemetry") as other:
            step("a megabyte for a watcher who does not read")
            for n in range(32):
                await publish("devices/7/telemetry", [n, "x" * 32_000])
            step("he leaves fan-out, and his connection is cut; the other one missed nothing")
            await eventually(lambda: len(other.events) == 32, within=HANG)
            await eventually(lambda: sum(len(list(i)) for i in edge.edge.fanout.of(place(edge))) == 1, within=HANG)
        said = b""
        async with asyncio.timeout(HANG):
            with contextlib.suppress(ConnectionResetError):
                while more := await reader.read(65_536):
                    said += more
        writer.transport.abort()
        slow = Source(edge.port, "devices/7/telemetry")
        for block in unchunked(said).split(b"\n\n")[:-1]:
            slow.take(block)
        assert 0 < len(slow.events) < 32
        step(f"he had read {len(slow.events)} events, and resumes after them")
        async with source(edge.port, "devices/7/telemetry", slow.last_id) as back:
            await eventually(lambda: len(slow.events) + len(back.events) == 32, within=HANG)
            assert [n for n, _ in slow.data() + back.data()] == list(range(32))
        count = edge.edge.metrics_of.registry.get_sample_value
        await eventually(lambda: count("gateway_slow_closes_total") == 1, within=HANG)
        assert count("gateway_resumes_total", {"recovered": "yes", "reason": ""}) == 1


def place(edge: Running) -> str:
    return edge.edge.declared.find("devices/7/telemetry").partition


def unchunked(response: bytes) -> bytes:
    """The body of a chunked response that may have been cut anywhere (RFC 9112, 7.1)."""
    rest = response.partition(b"\r\n\r\n")[2]
    body = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


async def test_a_stopping_edge_ends_its_streams(log_server: str) -> None:
    async with running_edge(log_server) as edge, running_edge(log_server) as other, publisher(other) as publish:
        async with source(edge.port, "devices/7/telemetry") as one, source(edge.port, ALL) as two:
            step("each stream ends with a last chunk: not an error, a reason to come back")
            edge.stop.set()
            await eventually(lambda: one.clean_ends == two.clean_ends == 1, within=HANG)
        await publish("devices/7/telemetry", 1)
        step("and goes on elsewhere")
        async with source(other.port, ALL, two.last_id) as back:
            await eventually(lambda: back.data() == [1])


@pytest.mark.slow
async def test_a_log_server_restarted_under_a_watcher(fresh_log_server: Callable[..., Server]) -> None:
    server = fresh_log_server()
    async with running_edge(server.url) as edge, publisher(edge) as publish:
        async with source(edge.port, ALL) as one:
            for n in range(20):
                await publish(f"devices/{n}/telemetry", n)
            await eventually(lambda: len(one.events) == 20)
            step("killed and started again: a new epoch, and no event lost")
            server.kill()
            server.start()
            async with asyncio.timeout(HANG):
                await edge.log.wait_up()
            for n in range(20, 40):
                await publish(f"devices/{n}/telemetry", n)
            await eventually(lambda: len(one.events) >= 40, within=HANG)
            assert one.names == {"message"}
            assert sorted(one.data()) == list(range(40))

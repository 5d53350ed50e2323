"""History and last values: by WebSocket and by HTTP, from memory and from the log, and who may ask."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway import limits
from gateway.core.access import Principal
from gateway.core.declared import Topic
from gateway.core.event import Publication
from tests.contracts.sockets import ROOM, Socket, command, socket
from tests.gateways import TOPICS, Running, running_edge, token
from tests.servers import eventually

ROOT = Principal("operator", "root")
DEVICE = "devices/7/telemetry"


async def publish(edge: Running, topic: str, *values: Any) -> None:
    for value in values:
        await edge.edge.publisher.publish(ROOT, Publication(topic, json.dumps(value).encode(), "http"))


async def history(one: Socket, channel: str, **params: Any) -> dict[str, Any]:
    reply = await one.ask(command(9, "history", channel=channel, **params))
    assert "history" in reply, reply
    result: dict[str, Any] = reply["history"]
    return result


def values(result: dict[str, Any]) -> list[Any]:
    return [publication["data"] for publication in result["publications"]]


async def get(edge: Running, path: str, *, sub: str = "alice", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=edge.http) as http:
        return await http.get(path, headers={"Authorization": f"Bearer {token(sub)}", **headers})


@pytest.fixture(params=["memory", "chain", "pages"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the past is found: the window, one key's chain, or page by page."""
    if request.param != "memory":
        monkeypatch.setattr(limits, "WINDOW_ENTRIES", 3)
        monkeypatch.setattr(limits, "LOG_PAGE", 4)
    if request.param == "pages":
        monkeypatch.setattr(limits, "WALK_EVENTS", 2)
    return str(request.param)


# --- by WebSocket ---


async def test_history_both_ways_and_in_parts(memory: str, log_url: str) -> None:
    async with running_edge(log_url) as edge, socket(edge) as one:
        # Two topics of one key, so that one has to be told from the other.
        for n in range(12):
            await publish(edge, DEVICE, n)
            await publish(edge, "devices/7/status", f"of {n}")
        everything = await history(one, DEVICE, limit=-1)
        assert values(everything) == list(range(12))
        at = [{"offset": p["offset"], "epoch": everything["epoch"]} for p in everything["publications"]]
        assert everything["offset"] == at[-1]["offset"] + 1
        assert values(await history(one, DEVICE, limit=5)) == [0, 1, 2, 3, 4]
        assert values(await history(one, DEVICE, limit=3, since=at[4])) == [5, 6, 7]
        assert values(await history(one, DEVICE, limit=-1, since=at[9])) == [10, 11]
        assert values(await history(one, DEVICE, limit=-1, since=at[11])) == []
        assert values(await history(one, DEVICE, limit=2, reverse=True)) == [11, 10]
        assert values(await history(one, DEVICE, limit=-1, reverse=True)) == list(range(11, -1, -1))
        assert values(await history(one, DEVICE, limit=3, since=at[4], reverse=True)) == [3, 2, 1]
        assert values(await history(one, DEVICE, limit=3, since=at[0], reverse=True)) == []
        both = await history(one, "devices/7/+", limit=4)
        assert values(both) == [0, "of 0", 1, "of 1"]


async def test_limit_0_asks_for_the_position_alone(edge: Running) -> None:
    await publish(edge, ROOM, 1, 2)
    async with socket(edge) as one:
        result = await history(one, ROOM)
        assert result.keys() == {"publications", "epoch", "offset"}, "empty ones are there too"
        assert result["publications"] == []
        subscribed = await one.ask(command(3, "subscribe", channel=ROOM))
        assert (subscribed["subscribe"]["epoch"], subscribed["subscribe"]["offset"]) == (
            result["epoch"],
            result["offset"],
        )


async def test_an_answer_is_bounded(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await publish(edge, ROOM, *("x" * 1_000 for _ in range(10)))
    async with socket(edge) as one:
        monkeypatch.setattr(limits, "HISTORY_BYTES", 3_000)
        assert len(values(await history(one, ROOM, limit=-1))) == 2
        monkeypatch.setattr(limits, "HISTORY_BYTES", 1)
        assert len(values(await history(one, ROOM, limit=-1))) == 1, "or nobody would ever pass it"
        answer = (await get(edge, f"/topics/{ROOM}/history")).json()
        assert len(answer["publications"]) == 1
        monkeypatch.setattr(limits, "HISTORY_BYTES", 100_000)
        monkeypatch.setattr(limits, "HISTORY_EVENTS", 4)
        assert len(values(await history(one, ROOM, limit=9))) == 4


async def test_what_lies_too_far_is_refused_and_not_left_out(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_ENTRIES", 1)
    monkeypatch.setattr(limits, "WALK_EVENTS", 1)
    monkeypatch.setattr(limits, "LOG_PAGE", 2)
    monkeypatch.setattr(limits, "HISTORY_PAGES", 2)
    async with running_edge(log_url) as edge, socket(edge) as one:
        await publish(edge, "devices/7/status", *range(9))
        await publish(edge, DEVICE, 1)
        await publish(edge, "devices/7/status", *range(9))
        await publish(edge, DEVICE, 2)
        for reverse in (False, True):
            reply = await one.ask(command(2, "history", channel=DEVICE, limit=2, reverse=reverse))
            assert reply["error"]["code"] == 106


async def test_a_position_that_is_gone_is_said_to_be(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WINDOW_ENTRIES", 1)
    async with running_edge(log_url) as edge, socket(edge) as one:
        await publish(edge, ROOM, *range(6))
        top = await history(one, ROOM)
        (place,) = edge.edge.declared.places(edge.edge.declared.meeting(ROOM))
        for since in (
            {"offset": 3, "epoch": "12"},
            {"offset": 3, "epoch": "other"},
            {"offset": top["offset"] + 5, "epoch": top["epoch"]},
        ):
            reply = await one.ask(command(2, "history", channel=ROOM, limit=5, since=since))
            assert reply["error"]["code"] == 112, since
        await edge.log._links.own.ask("XTRIM", f"{{{place}}}", "MAXLEN", 3)
        gone = await one.ask(command(2, "history", channel=ROOM, limit=5, since={"offset": 1, "epoch": top["epoch"]}))
        assert gone["error"]["code"] == 112
        assert values(await history(one, ROOM, limit=5)) == [3, 4, 5], "without a position: what is there"
        unclaimed = await history(one, ROOM, limit=5, since={"offset": 0, "epoch": ""})
        assert values(unclaimed) == [3, 4, 5]
        assert values(await history(one, ROOM, limit=5, reverse=True)) == [5, 4, 3]


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("rooms/1/typing", 108),
        ("rooms/+/messages", 108),
        ("secret/7", 108),
        ("users/bob/inbox", 103),
        ("users/+/inbox", 103),
        ("nowhere", 102),
    ],
)
async def test_who_may_ask_for_history(channel: str, code: int, log_url: str) -> None:
    topics = (*TOPICS, Topic(pattern="secret/{n}", read=("user",), write=("user",), history=False))
    async with running_edge(log_url, topics) as edge:
        async with socket(edge) as one:
            reply = await one.ask(command(2, "history", channel=channel, limit=1))
            assert reply["error"]["code"] == code
        status = {108: 404, 103: 403, 102: 404}[code]
        path = channel.replace("+", "%2B")
        assert (await get(edge, f"/topics/{path}/history")).status_code == status


# --- by HTTP ---


async def test_history_over_http(edge: Running) -> None:
    await publish(edge, ROOM, "a", "b", "c")
    first = await get(edge, f"/topics/{ROOM}/history?limit=2")
    assert first.status_code == 200
    answer = first.json()
    assert answer["topic"] == ROOM
    assert values(answer) == ["a", "b"]
    assert first.headers["event-position"] == f"{answer['epoch']}-{answer['offset']}"
    since = f"{answer['epoch']}-{answer['publications'][-1]['offset']}"
    rest = await get(edge, f"/topics/{ROOM}/history?since={since}")
    assert values(rest.json()) == ["c"]
    assert values((await get(edge, f"/topics/{ROOM}/history?reverse=true&limit=1")).json()) == ["c"]
    again = await get(edge, f"/topics/{ROOM}/history?limit=2", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    await publish(edge, ROOM, "d")

    async def newer() -> bool:  # the tail may be a moment behind what was acknowledged
        answer = await get(edge, f"/topics/{ROOM}/history", **{"If-None-Match": first.headers["etag"]})
        return answer.status_code == 200 and values(answer.json()) == ["a", "b", "c", "d"]

    await eventually(newer)
    gone = await get(edge, f"/topics/{ROOM}/history?since=12-3")
    assert (gone.status_code, gone.json()["type"]) == (410, "urn:topic-gateway:unrecoverable_position")


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-2", "limit=99999", "limit=²", "since=x", "since=1-x", "since=1", "reverse=1", "a=b"]
)
async def test_a_wrong_question_is_refused(edge: Running, query: str) -> None:
    assert (await get(edge, f"/topics/{ROOM}/history?{query}")).status_code == 400


async def test_the_last_value(edge: Running) -> None:
    path = "/topics/devices/7/status"
    none = await get(edge, path)
    assert (none.status_code, none.json()["type"]) == (404, "urn:topic-gateway:no_value")
    await publish(edge, "devices/7/status", {"on": False}, {"on": True})
    last = await get(edge, path)
    assert last.json() == {"on": True}
    assert last.headers["content-type"] == "application/json"
    assert last.headers["event-id"]
    assert last.headers["etag"] == f'"{last.headers["event-position"]}"'
    assert last.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in last.headers["content-security-policy"]
    assert (await get(edge, path, **{"If-None-Match": last.headers["etag"]})).status_code == 304
    await publish(edge, "devices/7/status", {"on": 2})
    newer = await get(edge, path, **{"If-None-Match": last.headers["etag"]})
    assert (newer.status_code, newer.json()) == (200, {"on": 2})
    await edge.edge.publisher.publish(ROOT, Publication("devices/7/status", b"", "http"))
    assert (await get(edge, path)).status_code == 404, "an empty payload clears it"


@pytest.mark.parametrize(
    ("topic", "status"), [(ROOM, 404), ("devices/%2B/status", 404), ("users/bob/inbox", 403), ("nowhere", 404)]
)
async def test_who_has_a_last_value(edge: Running, topic: str, status: int) -> None:
    assert (await get(edge, f"/topics/{topic}")).status_code == status


async def test_a_value_comes_as_it_was_published(log_url: str) -> None:
    topics = (Topic(pattern="files/{n}", read=("user",), write=("user",), payload="bytes", retain=True),)
    async with running_edge(log_url, topics) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        for kind, told in (("text/html", "text/html"), ("image/ü", "application/octet-stream")):
            headers = {"Authorization": f"Bearer {token()}", "Content-Type": kind, "Event-Id": f"ü-{kind}"}
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            assert (await http.post("/topics/files/1", content=b"<b>\xff", headers=raw)).status_code == 201
            last = await get(edge, "/topics/files/1")
            assert last.content == b"<b>\xff"
            assert last.headers["content-type"] == (told if kind == "image/ü" else "application/octet-stream")
            assert last.headers["event-id"].isascii()

"""The Centrifugal client protocol as this edge speaks it: what is answered, what is refused, what is recovered."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import limits
from gateway.adapters.embedded import valkey
from gateway.core.access import Principal
from gateway.core.event import Publication
from gateway.errors import ServerMissing
from tests.contracts.sockets import ROOM, Reply, command, expired_token, socket
from tests.gateways import Running, client, running_edge, token
from tests.servers import eventually, missing

ROOT = Principal("operator", "root")


# --- what is answered ---


async def test_the_connect_reply(edge: Running) -> None:
    async with socket(edge, connected=False) as one:
        reply = await one.ask(command(7, "connect", token=token(), name="js", data={"any": 1}, subs={}))
        assert reply["id"] == 7
        result = reply["connect"]
        assert result.keys() == {"client", "version", "ping", "pong", "expires", "ttl"}
        assert result["client"]
        assert result["version"], "an SDK refuses an empty version"
        assert (result["ping"], result["pong"]) == (25, True)
        assert result["expires"] is True
        assert 3590 <= result["ttl"] <= 3600, "the SDK gets another token then"


async def test_results_carry_their_key_and_leave_out_what_is_empty(edge: Running) -> None:
    async with socket(edge) as one:
        subscribed = await one.ask(command(2, "subscribe", channel=ROOM, flag=1))
        result = subscribed["subscribe"]
        assert result.keys() - {"offset"} == {"recoverable", "positioned", "epoch"}
        assert result["epoch"].isdigit()
        await one.say(command(3, "publish", channel=ROOM, data={"text": "hi"}))
        answers = [await one.hear(), await one.hear()]
        assert {"id": 3, "publish": {}} in answers
        (push,) = [answer["push"] for answer in answers if "push" in answer]
        assert push.keys() == {"channel", "pub"}
        assert push["pub"].keys() == {"data", "tags", "offset"}
        assert push["pub"]["tags"].keys() == {"id", "topic", "ts"}
        assert await one.ask(command(4, "unsubscribe", channel=ROOM)) == {"id": 4, "unsubscribe": {}}
        assert await one.ask(command(5, "unsubscribe", channel="never/was")) == {"id": 5, "unsubscribe": {}}


async def test_what_is_not_kept_has_no_position(edge: Running) -> None:
    async with socket(edge) as one:
        assert await one.ask(command(2, "subscribe", channel="rooms/1/typing")) == {"id": 2, "subscribe": {}}
        await one.say(command(3, "publish", channel="rooms/1/typing", data="alice"))
        answers = [await one.hear(), await one.hear()]
        (push,) = [answer["push"] for answer in answers if "push" in answer]
        assert "offset" not in push["pub"]


async def test_bytes_come_as_base64_and_say_so(edge: Running) -> None:
    async with socket(edge) as one:
        await one.ask(command(2, "subscribe", channel="try/bytes"))
        async with httpx.AsyncClient() as http:
            headers = {"Authorization": f"Bearer {token()}", "Content-Type": "image/png"}
            await http.post(f"{edge.http}/topics/try/bytes", content=b"\x00\xff\n", headers=headers)
        pub = (await one.hear())["push"]["pub"]
        assert pub["data"] == b64encode(b"\x00\xff\n").decode()
        assert (pub["tags"]["content_type"], pub["tags"]["encoding"]) == ("image/png", "base64")


async def test_many_commands_in_one_frame(edge: Running) -> None:
    async with socket(edge, connected=False) as one:
        commands = [
            command(1, "connect", token=token()),
            command(2, "subscribe", channel=ROOM),
            command(3, "subscribe", channel="devices/7/#"),
            command(4, "rpc", method="explain", data={"topic": ROOM}),
            command(5, "publish", channel="try/it", data=1),
        ]
        await one.say("\n".join(json.dumps(each) for each in commands) + "\n")
        answers = {(answer := await one.hear())["id"]: answer for _ in commands}
        assert [list(answers[n])[1] for n in (1, 2, 3, 4, 5)] == ["connect", "subscribe", "subscribe", "rpc", "publish"]
        assert one.frames >= 1


async def test_every_subscribe_is_answered(edge: Running) -> None:
    """An SDK waits for it, and after five seconds gives the whole connection up."""
    async with socket(edge) as one:
        await one.say(
            json.dumps(command(2, "subscribe", channel=ROOM))
            + "\n"
            + json.dumps(command(3, "unsubscribe", channel=ROOM))
            + "\n"
            + json.dumps(command(4, "subscribe", channel=ROOM))
        )
        answers = {(answer := await one.hear())["id"]: answer for _ in range(3)}
        assert answers[2]["error"]["temporary"] is True
        assert answers[3]["unsubscribe"] == {}
        assert answers[4]["subscribe"]["recoverable"] is True


# --- what is refused ---

DEEP = "[" * limits.JSON_DEPTH + "]" * limits.JSON_DEPTH

#: name: (frame after the connect, code of the error, words of its message)
REFUSED: dict[str, tuple[str | dict[str, Any], int, str]] = {
    "unknown topic": (command(2, "subscribe", channel="nowhere"), 102, "nowhere"),
    "unknown topic to publish": (command(2, "publish", channel="nowhere", data=1), 102, "nowhere"),
    "another's topic": (command(2, "subscribe", channel="users/bob/inbox"), 103, "users/{user}/inbox"),
    "a filter over others' topics": (command(2, "subscribe", channel="users/+/inbox"), 103, "users/{user}/inbox"),
    "a filter of which a part is denied": (command(2, "subscribe", channel="users/#"), 103, "users/{user}/inbox"),
    "no right to write": (command(2, "publish", channel="users/alice/inbox", data=1), 103, "users/{user}/inbox"),
    "publish to a filter": (command(2, "publish", channel="rooms/+/messages", data=1), 107, "filter"),
    "no filter": (command(2, "subscribe", channel="rooms/#/messages"), 107, "#"),
    "an empty channel": (command(2, "subscribe"), 107, "empty"),
    "a control character": (command(2, "subscribe", channel="rooms/\n/messages"), 107, "control"),
    "a channel of 300 bytes": (command(2, "subscribe", channel="rooms/" + "x" * 300), 107, "255"),
    "another type of subscription": (command(2, "subscribe", channel=ROOM, type=4), 108, "type"),
    "join and leave": (command(2, "subscribe", channel=ROOM, join_leave=True), 108, "join_leave"),
    "presence": (command(2, "presence", channel=ROOM), 108, ""),
    "presence of a filter": (command(2, "presence", channel="rooms/#"), 108, ""),
    "presence_stats": (command(2, "presence_stats", channel=ROOM), 108, ""),
    "history of what is not kept": (command(2, "history", channel="rooms/1/typing", limit=10), 108, "history"),
    "refresh without a token": (command(2, "refresh"), 107, "token"),
    "sub_refresh": (command(2, "sub_refresh", channel=ROOM, token="x"), 103, ""),
    "an unknown rpc": (command(2, "rpc", method="levitate", data={}), 104, "levitate"),
    "an rpc without its argument": (command(2, "rpc", method="publish"), 107, "argument"),
    "twins in a payload": (
        '{"id":2,"publish":{"channel":"rooms/1/messages","data":{"a":1,"a":2}}}',
        107,
        "twice",
    ),
    "twins in an rpc": (
        '{"id":2,"rpc":{"method":"publish","data":{"topic":"rooms/1/messages","topic":"try/a","data":1}}}',
        107,
        "twice",
    ),
    "a payload one level too deep": (
        f'{{"id":2,"publish":{{"channel":"rooms/1/messages","data":[{DEEP}]}}}}',
        107,
        "deep",
    ),
    "a payload too large": (command(2, "publish", channel=ROOM, data="x" * limits.PAYLOAD_BYTES), 106, "bytes"),
    "an unknown position, strictly": (
        command(2, "subscribe", channel=ROOM, recover=True, epoch="1", offset=1, flag=2),
        112,
        "position",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_with_an_error_that_says_why(edge: Running, name: str) -> None:
    frame, code, words = REFUSED[name]
    async with socket(edge) as one:
        await one.say(frame)
        reply = await one.hear()
        assert (reply["id"], reply["error"]["code"]) == (2, code)
        assert words in reply["error"]["message"]
        assert len(reply["error"]["message"]) > 10
        assert "temporary" not in reply["error"]
        # And nothing else is harmed.
        assert "subscribe" in await one.ask(command(3, "subscribe", channel=ROOM))


async def test_subscribed_twice(edge: Running) -> None:
    async with socket(edge) as one:
        await one.ask(command(2, "subscribe", channel=ROOM))
        assert (await one.ask(command(3, "subscribe", channel=ROOM)))["error"]["code"] == 105


async def test_too_many_subscriptions(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SUBSCRIPTIONS", 2)
    async with socket(edge) as one:
        for n in (2, 3):
            assert "subscribe" in await one.ask(command(n, "subscribe", channel=f"rooms/{n}/messages"))
        assert (await one.ask(command(4, "subscribe", channel="rooms/4/messages")))["error"]["code"] == 106
        await one.ask(command(5, "unsubscribe", channel="rooms/2/messages"))
        assert "subscribe" in await one.ask(command(6, "subscribe", channel="rooms/4/messages"))


async def test_too_many_commands_wait(edge: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENT_PENDING", 3)
    async with socket(edge) as one:
        await one.say("\n".join(json.dumps(command(n, "publish", channel=ROOM, data=n)) for n in range(2, 12)))
        answers = [await one.hear() for _ in range(10)]
        refused = [answer["error"] for answer in answers if "error" in answer]
        assert len(refused) == 7
        assert {(error["code"], error["temporary"]) for error in refused} == {(111, True)}


async def test_anexpired_token_may_be_followed_by_a_good_one(edge: Running) -> None:
    old = expired_token()
    async with socket(edge, connected=False) as one:
        assert (await one.ask(command(1, "connect", token=old)))["error"]["code"] == 109
        assert "connect" in await one.ask(command(2, "connect", token=token()))


# --- payloads and watchers ---


async def test_a_pretty_payload_harms_no_watcher(edge: Running) -> None:
    pretty = '{\r\n  "text": "a\\nb",\n  "list": [\n1,\n2]\r}'
    async with socket(edge) as one, socket(edge) as other:
        await one.ask(command(2, "subscribe", channel=ROOM))
        await other.ask(command(2, "subscribe", channel="rooms/+/messages"))
        async with httpx.AsyncClient() as http:
            headers = {"Authorization": f"Bearer {token()}"}
            stored = await http.post(f"{edge.http}/topics/{ROOM}", content=pretty.encode(), headers=headers)
            assert stored.status_code == 201
        for each in (one, other):
            assert (await each.hear())["push"]["pub"]["data"] == {"text": "a\nb", "list": [1, 2]}
        await one.say('{"id":3,"publish":{"channel":"rooms/1/messages","data":{"text":\r"c"}}}')
        said = [await one.hear(), await one.hear()]
        assert [s["push"]["pub"]["data"] for s in said if "push" in s] == [{"text": "c"}]


async def test_a_payload_as_deep_as_json_may_be(edge: Running) -> None:
    async with socket(edge) as one:
        await one.say(f'{{"id":2,"publish":{{"channel":"{ROOM}","data": {DEEP}}}}}')
        assert await one.hear() == {"id": 2, "publish": {}}


# --- recovery ---


async def _publish(edge: Running, topic: str, count: int) -> None:
    publish = edge.edge.publisher.publish
    await asyncio.gather(*(publish(ROOT, Publication(topic, b"%d" % n, "http")) for n in range(count)))


def _nowhere(at: Reply) -> Reply:
    return {"epoch": "99", "offset": at["offset"]}


#: name: a position made from a good one
UNKNOWN: dict[str, Callable[[Reply], Reply]] = {
    "an epoch that never was": _nowhere,
    "no epoch": lambda at: {"offset": at["offset"]},
    "an epoch that is no number": lambda at: {"epoch": "abc", "offset": at["offset"]},
    "an epoch in other digits": lambda at: {"epoch": "١٢", "offset": at["offset"]},
    "an offset beyond the top": lambda at: {"epoch": at["epoch"], "offset": at["offset"] + 10**12},
    "a negative offset": lambda at: {"epoch": at["epoch"], "offset": -1},
}


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_position_is_told_at_once(edge: Running, name: str) -> None:
    telemetry = "devices/7/telemetry"
    await _publish(edge, telemetry, 3)
    async with socket(edge) as one:
        at = (await one.ask(command(2, "subscribe", channel=telemetry)))["subscribe"]
        await one.ask(command(3, "unsubscribe", channel=telemetry))
        back = (await one.ask(command(4, "subscribe", channel=telemetry, recover=True, **UNKNOWN[name](at))))[
            "subscribe"
        ]
        assert back == {**at, "was_recovering": True}, "not recovered, and the position is the top"


async def test_a_position_of_the_newest_epoch_before_its_first_offset(tmp_path: Path) -> None:
    """A paged recovery tells the newest epoch first; a client cut in the middle comes back with it."""
    try:
        server = valkey(tmp_path)
    except ServerMissing as error:
        missing(error)
    telemetry, count = "devices/7/telemetry", limits.WALK_EVENTS + 200
    with server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "WINDOW_ENTRIES", 10)
        patch.setattr(limits, "DRAIN_WITHIN", 0.2)
        async with running_edge(server.url) as edge:
            async with client(edge.ws, token()) as one:
                at = (await one.ask("subscribe", channel=telemetry))["subscribe"]
            await _publish(edge, telemetry, count)
            server.kill()
            await eventually(lambda: edge.log.state == "down")
            server.start()
            await eventually(lambda: edge.log.state == "up", within=30)
            async with client(edge.ws, token()) as one:
                new = (await one.ask("subscribe", channel=telemetry))["subscribe"]
                assert int(new["epoch"]) > int(at["epoch"])
                await one.ask("unsubscribe", channel=telemetry)
                where = {"epoch": new["epoch"], "offset": at.get("offset", 0)}
                back = (await one.ask("subscribe", channel=telemetry, recover=True, **where))["subscribe"]
                assert back["recovered"] is True
                # Pages follow: its publications move the client on, the reply does not.
                assert back.get("offset", 0) == where["offset"]
                inside = [pub["data"] for pub in back["publications"]]
                pushes = await one.until(count - len(inside))
                assert inside + [push["pub"]["data"] for push in pushes] == list(range(count))


async def test_a_reader_that_nobody_needs_ends_and_comes_back(log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READER_IDLE", 0.1)
    telemetry = "devices/7/telemetry"
    async with running_edge(log_url) as edge, socket(edge) as one:
        readers = edge.edge.metrics_of.registry.get_sample_value
        for id in (10, 20):
            at = (await one.ask(command(id, "subscribe", channel=telemetry)))["subscribe"]
            await _publish(edge, telemetry, 1)
            assert (await one.hear())["push"]["pub"]["offset"] == at.get("offset", 0) + 1
            await one.ask(command(id + 1, "unsubscribe", channel=telemetry))
            await eventually(lambda: readers("gateway_readers") == 0)

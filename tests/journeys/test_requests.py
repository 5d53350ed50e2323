"""A request and its reply: whoever asks hears what the service returned, or where his request stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from gateway import limits
from gateway.adapters.child import Server
from gateway.adapters.log import Reply
from gateway.core.event import ASKED, Position
from tests.gateways import client, token
from tests.journeys.shop import HANG, Counter, Door, door, working
from tests.journeys.steps import step
from tests.journeys.test_http import problem
from tests.servers import eventually


async def played(at: Door, id: str, reply: Reply) -> None:
    """Answer as a service would."""
    log = at.edge.log
    await log.replies.send(at.edge.edge.declared.find("shop/orders/7/reserve").partition, id, reply)


async def asked(at: Door) -> list[str]:
    """The ids of all requests in the log."""
    log, found = at.edge.log, at.edge.edge.declared.find("shop/orders/7/reserve")
    page = await log.read(found.partition, Position(0, 0), 1_000)
    return [record.event.id for record in page.records if record.event.meta.reply_to == ASKED]


def unanswered(answer: httpx.Response) -> str:
    told = problem(answer, 504, "no_reply")
    assert told["event_id"] == answer.headers["event-id"]
    assert f"event {told['event_id']} at " in told["detail"]
    return str(told["event_id"])


# --- over HTTP ---


async def test_whoever_waits_hears_what_the_handler_returned(log_server: str) -> None:
    counter = Counter()
    async with door(log_server) as at, working(log_server, counter):
        step("a publish that waits is answered with what the handler returned")
        answer = await at.ask("tea", n=1)
        assert (answer.status_code, answer.json()) == (200, {"order": "7", "n": 1})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert counter.ran == [answer.headers["event-id"]]
        step("a handler that returns nothing is answered too")
        assert (await at.ask("nothing")).json() is None
        step("a publish that does not wait is what it was, and nothing is kept for it")
        answer = await at.ask("tea", wait=None)
        assert answer.status_code == 201
        await eventually(lambda: counter.ran[-1:] == [answer.json()["id"]])
        place = at.edge.edge.declared.find("shop/orders/7/reserve").partition
        assert await at.edge.log.replies.stored(place, answer.json()["id"]) is None
        assert at.waiting == 0


async def test_fifty_at_once_each_hear_their_own(log_server: str) -> None:
    async with door(log_server) as at, working(log_server, Counter()):
        answers = await asyncio.gather(*(at.ask("tea", n=n) for n in range(50)))
        assert [answer.json()["n"] for answer in answers] == list(range(50))


async def test_what_goes_wrong_is_told_with_its_word(log_server: str) -> None:
    async with door(log_server) as at, working(log_server, Counter()):
        step("rejected on purpose: 422 and the reason")
        told = problem(await at.ask("coffee"), 422, "rejected")
        assert "we sell tea" in told["detail"]
        step("not what the handler takes: 422")
        answer = await at.http.post("/topics/shop/orders/7/reserve", params={"wait": "20s"}, json={"item": 1})
        problem(answer, 422, "schema")
        step("a service that fails: 502, and no word of why for strangers")
        answer = await at.ask("poison")
        told = problem(answer, 502, "gave_up")
        assert "swordfish" not in answer.text
        assert told["event_id"] in told["detail"]
        letters = [one for place in at.edge.log.partitions() for _, one in await at.edge.log.dead(place)]
        assert "swordfish" in next(one.error for one in letters if one.id == told["event_id"])


async def test_a_repeat_with_its_key_is_answered_and_not_done_again(log_server: str) -> None:
    counter = Counter()
    async with door(log_server) as at, door(log_server) as other, working(log_server, counter):
        first = await at.ask("tea", "k")
        step("the same request again, at this edge and at another: the same reply, and the handler ran once")
        for again in (await at.ask("tea", "k"), await other.ask("tea", "k"), await other.ask("tea", "k", wait="0s")):
            assert (again.status_code, again.content) == (200, first.content)
            assert again.headers["event-id"] == first.headers["event-id"]
        problem(await at.ask("coffee", "k"), 422, "idempotency_key_reused")
        step("an error is repeated too")
        for _ in range(2):
            problem(await other.ask("coffee", "k2"), 422, "rejected")
        step("somebody else's key is another request")
        assert (await at.ask("tea", "k", who="bob")).headers["event-id"] != first.headers["event-id"]
        assert len(counter.ran) == 3
        step("ten at once with one key, at two edges: one request")
        many = await asyncio.gather(*((at, other)[n % 2].ask("tea", "k3") for n in range(10)))
        assert len({(answer.status_code, answer.content, answer.headers["event-id"]) for answer in many}) == 1
        assert len(counter.ran) == 4


async def test_a_request_that_is_still_running_is_waited_for_again(log_server: str) -> None:
    counter = Counter()
    async with door(log_server) as at, door(log_server) as other, working(log_server, counter):
        step("the handler takes longer than the client waits: 504 with where it stands and how to ask again")
        first = await at.ask("slow", "k", wait="100ms")
        id = unanswered(first)
        assert "same idempotency key" in first.json()["detail"]
        step("it asks again while the handler runs, at both edges")
        again = [asyncio.create_task(one.ask("slow", "k"), name="again") for one in (at, other)]
        await eventually(lambda: at.waiting == 1 and other.waiting == 1)
        counter.gate.set()
        for answer in await asyncio.gather(*again):
            assert (answer.status_code, answer.headers["event-id"]) == (200, id)
        assert counter.ran == [id]


async def test_a_service_that_comes_later_answers_the_repeat(log_server: str) -> None:
    async with door(log_server) as at:
        step("no service is there")
        answer = await at.ask("tea", wait="50ms")
        assert "send an idempotency key" in answer.json()["detail"]
        unanswered(answer)
        id = unanswered(await at.ask("tea", "k", wait="50ms"))
        waiting = asyncio.create_task(at.ask("tea", "k"), name="waiting")
        await eventually(lambda: at.waiting == 1)
        step("it comes")
        async with working(log_server, Counter()):
            answer = await waiting
        assert (answer.status_code, answer.headers["event-id"]) == (200, id)


async def test_nobody_hears_a_reply_to_another(log_server: str) -> None:
    async with door(log_server) as at, working(log_server, Counter()):
        mine = await at.ask("tea", "k")
        step("a request cannot take an event's id, by which its reply is found")
        stolen = {"Event-Id": mine.headers["event-id"], "Authorization": f"Bearer {token('mallory')}"}
        answer = await at.http.post(
            "/topics/shop/orders/7/reserve", params={"wait": "1s"}, json={"item": "tea"}, headers=stolen
        )
        problem(answer, 400, "bad_request")


async def test_what_cannot_be_asked(log_server: str) -> None:
    async with door(log_server) as at:

        async def post(topic: str, wait: object = "1s") -> httpx.Response:
            return await at.http.post(f"/topics/{topic}", params={"wait": wait}, json={"item": "tea"})  # type: ignore[dict-item]  # httpx takes lists

        step("what is not kept, no service hears")
        problem(await post("shop/progress/7"), 400, "bad_request")
        problem(await post("shop/secret/7"), 403, "denied")
        problem(await post("nowhere"), 404, "unknown_topic")
        for wrong in ("", "5", "-1s", "31s", "1h", "1.5s", ["1s", "1s"]):
            step(f"wait={wrong}")
            problem(await post("shop/orders/7/reserve", wrong), 400, "bad_request")
        assert await asked(at) == []


async def test_who_goes_is_not_waited_for(log_server: str) -> None:
    async with door(log_server) as at:
        async with httpx.AsyncClient(base_url=at.edge.http, headers=at.http.headers) as http:
            going = asyncio.create_task(Door(at.edge, http).ask("tea"), name="going")
            await eventually(lambda: at.waiting == 1)
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        await eventually(lambda: at.waiting == 0)
        assert len(await asked(at)) == 1


async def test_one_edge_waits_for_so_many(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUESTS", 2)
    async with door(log_server) as at:
        two = [asyncio.create_task(at.ask("tea"), name="one of two") for _ in range(2)]
        await eventually(lambda: at.waiting == 2)
        step("a third is refused before it is published")
        problem(await at.ask("tea"), 429, "busy")
        ids = await asked(at)
        for id in ids:
            await played(at, id, Reply(data=b'"played"'))
        assert [answer.json() for answer in await asyncio.gather(*two)] == ["played", "played"]
        assert len(ids) == 2


async def test_an_edge_that_goes_down_says_so(log_server: str) -> None:
    async with door(log_server) as at:
        waiting = asyncio.create_task(at.ask("tea", "k"), name="waiting")
        await eventually(lambda: at.waiting == 1)
        await eventually(lambda: asked(at))
        at.edge.stop.set()
        answer = await waiting
        assert "going down" in answer.json()["detail"]
        id = unanswered(answer)
    async with door(log_server) as at:
        step("another edge knows of it")
        await played(at, id, Reply(data=b"1"))
        assert (await at.ask("tea", "k")).json() == 1


async def test_the_reader_rests_and_wakes(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLIES_IDLE", 0.01)
    async with door(log_server) as at, working(log_server, Counter()):
        for n in range(3):
            assert (await at.ask("tea", n=n)).json()["n"] == n
            await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "replies"])


@pytest.mark.slow
async def test_the_log_server_dies_while_somebody_waits(fresh_log_server: Callable[..., Server]) -> None:
    server, counter = fresh_log_server(), Counter()
    async with door(server.url) as at, working(server.url, counter):
        # Each of a key of its own: events of one key are handled one after the other.
        asking = [at.ask("slow", f"k{n}", wait="30s", order=str(n)) for n in range(5)]
        waiting = [asyncio.create_task(one, name="waiting") for one in asking]
        await eventually(lambda: len(counter.ran) == 5)
        step("the log server is killed while the handler runs, and comes back")
        server.kill()
        await eventually(lambda: at.edge.log.state == "down")
        counter.gate.set()
        server.start()
        step("all of them are answered")
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 5


# --- over WebSocket ---


async def test_an_rpc_by_the_name_of_a_topic(log_server: str) -> None:
    counter = Counter()
    topic = "shop/orders/7/reserve"
    async with door(log_server) as at, working(log_server, counter), client(at.edge.ws, token()) as one:
        step("its answer is what the handler returned")
        reply = await one.ask("rpc", method=topic, data={"item": "tea", "n": 3})
        assert reply["rpc"] == {"data": {"order": "7", "n": 3}}
        step("errors are an application's: 400 and above, with the same numbers as HTTP")
        for item, code, word in (("coffee", 422, "rejected: we sell tea"), ("poison", 502, "gave_up")):
            error = (await one.ask("rpc", method=topic, data={"item": item}))["error"]
            assert error["code"] == code
            assert word in error["message"]
            assert "temporary" not in error
        step("what may not be written is refused as a publish is")
        assert (await one.ask("rpc", method="shop/secret/7", data={}))["error"]["code"] == 103
        assert (await one.ask("rpc", method="shop/progress/7", data={}))["error"]["code"] == 107
        assert (await one.ask("rpc", method="no/such", data={}))["error"]["code"] == 104
        assert (await one.ask("rpc", method="shop/+/7/reserve", data={}))["error"]["code"] == 107


async def test_an_rpc_that_nobody_answers(log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_WITHIN", 0.1)
    async with door(log_server) as at, client(at.edge.ws, token()) as one:
        error = (await one.ask("rpc", method="shop/nobody/7", data={}))["error"]
        assert (error["code"], error["temporary"]) == (504, True)
        assert "no service" in error["message"]


async def test_rpc_request_can_be_repeated(log_server: str) -> None:
    counter = Counter()
    ask = {"topic": "shop/orders/7/reserve", "data": {"item": "slow", "n": 1}, "idempotency_key": "k"}
    async with door(log_server) as at, working(log_server, counter), client(at.edge.ws, token()) as one:
        error = (await one.ask("rpc", method="request", data={**ask, "wait": "50ms"}))["error"]
        assert error["code"] == 504
        counter.gate.set()
        first = (await one.ask("rpc", method="request", data=ask))["rpc"]["data"]
        assert first == {"id": counter.ran[0], "data": {"order": "7", "n": 1}}
        step("the same key over HTTP is the same request")
        path, same = "/topics/shop/orders/7/reserve", json.dumps(ask["data"])
        answer = await at.http.post(path, params={"wait": "20s"}, content=same, headers={"Idempotency-Key": "k"})
        assert (answer.headers["event-id"], answer.json()) == (first["id"], first["data"])
        assert len(counter.ran) == 1
        for wrong in ({**ask, "wait": "soon"}, {**ask, "wait": "31s"}, {"topic": "x"}):
            assert (await one.ask("rpc", method="request", data=wrong))["error"]["code"] == 107


async def test_a_reply_with_line_breaks_is_one_line(log_server: str) -> None:
    async with door(log_server) as at, client(at.edge.ws, token()) as one:
        asking = asyncio.create_task(one.ask("rpc", method="shop/orders/7/reserve", data={}), name="asking")
        await eventually(lambda: asked(at))
        (id,) = await asked(at)
        await played(at, id, Reply(data=b'{\r\n"a":\n1}'))
        assert (await asking)["rpc"] == {"data": {"a": 1}}


async def test_one_client_waits_for_so_many_and_its_other_commands_go_on(
    log_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT_REQUESTS", 2)
    topic = "shop/orders/7/reserve"
    async with door(log_server) as at:
        async with client(at.edge.ws, token()) as one:
            two = [asyncio.create_task(one.ask("rpc", method=topic, data={}), name="asking") for _ in range(2)]
            await eventually(lambda: at.waiting == 2)
            error = (await one.ask("rpc", method=topic, data={}))["error"]
            assert (error["code"], error["temporary"]) == (111, True)
            assert "rpc" in await one.ask("rpc", method="explain", data={"topic": topic})
            assert "publish" in await one.ask("publish", channel=topic, data={})
            step("the client goes: nobody waits any more")
        async with asyncio.timeout(HANG):
            await asyncio.gather(*two, return_exceptions=True)
        await eventually(lambda: at.waiting == 0)

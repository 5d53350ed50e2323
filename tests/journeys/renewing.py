"""What an SDK lives through when a token ends, and when a server subscribes it."""

from __future__ import annotations

import time

import httpx

from gateway import limits
from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from tests.gateways import SECRET, token
from tests.journeys.scenarios import SCENARIOS, TOPIC, Scene, in_order_once
from tests.journeys.steps import step


async def a_token_ends(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        step("an SDK connects with a token of two seconds, and its application has two more")
        await sdk.connect(at.line.ws, token(seconds=2), [token(seconds=4), token()])
        await sdk.subscribe(TOPIC)
        await sdk.until("subscribed")
        await at.publish(TOPIC, [0])
        step("it brings each new token when the one before is over, on the connection that it has")
        await sdk.until("get_token", 2)
        await at.publish(TOPIC, [1])
        in_order_once(await sdk.until("publication", 2), [0, 1])
        assert len(sdk.heard("connected")) == 1
        assert not sdk.heard("disconnected")


async def another_bearers_token(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        step("an application gives its SDK the token of somebody else: the connection ends for good")
        await sdk.connect(at.line.ws, token(seconds=2), [token("mallory")])
        (gone,) = await sdk.until("disconnected")
        assert gone["code"] == 3500
        assert len(sdk.heard("get_token")) == 1


def permit(seconds: int, sub: str = "alice") -> str:
    return issue(SECRET, Principal("user", sub), seconds, time.time(), channel=TOPIC)


async def a_subscriptions_token_ends(scene: Scene) -> None:
    at = scene.at
    async with scene.start() as sdk:
        step("an SDK subscribes with a token of two seconds, and its application has two more")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC, tokens=[permit(2), permit(4), permit(3600)])
        await sdk.until("subscribed")
        await at.publish(TOPIC, [0])
        step("it brings each new one when the one before is over, and the subscription stays")
        await sdk.until("get_token", 3, TOPIC)
        await at.publish(TOPIC, [1])
        in_order_once(await sdk.until("publication", 2), [0, 1])
        assert len(sdk.heard("subscribed")) == 1
        assert not sdk.heard("unsubscribed")


async def a_subscription_that_is_over_comes_back(scene: Scene) -> None:
    at = scene.at
    scene.patch.setattr(limits, "REFRESH_WITHIN", 0.0)
    async with scene.start() as sdk:
        step("its application has no other token in time: the subscription ends (2501)")
        await sdk.connect(at.line.ws, token())
        await sdk.subscribe(TOPIC, tokens=[permit(3), "", permit(3600)])
        await sdk.until("subscribed")
        await at.publish(TOPIC, [0])
        await sdk.until("publication")
        assert (await sdk.until("subscribing", 2))[1]["code"] == 2501
        step("the SDK comes back with the old one, hears that it is over (109), and brings the next")
        await at.publish(TOPIC, [1])
        await sdk.until("get_token", 3, TOPIC)
        await sdk.until("subscribed", 2)
        in_order_once(await sdk.until("publication", 2), [0, 1])


async def anothers_subscription_token(scene: Scene) -> None:
    async with scene.start() as sdk:
        step("an application gives its SDK the subscription token of somebody else: the connection ends for good")
        await sdk.connect(scene.at.line.ws, token())
        await sdk.subscribe(TOPIC, tokens=[permit(60, "mallory")])
        (gone,) = await sdk.until("disconnected")
        assert gone["code"] == 3500


async def a_server_subscribes_it(scene: Scene) -> None:
    at = scene.at

    async def ask(method: str, **more: object) -> None:
        root = {"authorization": f"Bearer {token('root', kind='operator')}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{at.edge.port}", headers=root) as http:
            answer = await http.post(f"/api/{method}", json={"user": "alice", **more})
            assert answer.json() == {"result": {}}, answer.text

    async with scene.start() as sdk:
        step("a server subscribes the user, who asked for nothing, from a position on")
        await sdk.connect(at.line.ws, token())
        await sdk.until("connected")
        stored = await at.publish(TOPIC, range(3))
        since = {"offset": stored[0].position.offset, "epoch": str(stored[0].position.epoch)}
        await ask("subscribe", channel=TOPIC, recover_since=since)
        (given,) = await sdk.until("given", 1, TOPIC)
        assert given["recoverable"]
        await at.publish(TOPIC, [3])
        in_order_once(await sdk.until("publication", 3, TOPIC), [1, 2, 3])
        step("another end of the connection disturbs nobody")
        await ask("refresh", expire_at=int(time.time()) + 900)
        step("the server takes it away again")
        await ask("unsubscribe", channel=TOPIC)
        await sdk.until("taken", 1, TOPIC)
        await ask("subscribe", channel=TOPIC)
        await sdk.until("given", 2, TOPIC)
        step("a connection that comes back has lost it: the server is to subscribe it again")
        at.line.cut()
        await sdk.until("taken", 2, TOPIC)
        assert len(sdk.heard("connected")) == 2


#: All that an SDK walks: test_sdk_python and test_sdk_javascript.
WALKS = [
    *SCENARIOS,
    a_token_ends,
    another_bearers_token,
    a_subscriptions_token_ends,
    a_subscription_that_is_over_comes_back,
    anothers_subscription_token,
    a_server_subscribes_it,
]

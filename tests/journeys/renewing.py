"""What an SDK lives through when its token ends."""

from __future__ import annotations

from tests.gateways import token
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


#: All that an SDK walks: test_sdk_python and test_sdk_javascript.
WALKS = [*SCENARIOS, a_token_ends, another_bearers_token]

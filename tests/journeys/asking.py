"""What an SDK hears when it asks a service by rpc."""

from __future__ import annotations

import pytest

from gateway import App, Context, Rejected, Service
from tests.gateways import TOPICS, token
from tests.journeys.sdks import Sdk, SdkError
from tests.journeys.shop import serving
from tests.journeys.steps import step
from tests.journeys.world import World


def _echo() -> App:
    echo = Service("echo")

    @echo.on("rooms/{room}/messages")
    async def answer(said: dict[str, str], context: Context) -> dict[str, str]:
        if not said["text"]:
            raise Rejected("nothing was said")
        return {"room": context.variables["room"], "heard": said["text"]}

    return App("rooms", topics=[topic for topic in TOPICS if topic.owner == "rooms"], services=[echo])


async def ask_a_service(at: World, sdk: Sdk) -> None:
    async with serving(at.server.url, _echo()):
        await sdk.connect(at.line.ws, token())
        await sdk.until("connected")
        step("an rpc by the name of a topic is answered with what the service's handler returns")
        assert await sdk.rpc("rooms/1/messages", {"text": "hi"}) == {"room": "1", "heard": "hi"}
        step("one with an idempotency key is done once, however often it is asked")
        asked = {"topic": "rooms/1/messages", "data": {"text": "by key"}, "idempotency_key": "once"}
        first, again = await sdk.rpc("request", asked), await sdk.rpc("request", asked)
        assert first == again
        assert first["data"] == {"room": "1", "heard": "by key"}
        step("what it rejects is an error of the application (422); where nobody answers, we say so first (504)")
        for code, call in (
            (422, sdk.rpc("rooms/1/messages", {"text": ""})),
            (504, sdk.rpc("try/nobody", "hello?")),
            (103, sdk.rpc("users/bob/inbox", "hello")),
        ):
            with pytest.raises(SdkError) as refused:
                await call
            assert refused.value.code == code
        assert len(sdk.heard("connecting")) == 1, "nothing of this costs the connection"

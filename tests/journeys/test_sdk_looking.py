"""What both SDKs see when they look around: history, presence, who comes and who leaves; in JSON and in Protobuf."""

from __future__ import annotations

from functools import partial

import pytest

from gateway import limits
from gateway.core.declared import Topic
from tests.gateways import running_edge, token
from tests.journeys.sdks import Start, javascript_sdk, python_sdk
from tests.servers import eventually

TOPICS = (Topic(pattern="lobby/{room}", write=("user",), read=("user",), presence=True),)

STARTS: dict[str, Start] = {
    f"{name}-{'protobuf' if protobuf else 'json'}": partial(sdk, protobuf=protobuf)
    for name, sdk in (("python", python_sdk), ("javascript", javascript_sdk))
    for protobuf in (False, True)
}


@pytest.mark.parametrize("name", STARTS)
async def test_an_sdk_looks_around(name: str, log_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PRESENCE_LINGER", 0.2)
    monkeypatch.setattr(limits, "PRESENCE_BEAT", 0.1)
    monkeypatch.setattr(limits, "DRAIN_WITHIN", 0.5)
    channel = f"lobby/{name}"
    async with running_edge(log_server, TOPICS) as edge, STARTS[name]() as alice:
        await alice.connect(edge.ws, token("alice"))
        await alice.subscribe(channel, join_leave=True)
        await alice.until("join", channel=channel)
        for n in range(3):
            await alice.publish(channel, {"n": n})
        await alice.until("publication", 3, channel)
        found = await alice.history(channel, 2)
        assert found["data"] == [{"n": 0}, {"n": 1}]
        assert int(found["offset"]) >= 3
        assert found["epoch"]
        assert (await alice.history(channel, 1, reverse=True))["data"] == [{"n": 2}]
        assert (await alice.history(channel, 0))["data"] == []
        async with python_sdk(protobuf=True) as bob:
            await bob.connect(edge.ws, token("bob"))
            await bob.subscribe(channel)
            joins = await alice.until("join", 2, channel)
            assert [said["user"] for said in joins] == ["alice", "bob"]
            assert await alice.presence(channel) == {"users": ["alice", "bob"], "clients": 2, "people": 2}
        (left,) = await alice.until("leave", channel=channel)
        assert left["user"] == "bob"

        async def alone() -> bool:
            return bool(await alice.presence(channel) == {"users": ["alice"], "clients": 1, "people": 1})

        await eventually(alone)

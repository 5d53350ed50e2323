"""The bounds of one request: a path with one reading, a body that ends, a client that reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from gateway import limits
from gateway.adapters.http_problem import SlowBody
from gateway.errors import Refused, TooLarge, Unavailable


class BadPath(Refused):
    """A path that two readers could take for two places."""

    code = "bad_path"


class TooSlow(Unavailable):
    """An answer that did not come in time: what was asked may have been done."""

    code = "too_slow"
    status = 504


_LONG: Final = re.compile(rf"[0-9]{{{limits.JSON_DIGITS + 1}}}")


def check_plain(path: bytes) -> None:
    """Raise :class:`BadPath` unless everybody who reads the percent-encoded ``path`` finds the same levels in it."""
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise BadPath("the path is not UTF-8", "percent-encode UTF-8 bytes") from None
    if not text.isprintable():
        raise BadPath("the path has a control character", "use printable characters")
    if "\\" in text or text.count("/") != path.count(b"/"):
        raise BadPath("the path has an encoded slash, or a backslash", "write / between levels, and within none")
    if _LONG.search(text):
        # A route of `{n:int}` would fail over it: Python reads no number of more than 4,300 digits.
        raise BadPath(f"the path has a number of more than {limits.JSON_DIGITS} digits", "write a smaller one")
    first, *levels = text.split("/")
    if first or not levels or not {"", ".", ".."}.isdisjoint(levels[:-1]) or levels[-1] in (".", ".."):
        raise BadPath("the path has an empty level, or . or ..", "write the path that you mean")


def bounded(receive: Receive, most: int, ended: Callable[[], None]) -> Receive:
    """Return ``receive`` that raises :class:`TooLarge` beyond ``most`` bytes, and :class:`SlowBody`.

    ``ended`` is called once all of it has come.
    """
    left, whole, until = most, False, 0.0

    async def next_message() -> Message:
        nonlocal left, whole, until
        if whole:
            return await receive()
        until = until or asyncio.get_running_loop().time() + limits.BODY_WITHIN
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise SlowBody(f"the body did not come within {limits.BODY_WITHIN:g} s", "send it faster") from None
        left -= len(message.get("body", b""))
        if left < 0:
            raise TooLarge(f"the body has more than {most} bytes", "send less")
        if not message.get("more_body"):
            whole = True
            ended()
        return message

    return next_message


def cutting(scope: Scope, send: Send) -> Send:
    """Return ``send`` that cuts a client who does not read; then, and when it went away, :class:`ClientDisconnect`."""
    transport = scope["state"]["connection"].transport

    async def within(message: Message) -> None:
        try:
            async with asyncio.timeout(limits.STREAM_WITHIN):
                await send(message)
        except TimeoutError:
            transport.abort()
        if transport.is_closing() and message.get("more_body"):
            raise ClientDisconnect

    return within


async def cut(scope: Scope, receive: Receive) -> None:
    """Break the connection of an answer that cannot be finished: a clean end would make a part look whole."""
    scope["state"]["connection"].transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def closing(send: Send) -> Send:
    """Return ``send`` whose answer ends the connection, so that the next request finds another process."""

    async def last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return last

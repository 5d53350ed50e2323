"""The WebSocket handshake: an HTTP request head in, a switch of protocols or a refusal out.

RFC 6455 section 4.2, server side, no I/O; HTTP's own grammar is RFC 9110 and RFC 9112.
Who may connect (origin, path, token) is not decided here. No extension is ever agreed to:
permessage-deflate would reorder the commands of clients that compress in a thread.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1
from http import HTTPStatus
from typing import Final

import msgspec

from gateway import limits

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3
_VERSION: Final = ("Sec-WebSocket-Version", "13")
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - RFC 9110 5.6.2: a grammar, not a secret
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) ([!-~]+) (HTTP/[0-9]\.[0-9])")
# 4.2.1 (1): a path and query, or an absolute http(s) URI with them; 3: never a fragment.
_TARGET: Final = re.compile(r"(?:(?i:https?)://[^/?#]+(?=/))?(/[^?#]*)(?:\?([^#]*))?")
# RFC 9112 5: no space before the colon, no folded lines; RFC 9110 5.5: no control characters but the tab.
_HEADER: Final = re.compile(rf"({_TOKEN}):([^\x00-\x08\x0a-\x1f\x7f]*)")
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 4.2.1 (5): 16 bytes in base64
_SUBPROTOCOL: Final = re.compile(_TOKEN)
#: A second one of these would let two readers of one request disagree.
_ONCE: Final = (
    "host",
    "origin",
    "content-length",
    "authorization",
    "sec-websocket-key",
    "sec-websocket-version",
)


class Request(msgspec.Struct, frozen=True):
    """A valid opening handshake, waiting for `accept` or for a refusal of the caller's own.

    ``path`` and ``query`` are as sent (still percent-encoded, the query without its ``?``);
    ``headers`` are (lower-case name, value) in order; ``subprotocols`` is the client's list,
    best first, and empty where it offers none.
    """

    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    key: str
    subprotocols: tuple[str, ...]

    def header(self, name: str) -> str | None:
        """The first value of the header with this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


class Refused(msgspec.Struct, frozen=True):
    """An opening handshake that is answered with an HTTP error, and the connection closed.

    The client's fault. ``reason`` tells it what to change before it retries; it becomes the body.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> bytes:
        """The whole HTTP response, ready to be written before the connection is closed."""
        body = f"{self.reason}\n".encode()
        about = (
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        )
        return _head(HTTPStatus(self.status), (*self.headers, *about)) + body


def parse(head: bytes) -> Request | Refused:
    """Judge a request head, from its request line to the blank line that ends it.

    Refuses with 400 (malformed, or not what section 4.2.1 asks), 405 (not GET), 426 (no
    upgrade to WebSocket, or not version 13: section 4.4) and 431 (over `limits.HEAD_BYTES`).
    Never raises.
    """
    if len(head) > limits.HEAD_BYTES:
        return Refused(431, f"the request head is over {limits.HEAD_BYTES} bytes")
    if head.find(b"\r\n\r\n") != len(head) - 4 or len(head) < 4:
        return Refused(400, "the request head must end with its first blank line")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        return Refused(400, "the request line is malformed")
    headers: list[tuple[str, str]] = []
    for each in lines:
        header = _HEADER.fullmatch(each)
        if header is None:
            return Refused(400, "a header line is malformed")
        headers.append((header[1].lower(), header[2].strip(" \t")))
    return _judge(line[1], line[2], line[3], tuple(headers))


def _judge(method: str, target: str, version: str, headers: tuple[tuple[str, str], ...]) -> Request | Refused:
    """What section 4.2.1 asks of a well-formed request."""
    once: dict[str, str] = {}
    for name, value in headers:
        if name in once:
            return Refused(400, f"more than one {name} header")
        if name in _ONCE:
            once[name] = value
    if method != "GET":
        return Refused(405, "a WebSocket handshake is a GET", (("Allow", "GET"),))
    if version != "HTTP/1.1":
        return Refused(400, "a WebSocket handshake needs HTTP/1.1")
    where = _TARGET.fullmatch(target)
    if where is None:
        return Refused(400, "the request target must be a path, without a fragment")
    if not once.get("host"):
        return Refused(400, "the Host header is missing")
    # A body would be read as frames: that is how requests are smuggled.
    if once.get("content-length", "0") != "0" or any(name == "transfer-encoding" for name, _ in headers):
        return Refused(400, "a WebSocket handshake has no body")
    if not _lists(headers, "upgrade", "websocket") or not _lists(headers, "connection", "upgrade"):
        upgrade = (("Upgrade", "websocket"), _VERSION)
        return Refused(426, "this is a WebSocket endpoint: ask for Upgrade: websocket", upgrade)
    if once.get("sec-websocket-version") != "13":
        return Refused(426, "only version 13 of the WebSocket protocol is spoken here", (_VERSION,))  # 4.4
    key = once.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        return Refused(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    subprotocols = tuple(_items(headers, "sec-websocket-protocol"))
    if not all(_SUBPROTOCOL.fullmatch(each) for each in subprotocols):
        return Refused(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return Request(where[1], where[2] or "", headers, key, subprotocols)


def _items(headers: tuple[tuple[str, str], ...], name: str) -> list[str]:
    """The items of a list header, over all its lines; empty ones count for nothing (RFC 9110 5.6.1)."""
    return [item for key, value in headers if key == name for each in value.split(",") if (item := each.strip(" \t"))]


def _lists(headers: tuple[tuple[str, str], ...], name: str, item: str) -> bool:
    return any(each.lower() == item for each in _items(headers, name))


def choose(request: Request, spoken: Sequence[str]) -> str | None:
    """The first subprotocol on the client's list that we speak, or None: no reason to refuse (4.2.2)."""
    return next((each for each in request.subprotocols if each in spoken), None)


def accept(request: Request, subprotocol: str | None = None) -> bytes:
    """The 101 response; frames may follow at once (4.2.2). ``subprotocol`` is what `choose` returned."""
    # SHA-1 is what the protocol prescribes; it proves that we speak it, and secures nothing.
    digest = sha1(request.key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", b64encode(digest).decode("ascii")),
    ]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, headers)


def _head(status: HTTPStatus, headers: Sequence[tuple[str, str]]) -> bytes:
    """The head of an HTTP response, blank line included."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join((*lines, "", "")).encode("latin-1")

"""Which handshakes are accepted, which are refused and with what: RFC 6455, section 4.2."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import limits
from gateway.core.handshake import Refused, Request, accept, choose, parse

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the key of the example in section 1.3

HEADERS = {
    "host": "localhost:8000",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def head(line: str = "GET /connection/websocket HTTP/1.1", *more: str, **changed: str | None) -> bytes:
    """A valid request head, but for the header lines added, changed, or (None) left out."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def accepted(data: bytes) -> Request:
    request = parse(data)
    assert isinstance(request, Request)
    return request


def test_the_handshake_of_section_1_2() -> None:
    request = accepted(
        b"GET /chat HTTP/1.1\r\n"
        b"Host: server.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Origin: http://example.com\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (request.path, request.query) == ("/chat", "")
    assert request.header("origin") == "http://example.com"
    assert request.header("cookie") is None
    assert accept(request, choose(request, ["superchat", "chat"])) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b%20c?d=e&f=%2F", "/a/b%20c", "d=e&f=%2F"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//a", "//a", ""),
        ("http://host:80/a?b", "/a", "b"),
        ("HTTPS://host/", "/", ""),
    ],
)
def test_the_target_is_split_and_left_encoded(target: str, path: str, query: str) -> None:
    request = accepted(head(f"GET {target} HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    "changed",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "keep-alive ,\tupgrade"},
        {"content_length": "0"},
        {"cookie": "a=b; c=d"},
        {"x_latin": "caf\xe9"},
        {"x_empty": ""},
        {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"},
    ],
)
def test_what_clients_do_and_may_do(changed: dict[str, str]) -> None:
    response = accept(accepted(head(**changed)))
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"extensions" not in response.lower()
    assert b"protocol:" not in response.lower()


def test_space_around_a_value_is_not_part_of_it() -> None:
    request = accepted(head("GET / HTTP/1.1", "X-A: \t b  c \t ", "x-a:d"))
    assert request.headers[-2:] == (("x-a", "b  c"), ("x-a", "d"))
    assert request.header("x-a") == "b  c"


@pytest.mark.parametrize(
    ("offers", "offered", "chosen"),
    [
        ((), (), None),
        (("",), (), None),
        ((" , ",), (), None),
        (("centrifuge-json",), ("centrifuge-json",), None),
        (("centrifuge-protobuf",), ("centrifuge-protobuf",), "centrifuge-protobuf"),
        (("other, centrifuge-protobuf",), ("other", "centrifuge-protobuf"), "centrifuge-protobuf"),
        (("other", "mqtt,centrifuge-protobuf"), ("other", "mqtt", "centrifuge-protobuf"), "mqtt"),
        (("Centrifuge-Protobuf",), ("Centrifuge-Protobuf",), None),
    ],
)
def test_a_subprotocol_is_chosen_or_none_is(offers: tuple[str, ...], offered: tuple[str, ...], chosen: str) -> None:
    lines = [f"sec-websocket-protocol: {offer}" for offer in offers]
    request = accepted(head("GET / HTTP/1.1", *lines))
    assert request.subprotocols == offered
    assert choose(request, ("centrifuge-protobuf", "mqtt")) == chosen
    response = accept(request, chosen)
    assert (b"Sec-WebSocket-Protocol" in response) is (chosen is not None)


REFUSED = {
    "POST": (head("POST / HTTP/1.1"), 405, "is a GET"),
    "a method that does not exist": (head("get / HTTP/1.1"), 405, "is a GET"),
    "HTTP/1.0": (head("GET / HTTP/1.0"), 400, "needs HTTP/1.1"),
    "HTTP/2.0": (head("GET / HTTP/2.0"), 400, "needs HTTP/1.1"),
    "no request line": (b"\r\n\r\n", 400, "request line"),
    "two spaces": (head("GET  / HTTP/1.1"), 400, "request line"),
    "no version": (head("GET /"), 400, "request line"),
    "a space in the target": (head("GET /a b HTTP/1.1"), 400, "request line"),
    "latin-1 in the target": (head("GET /\xe9 HTTP/1.1"), 400, "request line"),
    "a fragment": (head("GET /a#b HTTP/1.1"), 400, "target"),
    "an asterisk": (head("GET * HTTP/1.1"), 400, "target"),
    "another scheme": (head("GET ftp://host/ HTTP/1.1"), 400, "target"),
    "no Host": (head(host=None), 400, "Host"),
    "an empty Host": (head(host=""), 400, "Host"),
    "two Hosts": (head("GET / HTTP/1.1", "Host: b"), 400, "more than one host"),
    "two empty Origins": (head("GET / HTTP/1.1", "origin:", "origin:"), 400, "more than one origin"),
    "two keys": (head("GET / HTTP/1.1", f"sec-websocket-key: {KEY}"), 400, "more than one sec-websocket-key"),
    "a body": (head(content_length="5"), 400, "no body"),
    "a chunked body": (head(transfer_encoding="chunked"), 400, "no body"),
    "no Upgrade": (head(upgrade=None), 426, "Upgrade: websocket"),
    "another Upgrade": (head(upgrade="h2c"), 426, "Upgrade: websocket"),
    "no Connection": (head(connection=None), 426, "Upgrade: websocket"),
    "another Connection": (head(connection="keep-alive, upgraded"), 426, "Upgrade: websocket"),
    "no version of the protocol": (head(sec_websocket_version=None), 426, "version 13"),
    "an old version": (head(sec_websocket_version="8"), 426, "version 13"),
    "a list of versions": (head(sec_websocket_version="13, 8"), 426, "version 13"),
    "no key": (head(sec_websocket_key=None), 400, "16 bytes in base64"),
    "a short key": (head(sec_websocket_key="SGVsbG8sIHdvcmxkIQ=="), 400, "16 bytes in base64"),
    "a key that is not base64": (head(sec_websocket_key="dGhlIHNhbXBsZSBub25jZ.=="), 400, "16 bytes in base64"),
    "a subprotocol that is no token": (head(sec_websocket_protocol="a b"), 400, "list of tokens"),
    "a header without a colon": (head("GET / HTTP/1.1", "nonsense"), 400, "header line"),
    "a header without a name": (head("GET / HTTP/1.1", ": value"), 400, "header line"),
    "a space before the colon": (head("GET / HTTP/1.1", "name : value"), 400, "header line"),
    "a folded header": (head("GET / HTTP/1.1", "name: value", " more"), 400, "header line"),
    "a null in a value": (head("GET / HTTP/1.1", "name: a\0b"), 400, "header line"),
    "a bare newline": (head("GET / HTTP/1.1", "name: a\nhost: b"), 400, "header line"),
    "a bare return": (head("GET / HTTP/1.1", "name: a\rhost: b"), 400, "header line"),
    "nothing": (b"", 400, "blank line"),
    "no blank line": (head()[:-2], 400, "blank line"),
    "something after the blank line": (head() + b"\x81", 400, "blank line"),
    "a second head": (head() + head(), 400, "blank line"),
    "too long": (head(cookie="x" * limits.HEAD_BYTES), 431, "over 16384 bytes"),
}


@pytest.mark.parametrize(("data", "status", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_what_to_change(data: bytes, status: int, why: str) -> None:
    refused = parse(data)
    assert isinstance(refused, Refused)
    assert refused.status == status
    assert why in refused.reason


def test_the_longest_head_passes() -> None:
    room = limits.HEAD_BYTES - len(head(cookie=""))
    assert isinstance(parse(head(cookie="x" * room)), Request)
    assert isinstance(parse(head(cookie="x" * (room + 1))), Refused)


def test_a_refusal_is_a_whole_response() -> None:
    assert Refused(403, "this origin is not allowed").response() == (
        b"HTTP/1.1 403 Forbidden\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 27\r\n"
        b"Connection: close\r\n\r\n"
        b"this origin is not allowed\n"
    )


@pytest.mark.parametrize(
    ("data", "line", "header"),
    [
        (head("PUT / HTTP/1.1"), b"405 Method Not Allowed", b"Allow: GET"),
        (head(upgrade=None), b"426 Upgrade Required", b"Upgrade: websocket"),
        (head(sec_websocket_version="8"), b"426 Upgrade Required", b"Sec-WebSocket-Version: 13"),
    ],
)
def test_a_refusal_carries_the_header_its_status_needs(data: bytes, line: bytes, header: bytes) -> None:
    refused = parse(data)
    assert isinstance(refused, Refused)
    first, *lines = refused.response().split(b"\r\n")
    assert first == b"HTTP/1.1 " + line
    assert header in lines


@given(data=st.binary(max_size=200).map(lambda tail: head()[:-2] + tail) | st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\na:" + b"\t" * 16_000 + b"\0\r\n\r\n")  # must not cost quadratic time
@example(b"GET http://" + b"/" * 16_000 + b" HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nconnection:" + b"," * 16_000 + b"\r\n\r\n")
def test_any_bytes_are_judged(data: bytes) -> None:
    assert isinstance(parse(data), Request | Refused)

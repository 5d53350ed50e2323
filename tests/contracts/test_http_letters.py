"""The door of dead letters: only operators come in, and what they cannot mean changes nothing."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from gateway import limits
from gateway.edge.denials import Denials
from tests.gateways import TOPICS, Running, running_edge, token
from tests.letters import HANG, OPERATOR, audited, bury, door, left, problem

USER = {"Authorization": f"Bearer {token('mallory')}"}
REQUESTS = [
    ("GET", "/dead?limit=zero&nonsense=1"),
    ("GET", "/dead/{there}"),
    ("GET", "/dead/devices.0/1-1"),
    ("GET", "/dead/nowhere/x"),
    ("PUT", "/dead/{there}"),
    ("POST", "/dead/replay"),
    ("POST", "/dead/drop"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_only_an_operator_learns_of_letters(
    log_url: str, method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.audit")
    async with running_edge(log_url) as edge, door(edge, {}) as http:
        (there,) = await bury(edge)
        answers = {}
        for name, headers in (
            ("none", {}),
            ("no bearer", {"Authorization": "Basic x"}),
            ("forged", {"Authorization": "Bearer a.b.c"}),
            ("user", USER),
            ("page", {**OPERATOR, "Origin": "https://evil.example"}),
        ):
            answers[name] = await http.request(method, path.format(there=there), headers=headers, content=b'{"all":1')
        for name in ("none", "no bearer", "forged"):
            problem(answers[name], 401, "bad_token")
        assert problem(answers["user"], 403, "denied") == (
            "dead letters are for operators; use a token whose role is operator"
        )
        problem(answers["page"], 403, "denied")
        assert await left(edge) == [there]
        metrics = (await http.get("/metrics")).text
        assert 'gateway_refused_total{code="bad_token"} 3.0' in metrics
        assert 'gateway_refused_total{code="denied"} 2.0' in metrics
    told = audited(caplog)
    assert all("http 127.0.0.1: denied to" in line for line in told)
    assert sum(line.startswith("user:mallory, ") for line in told) == 1
    assert any(line.startswith("unknown, ") for line in told)


async def test_nobody_is_no_operator_where_the_edge_takes_anybody(log_url: str) -> None:
    async with running_edge(log_url, anonymous=True) as edge, door(edge, {}) as http:
        problem(await http.get("/dead"), 401, "bad_token")


def test_the_audit_log_hears_of_few_denials_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DENIALS_TOLD", 2)
    denials = Denials()
    assert [denials.tell(who, 7.0) for who in ("a", "a", "b", "c", "a")] == [0, None, 1, None, None]
    assert [denials.tell(who, 8.9) for who in ("a", "a")] == [2, None]
    assert denials.tell("a", 9.0) == 1


DEEP = b"[" * 10_000 + b"]" * 10_000
BAD_QUERIES = [
    ("limit=1000000000", 400, "bad_request"),
    ("limit=501", 400, "bad_request"),
    ("limit=0", 400, "bad_request"),
    ("limit=-1", 400, "bad_request"),
    ("limit=%D9%A1", 400, "bad_request"),
    ("limit=1&limit=2", 400, "bad_request"),
    ("grup=shop.stock", 400, "bad_request"),
    ("topic=a/%23/b", 400, "bad_topic"),
    ("topic=" + "a/" * 200, 400, "bad_topic"),
    ("topic=%00", 400, "bad_topic"),
    ("after=x", 400, "bad_request"),
    ("after=nowhere.0/1-1", 404, "no_letter"),
    ("after=devices.0/-", 400, "bad_request"),
]
#: After ``/dead/``.
BAD_ADDRESSES = [
    ("devices.0/-", 400, "bad_request"),
    ("devices.0/+", 400, "bad_request"),
    ("devices.0/(1-1", 400, "bad_request"),
    ("devices.0/1", 400, "bad_request"),
    ("devices.0/$", 400, "bad_request"),
    ("devices.0/99999999999999999999-0", 400, "bad_request"),
    ("devices.0/1-1-1", 400, "bad_request"),
    ("nowhere.0/1-1", 404, "no_letter"),
    ("devices.0:log/1-1", 404, "no_letter"),
    ("devices.0%2F1-1", 400, "bad_request"),
    ("devices.0/%31-1", 400, "bad_request"),
    ("devices.0/1-1%0A", 400, "bad_topic"),
    ("devices.0/%FF", 400, "bad_topic"),
    ("devices.0/1-1/", 404, "no_route"),
    ("../dead/devices.0/1-1", 404, "no_route"),
]
BAD_BODIES = [
    (b"", 400, "bad_request"),
    (b"{}", 400, "bad_request"),
    (b"[]", 400, "bad_request"),
    (b"null", 400, "bad_request"),
    (DEEP, 400, "bad_request"),
    (b'{"letters":' + DEEP + b"}", 400, "bad_request"),
    (b'{"all":true,"all":true}', 400, "bad_request"),
    (b'{"all":1}', 400, "bad_request"),
    (b'{"al":true}', 400, "bad_request"),
    (b'{"which":{}}', 400, "bad_request"),
    (b'{"which":{"grup":"a"}}', 400, "bad_request"),
    (b'{"which":{"topic":"a/#/b"}}', 400, "bad_topic"),
    (b'{"letters":[]}', 400, "bad_request"),
    (b'{"letters":"devices.0/1-1"}', 400, "bad_request"),
    (b'{"letters":[1]}', 400, "bad_request"),
    (b'{"letters":["devices.0/-"]}', 400, "bad_request"),
    (b'{"letters":["devices.0/1-1"],"all":true}', 400, "bad_request"),
    (b'{"all":true,"limit":0}', 400, "bad_request"),
    (b'{"all":true,"limit":10001}', 400, "bad_request"),
    (b'{"all":true,"limit":1e400}', 400, "bad_request"),
    (b'{"all":true,"rate":-1}', 400, "bad_request"),
    (b'{"all":true,"rate":1e-300}', 400, "bad_request"),
    (b'{"all":true,"rate":NaN}', 400, "bad_request"),
    (b'{"all":true,"dry_run":"yes"}', 400, "bad_request"),
    (b'{"letters":["' + b"x" * (128 * 1024) + b'"]}', 413, "too_large"),
    (b"\xff\xfe", 400, "bad_request"),
]


async def test_what_is_not_understood_changes_nothing(log_url: str) -> None:
    async with running_edge(log_url) as edge, door(edge) as http:
        (there,) = await bury(edge)
        for query, status, code in BAD_QUERIES:
            problem(await http.get(f"/dead?{query}"), status, code)
        for path, status, code in BAD_ADDRESSES:
            for method in ("GET", "PUT"):
                # httpx would mend some of these.
                said = await _raw(edge, f"{method} /dead/{path} HTTP/1.1")
                assert f" {status} ".encode() in said.split(b"\r\n")[0], (path, said)
                assert f"urn:topic-gateway:{code}".encode() in said, (path, said)
        for body, status, code in BAD_BODIES:
            for verb in ("replay", "drop"):
                problem(await http.post(f"/dead/{verb}", content=body), status, code)
        problem(await http.put(f"/dead/{there}", content=DEEP), 422, "still_refused")
        problem(await http.put(f"/dead/{there}", content=b'{"a":1,"a":2}'), 422, "still_refused")
        problem(await http.put(f"/dead/{there}", content=b"1" * (limits.PAYLOAD_BYTES + 1)), 413, "too_large")
        problem(await http.delete(f"/dead/{there}"), 405, "no_route")
        problem(await http.get("/dead/"), 404, "no_route")
        # A hostile letter is shown as it lies there.
        (deep,) = await bury(edge, data=DEEP, error="", id="\n\x1b[2J", topic="a/\x00", traceback='"\\\u2028')
        assert base64.b64decode((await http.get(f"/dead/{deep}")).json()["base64"]) == DEEP
        row = (await http.get("/dead?reason=schema")).json()["letters"][1]
        assert (row["error"], row["id"], row["topic"]) == ("", "\n\x1b[2J", "a/\x00")
        assert await left(edge) == [there, deep]
        # An address may be spelled with zeros before its numbers, and is answered as it is.
        place, id = there.split("/")
        assert (await http.get(f"/dead/{place}/0{id}")).json()["address"] == there


async def _raw(edge: Running, line: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    head = f"{line}\r\nhost: x\r\nauthorization: {OPERATOR['Authorization']}\r\ncontent-length: 0\r\n"
    said = b""
    try:
        writer.write(head.encode() + b"connection: close\r\n\r\n")
        async with asyncio.timeout(HANG):
            while more := await reader.read(65_536):
                said += more
    finally:
        writer.transport.abort()
    return said


async def test_a_page_of_an_allowed_origin_may_ask(log_url: str) -> None:
    page = {"Origin": "https://ops.example"}
    async with running_edge(log_url, TOPICS, origins=["https://ops.example"]) as edge, door(edge) as http:
        (there,) = await bury(edge)
        asked = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
        answer = await http.options(f"/dead/{there}", headers=asked)
        assert (answer.status_code, "PUT" in answer.headers["access-control-allow-methods"]) == (200, True)
        answer = await http.put(f"/dead/{there}", json={"t": 1}, headers=page)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://ops.example")
        (there,) = await bury(edge)
        answer = await http.post("/dead/drop", json={"letters": [there]}, headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://ops.example"

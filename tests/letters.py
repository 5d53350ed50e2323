"""Dead letters for tests: buried as a bridge or a worker would, and the HTTP door to them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.adapters.log import DeadLetter
from tests.gateways import Running, token

HANG = 20.0
OPERATOR = {"Authorization": f"Bearer {token('root', kind='operator')}"}
#: Where the gateway keeps what no declared topic matched.
STRAYS = "gateway.0"


def door(edge: Running, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=edge.http, headers=OPERATOR if headers is None else headers, timeout=HANG)


def problem(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["type"], told["status"]) == (f"urn:topic-gateway:{code}", status)
    return str(told["detail"])


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    assert answer.headers["cache-control"] == "no-store"
    return [json.loads(line) for line in answer.text.splitlines()]


async def bury(edge: Running, count: int = 1, place: str = "devices.0", **fields: Any) -> list[str]:
    """Put letters of no group there; return their addresses."""
    known = {"reason": "schema", "error": "bad\nand more", "topic": "devices/7/telemetry", "data": b"{", "id": "m"}
    letters = [DeadLetter(**{**known, "ts": 1_700_000_000_000 + n, **fields}) for n in range(count)]
    before = await left(edge, place)
    await edge.log.bury_many(place, letters)
    return (await left(edge, place))[len(before) :]


async def left(edge: Running, place: str = "devices.0") -> list[str]:
    return [f"{place}/{id}" for id, _ in await edge.log.dead(place, count=10_000)]


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gateway.audit"]

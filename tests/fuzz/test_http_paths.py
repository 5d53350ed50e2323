"""schemathesis over every HTTP path of a real edge: an answer below 500 in one form, whoever asks and whatever for."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from gateway.adapters.log import Log
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.edge.process import Edge
from gateway.letters import Letters
from tests.fuzz.http_paths import GOOD, PATHS, document
from tests.gateways import TOPICS, app_logs, token, verifier

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
WHO = {"nobody": "", "user": token("alice"), "operator": token("mary", kind="operator"), "liar": "a.b.c"}


@asynccontextmanager
async def edge(log_url: str) -> AsyncIterator[str]:
    """Where an edge with all its routes answers."""
    log, declared = await Log.open(log_url, app_logs(TOPICS)), Declared(TOPICS)
    one = Edge(log, declared, verifier(), letters=Letters(log, declared, "gateway", TopicMap([]), {}))
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(one.run("127.0.0.1", 0, stop, ready), name="edge")
    try:
        await ready.wait()
        yield f"http://127.0.0.1:{one.port}"
    finally:
        stop.set()
        await running
        await log.close()


def test_every_route_is_described() -> None:
    adapters = Path(__file__).parents[2] / "gateway/adapters"
    found: set[str] = set()
    for file in adapters.glob("http*.py"):
        found |= set(re.findall(r'Route\("(/[^"]*)"', file.read_text()))
    assert {re.sub(r":path\}", "}", path) for path in found} == set(PATHS)


@pytest.mark.parametrize("who", WHO)
async def test_every_path_answers_in_one_form(log_server: str, who: str) -> None:
    async with edge(log_server) as at:
        await asyncio.to_thread(asked, at, WHO[who])


def asked(at: str, jwt: str) -> None:
    """Ask every path for what the fuzzer makes up."""
    for found in schemathesis.openapi.from_dict(document()).get_all_operations():
        assert isinstance(found, Ok), found
        hold(found.ok(), at, {"Authorization": f"Bearer {jwt}"} if jwt else {})


def hold(operation: Any, at: str, who: dict[str, str]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(), st.randoms(use_true_random=False))
    def one(case: Any, chance: random.Random) -> None:
        for name in case.path_parameters or {}:
            if chance.random() < 0.8:
                case.path_parameters[name] = quote(chance.choice(GOOD[name]), safe="")
        for name in list(case.headers or {}):
            if chance.random() < 0.7:
                del case.headers[name]  # or nearly every request would end at one of them
        if chance.random() < 0.5:
            case.query = {}
        asks = case.as_transport_kwargs(base_url=at, headers=who)
        try:
            # Not read to the end: some answers are streams.
            with requests.request(**asks, stream=True, timeout=5) as answer:
                judge(case, answer)
        except requests.ReadTimeout:
            # It waits for the reply of a service.
            assert "wait" in (case.query or {}), case.as_curl_command()

    one()


def judge(case: Any, answer: requests.Response) -> None:
    said = f"{answer.status_code} {case.as_curl_command()}"
    kind = answer.headers.get("content-type", "")
    # 504: nobody replied to a request that waits.
    assert answer.status_code < 500 or answer.status_code == 504, said
    if answer.status_code == 200 and "event-stream" in kind:
        return
    assert "Traceback" not in answer.text, said
    if answer.status_code >= 400 and "json" in kind:
        told = msgspec.json.decode(answer.content, type=dict[str, Any])
        assert {"type", "title", "status"} <= told.keys(), said

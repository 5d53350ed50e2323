"""A running edge in front of an empty stream server, for the contracts of its doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis as redis_client

from gateway import limits
from tests.gateways import Running, running_edge
from tests.servers import stream_server


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stream_server("valkey", tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def log_url(_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(limits, "DRAIN_WITHIN", 0.2)  # clients here do not come back
    with redis_client.Redis.from_url(_server) as admin:
        admin.flushall()
    return _server


@pytest.fixture
async def edge(log_url: str) -> AsyncIterator[Running]:
    async with running_edge(log_url) as running:
        yield running

"""Servers as fixtures: started once where sharing is safe, once per test where the test kills them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.errors import ServerMissing
from tests.clusters import cluster
from tests.servers import LOG_SERVERS, USERS, broker, missing, stream_server
from tests.witness import Plugin


@pytest.fixture(scope="session", params=[*sorted(LOG_SERVERS), "cluster"])
def _shared_log_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "cluster":
        # Of one node: every client finds all of it there, and what touches two slots at once is refused.
        with cluster("valkey", folder, masters=1) as one:
            yield one.masters[0].url
    else:
        with stream_server(request.param, folder) as server:
            yield server.url


@pytest.fixture
def log_server(_shared_log_server: str) -> str:
    """The url of an empty stream server; the test runs once on Redis, once on Valkey, once on a cluster of one."""
    with redis_client.Redis.from_url(_shared_log_server) as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()
    return _shared_log_server


@pytest.fixture(params=sorted(LOG_SERVERS))
def fresh_log_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A factory of stream servers of the test's own, to kill and restart: ``fresh_log_server(port=…, extra=…)``."""
    with ExitStack() as running:

        def start(**options: Any) -> Server:
            folder = tmp_path / f"{request.param}-{len(list(tmp_path.iterdir()))}"
            return running.enter_context(stream_server(request.param, folder, **options))

        yield start


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """A factory of Mosquitto brokers with the accounts of `tests.servers`."""
    with ExitStack() as running:

        def start() -> Server:
            folder = tmp_path / f"mosquitto-{len(list(tmp_path.iterdir()))}"
            return running.enter_context(broker(folder))

        yield start


@pytest.fixture
def iotcore_broker(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """A factory of the embedded broker (rumqttd) with the accounts of `tests.servers`."""
    with ExitStack() as running:

        def start() -> Server:
            folder = tmp_path / f"iotcore-{len(list(tmp_path.iterdir()))}"
            try:
                return running.enter_context(embedded.iotcore(folder, users=USERS))
            except ServerMissing as error:
                missing(error)

        yield start


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(), "witness")


_LONGEST = ("whole/test_whole.py", "web/test_minute.py", "faults/test_log_cluster.py", "journeys/test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that one of several workers is not left with it at the end."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONGEST))

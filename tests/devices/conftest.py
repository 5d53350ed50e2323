"""One running fleet, and one broker, for all journeys of a file: they use different devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.devices.broker import Broker, broker_of_the_registry
from tests.devices.fleet import Fleet, open_fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    async with open_fleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker_of_the_registry(tmp_path_factory.mktemp("broker")) as broker:
        yield broker

"""The journeys of `scenarios`, walked by the JavaScript SDK (npm centrifuge) under Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ServerMissing
from tests.journeys.scenarios import SCENARIOS, Scenario, name_of, walk_it
from tests.journeys.sdks import javascript_sdk
from tests.servers import missing


@pytest.mark.parametrize("walk", SCENARIOS, ids=name_of)
async def test_javascript(walk: Scenario, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        await walk_it(walk, javascript_sdk, monkeypatch, tmp_path)
    except ServerMissing as error:
        missing(error)

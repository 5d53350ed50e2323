"""The journeys of `scenarios`, walked by the Python SDK (PyPI centrifuge-python)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ServerMissing
from tests.journeys.scenarios import SCENARIOS, Scenario, name_of, walk_it
from tests.journeys.sdks import python_sdk
from tests.servers import missing


@pytest.mark.parametrize("walk", SCENARIOS, ids=name_of)
async def test_python(walk: Scenario, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        await walk_it(walk, python_sdk, monkeypatch, tmp_path)
    except ServerMissing as error:
        missing(error)

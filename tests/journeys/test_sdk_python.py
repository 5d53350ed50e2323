"""The journeys of `scenarios` and `renewing`, walked by the Python SDK (PyPI centrifuge-python)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gateway.errors import ServerMissing
from tests.journeys.renewing import WALKS
from tests.journeys.scenarios import Scenario, name_of, walk_it
from tests.journeys.sdks import python_sdk
from tests.servers import missing


@pytest.mark.parametrize("protobuf", [False, True], ids=["json", "protobuf"])
@pytest.mark.parametrize("walk", WALKS, ids=name_of)
async def test_python(walk: Scenario, protobuf: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    try:
        await walk_it(walk, partial(python_sdk, protobuf=protobuf), monkeypatch, tmp_path)
    except ServerMissing as error:
        missing(error)

"""Servers of one kind, where the fault is in the worker and any log server shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    with embedded.valkey(tmp_path / "valkey") as server:
        yield server

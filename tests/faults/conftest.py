"""Servers of one kind, where the fault is in the worker and any log server shows it; and the seed of a run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters import embedded
from gateway.adapters.child import Server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Server]:
    with embedded.valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def seed() -> int:
    """Another at each run; FAULT_SEED throws the dice of a run again, though not its timing."""
    return int(os.environ.get("FAULT_SEED") or random.randrange(2**32))

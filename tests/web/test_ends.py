"""The marks at the ends of a chart's lines by themselves: each beside its line, and none upon another."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.house import ROOT
from tests.web.test_timeline import NODE


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], []),
        ([10, 90, 50], [10, 90, 50]),  # far apart: where they were wanted
        ([50, 50, 48], [61, 74, 48]),  # moved down, in the order of their lines
        ([98, 99, 40, 97], [87, 100, 40, 74]),  # at the bottom: up
        ([104, 86], [100, 86]),
    ],
)
def test_none_is_upon_another_or_below_the_chart(wanted: list[float], found: list[float]) -> None:
    code = (
        f"import {{ spread }} from './web/src/devices/ends.ts'; console.log(JSON.stringify(spread({wanted}, 13, 100)))"
    )
    argv = [str(NODE), "--disable-warning=ExperimentalWarning", "--input-type=module", "-e", code]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == found

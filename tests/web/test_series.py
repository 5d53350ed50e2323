"""A line of minutes by itself: what is heard, heard twice, and told by storage, early and late."""

from __future__ import annotations

import json
import subprocess

from tests.house import ROOT
from tests.web.test_timeline import NODE

#: Of TypeScript not all goes by leaving the types out.
FLAGS = ("--experimental-transform-types", "--disable-warning=ExperimentalWarning", "--input-type=module")
CODE = """
import { Series } from "./web/src/devices/series.ts";
const counts = [], line = new Series(60000, 10), settled = () => Date.now() + 1;
const told = (count, ...settled) => line.put({ start: 0, count, mean: 1, min: 1, max: 1 }, ...settled);
const say = () => counts.push(line.since(0)[0].count);
for (let n = 0; n < 3; n++) line.add(1000 * n, 1);
told(2, 1), say();          // storage is behind what came a moment ago
told(2, settled()), say();  // one of them came twice
told(5, 1), say();          // and more came before we listened
console.log(JSON.stringify(counts));
"""


def test_storage_is_right_about_what_came_long_ago() -> None:
    argv = [str(NODE), *FLAGS, "-e", CODE]
    told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == [3, 2, 5]

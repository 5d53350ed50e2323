"""The witness: what fails while the machine stands still runs again, and what fails while it goes on fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers import eventually

#: Fails the first time, after a while; by then its process may have stood still.
_TEST = """
import os, time, pytest
@pytest.fixture(scope="module")
def been():
    first = not os.path.exists("been")
    open("been", "w").close()
    time.sleep(0.5)
    assert not first
def test_it(been): pass
def test_again(been): pass
def test_that_fails():
    time.sleep(0.2)
    assert 0, "always"
"""


def _asked(folder: Path, which: str = "") -> subprocess.Popen[str]:
    folder.joinpath("test_it.py").write_text(_TEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    return subprocess.Popen(
        [*command, "--rootdir", str(folder), f"test_it.py{which}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_what_fails_on_a_machine_that_stands_still_runs_again(tmp_path: Path) -> None:
    asked = _asked(tmp_path)
    await eventually((tmp_path / "been").exists)
    asked.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5)
    asked.send_signal(signal.SIGCONT)
    said = asked.communicate(timeout=30)[0]
    assert "1 failed, 2 passed, 1 warning" in said
    assert "StoodStill: it failed while " in said
    assert "FAILED test_it.py::test_that_fails" in said


def test_what_fails_on_a_machine_that_goes_on_fails(tmp_path: Path) -> None:
    said = _asked(tmp_path, "::test_that_fails").communicate(timeout=30)[0]
    assert "1 failed" in said
    assert "the machine" in said

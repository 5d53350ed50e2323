"""A witness of the machine: how long it stood still while a test ran.

A test asserts what happens, not how fast; still, leases end and connections are given up on a machine that gives nobody
its processor, or its disk, for seconds. What fails while that happens says nothing of the product: it runs once more,
and a warning tells. What fails on a machine that goes on fails.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

#: Seconds of standing still in which a failure proves nothing: below the shortest lease and timeout of the product.
LONG = 1.0
_STEP = 0.05
#: Tests after which what is still alive is looked at by no collection any more.
_FREEZE_EVERY = 20


class StoodStill(pytest.PytestWarning):
    """A test failed while the machine stood still, and was run again."""


class Witness(threading.Thread):
    """Sleeps, writes and looks at the clock, and notes how much longer than it should each of that took."""

    def __init__(self) -> None:
        super().__init__(name="witness", daemon=True)
        self._collecting = 0.0
        gc.callbacks.append(self._collected)
        #: The longest in seconds, and of what, since `begin`.
        self.longest, self.what = 0.0, ""

    def begin(self) -> None:
        self.longest, self.what = 0.0, ""

    def run(self) -> None:
        with tempfile.TemporaryFile() as file:
            while True:
                began, clock = time.monotonic(), time.time()
                time.sleep(_STEP)
                slept = time.monotonic()
                self._note("nothing ran", slept - began - _STEP)
                self._note("the clock jumped", abs(time.time() - clock - (slept - began)))
                os.pwrite(file.fileno(), b"x", 0)
                os.fsync(file.fileno())
                self._note("the disk did not write", time.monotonic() - slept)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.monotonic()
        else:
            self._note("garbage was collected", time.monotonic() - self._collecting)

    def _note(self, what: str, seconds: float) -> None:
        if seconds > 1.2 * self.longest:  # the first name of the same pause is the nearest
            self.longest, self.what = seconds, what

    def __str__(self) -> str:
        return f"{self.what} for {self.longest:.1f} s"


class Plugin:
    """Lets each test run under the eyes of a witness."""

    def __init__(self) -> None:
        self._witness = Witness()
        self._witness.start()
        self._tests = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._witness.begin()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if any(report.failed for report in reports) and self._witness.longest > LONG:
            item.warn(StoodStill(f"it failed while {self._witness}, and runs again: {_why(reports)}"))
            with suppress(Exception):  # what failed to end is gone with this process
                item.session._setupstate.teardown_exact(None)  # fixtures that others share may have failed too
            self._witness.begin()
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            said: Any = report.longrepr
            if report.failed and hasattr(said, "addsection"):
                said.addsection("the machine", f"at worst {self._witness}")
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        self._tests += 1
        if self._tests % _FREEZE_EVERY == 0:
            # What thousands of tests leave behind would be looked through again and again, for seconds, with the
            # gateways of the test standing still.
            gc.collect()
            gc.freeze()
        return True


def _why(reports: list[pytest.TestReport]) -> str:
    return next(report.longreprtext.splitlines()[-1] for report in reports if report.failed)

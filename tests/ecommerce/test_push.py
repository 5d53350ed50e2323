"""Short messages that nobody takes: the shop says so, and its log does not say to whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PHONE = "+4915177733311"
#: As a process of the service has it, and what apprise makes of a server that is away and of a number that is none.
PROGRAM = f"""
import asyncio, logging
from ecommerce.notifications.push import push
from gateway.logs import configure
configure("text", "debug")
for url in ("json://127.0.0.1:9/{{phone}}", "twilio://AC{"1" * 32}:{"2" * 32}@12345/{{phone}}x", "vonage://key/{{phone}}"):
    try:
        asyncio.run(push([url], "For Zephyrine", "It left.", "{PHONE}"))
    except Exception as error:
        logging.getLogger("gateway.worker").error("%s", error)
"""


def test_apprise_tells_no_log_whom_it_writes_to() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    said = done.stdout + done.stderr
    assert said.count("a channel of apprise did not take it") == 2
    assert said.count("an apprise URL is not understood") == 1
    for personal in (PHONE[1:], "Zephyrine", "127.0.0.1", "12345", "AC1111"):
        assert personal not in said, said

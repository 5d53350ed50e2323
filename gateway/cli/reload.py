"""``gateway reload``: a running ``gateway up`` takes in what is declared now."""

from __future__ import annotations

import os
import signal

from gateway.cli.configuration import Config, gather
from gateway.errors import Misconfigured
from gateway.up import running


def run(config: Config = None) -> None:
    """Have the `gateway up` that runs here read topics, rights and MQTT maps again, if they are right.

    Other processes of the gateway take them in on SIGHUP, `docker compose kill -s HUP …`. Each says in its log and its
    metrics what came of it.
    """
    found = gather(config)
    up = running(found.settings)
    if up is None:
        raise Misconfigured("no `gateway up` runs here", "send SIGHUP to the processes, see docs/operating.md")
    os.kill(up.pid, signal.SIGHUP)
    print(f"told `gateway up`, process {up.pid}, to take in {len(found.declared.topics)} topics; it says what it did")

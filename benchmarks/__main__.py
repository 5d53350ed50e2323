"""``python -m benchmarks [NAME ...] [--quick]``: measure, print, and after a whole run write ``RESULTS.md``."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import (
    append,
    edges,
    endtoend,
    fanout,
    fanout_peers,
    fleet,
    idle,
    ingest,
    loads,
    machine,
    results,
    room,
    router,
    services,
    shop,
    storm,
)
from gateway.errors import ServerMissing

#: In this order: the router first, while the process is small.
BENCHES: dict[str, Callable[[Path, bool], results.Section]] = {
    "router": router.run,
    "fanout": fanout.run,
    "idle": idle.run,
    "ingest": ingest.run,
    "endtoend": endtoend.run,
    "append": append.run,
    "edges": edges.run,
    "services": services.run,
    "storm": storm.run,
    "shop": shop.run,
    "fleet": fleet.run,
    "room": room.run,
}


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the gateway on this machine.")
    asked.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHES)}; all by default")
    asked.add_argument("--quick", action="store_true", help="under a minute: shows that it works, measures nothing")
    options = asked.parse_args()
    if unknown := set(options.names) - BENCHES.keys():
        asked.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    # Settings of a gateway on this machine are not the benchmarks'.
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        del os.environ[name]
    console, sections = Console(), []
    try:
        loads.build()
        os.sched_setaffinity(0, {machine.GENERATOR_CORE})
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
            for name in options.names or BENCHES:
                console.print(f"{name} ...")
                sections.append(BENCHES[name](Path(folder), options.quick))
                results.show(sections[-1], console)
    except (machine.NotMeasurable, ServerMissing) as error:
        console.print(f"cannot measure: {error}")
        return 2
    if options.quick or options.names:
        console.print("RESULTS.md stays as it is: only a whole run writes it.")
        return 0
    facts = machine.described() | machine.versions() | fanout_peers.versions()
    text = results.markdown(sections, facts, "make bench", datetime.datetime.now(datetime.UTC).date())
    results.FILE.write_text(text, encoding="utf-8")
    console.print(f"written: {results.FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A running `gateway up` as a test sees it: what it says, where it answers, and who its children are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from gateway.adapters import embedded
from tests.servers import eventually

PROGRAM = (sys.executable, "-m", "gateway.cli")
ROOT = Path(__file__).parents[2]
#: A guard against hanging; `up` itself promises 5 s on an idle machine.
STARTED_WITHIN = 100.0
#: The same for its services, of which there are many for two cores.
WHOLE_WITHIN = 300.0

#: The example of the README.
OWN = """
[edge]
anonymous = true

[[topics]]
pattern = "greenhouse/{bed}/humidity"
write = ["device", "operator"]
read = ["user", "operator"]
key = "{bed}"
retain = true
mqtt = "in"

[[topics]]
pattern = "try/#"
payload = "bytes"
write = ["anyone"]
read = ["anyone"]
mqtt = "in"
"""


class Up:
    """A running `gateway up` in a folder of its own, with OWN; or ``demo``, with all that the checkout has."""

    def __init__(
        self, folder: Path, port: int = 0, heard: bool = True, demo: bool = False, program: tuple[str, ...] = PROGRAM
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._cwd = ROOT if demo else folder
        if not demo:
            (folder / "gateway.toml").write_text(OWN)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.env |= {
            "GATEWAY_DATA": str(self.data),
            "GATEWAY_EDGE_PORT": str(port or embedded.free_port()),
            "COLUMNS": "200",
            "ACCOUNTS_HASH_MIB": "1",
        }
        self.env |= {f"ECOMMERCE_{step}": "0.01" for step in ("PACKING", "DRIVING", "THINKING")}
        words = [*program, "up", *(["--demo"] if demo else [])]
        self.out = folder / "up.out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                words,
                env=self.env,
                cwd=self._cwd,
                stdout=out if heard else subprocess.PIPE,
                stderr=out,
            )
        if self.process.stdout is not None:
            self.process.stdout.close()  # before it says a word: a reader that ends later may have had all of them

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.said)
        assert match, self.said
        return match[1]

    @property
    def edge(self) -> str:
        return self.found(r"HTTP, SSE +(\S+)")

    @property
    def broker_port(self) -> int:
        return int(self.found(r"MQTT +mqtt://127\.0\.0\.1:(\d+)"))

    @property
    def commands(self) -> list[str]:
        _, _, rest = self.said.partition("Try next, in another terminal:\n")
        return [line.strip() for line in rest.split("\n\n")[0].splitlines()]

    async def up(self) -> None:
        await eventually(lambda: "Try next" in self.said or self.dead(), STARTED_WITHIN)

    def dead(self) -> bool:
        assert self.process.poll() is None, self.said
        return False

    def children(self) -> dict[str, int]:
        """Name -> process, of the children that run now."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                words = (status.parent / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self.process.pid:
                found[name_of(words)] = int(status.parent.name)
        return found

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *words], env=self.env, cwd=self._cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def watched(self, filters: int) -> None:
        await eventually(lambda: f"gateway_filters {filters}.0" in httpx.get(f"{self.edge}/metrics").text, 60)


def name_of(words: list[str]) -> str:
    line = " ".join(words)
    return next(
        (n for n in ("demo.py", "valkey", "mosquitto", "iotcore") if n in line),
        words[4] if words[3:4] == ["work"] else words[3] if words[3:] else line,
    )


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True

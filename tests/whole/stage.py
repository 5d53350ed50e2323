"""All applications on one real `gateway up`, whose processes are killed one by one and come back by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from accounts.app import app as accounts
from chat.app import app as chat
from devices.app import app as devices
from ecommerce.app import app as ecommerce
from gateway import Service
from gateway.adapters import embedded
from gateway.errors import ServerMissing
from gateway.up import Running
from tests.devices.fleet import Receiver
from tests.ecommerce.shop import Mails
from tests.servers import eventually, missing

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "gateway.cli")
APPS: Final = (accounts, devices, ecommerce, chat)
SERVICES: Final[Mapping[str, Service]] = {
    f"{app.name}.{service.name}": service for app in APPS for service in app.services
}
NAMES: Final = frozenset({*SERVICES, "edge", "bridge", "valkey", "mosquitto"})
#: A hang guard, ten times what the slowest honest step takes on a busy machine: all services start again, or catch up.
WITHIN: Final = 300.0
#: Where one rule's alerts go, and what signs them.
CHANNEL, SECRET = "pager", b"what the pager and we share"
#: What is said of a death is one line; of a test that failed, people want to see the last of them.
_SAID = 4_000

_CONFIG = """
[gateway]
apps = ["accounts.app:app", "devices.app:app", "ecommerce.app:app", "chat.app:app"]
partitions = 2
"""


class Whole:
    """What runs: its processes by name, and the address of its edge; and who gets its mails and webhooks."""

    def __init__(self, folder: Path, databases: Mapping[str, str], mails: Mails, pager: Receiver) -> None:
        self.folder, self.data, self.databases = folder, folder / "data", databases
        self.mails, self.pager = mails, pager
        tables = "".join(f'\n[services."{group}"]\ndatabase = "{url}"\n' for group, url in databases.items())
        keep = "".join(f"\n[apps.{app.name}]\nkeep = 1_000_000\n" for app in APPS)
        (folder / "gateway.toml").write_text(_CONFIG + keep + tables)
        ours = ("GATEWAY_", "ACCOUNTS_", "CHAT_", "DEVICES_", "ECOMMERCE_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.env |= {"GATEWAY_DATA": str(self.data), "GATEWAY_EDGE_PORT": str(embedded.free_port())}
        self.env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "ACCOUNTS_HASH_MIB": "1"}
        self.env |= {"ECOMMERCE_PACKING": "0.05", "ECOMMERCE_DRIVING": "0.05", "ECOMMERCE_THINKING": "1"}
        secret, channels = folder / "pager.secret", folder / "channels.toml"
        secret.write_bytes(SECRET)
        channels.write_text(f'[{CHANNEL}]\nurl = "http://127.0.0.1:{pager.port}/"\nsecret_file = "{secret}"\n')
        self.env |= {"DEVICES_CHANNELS_FILE": str(channels), "DEVICES_WEBHOOK_PRIVATE": "1"}
        self.env |= {"ECOMMERCE_SMTP": f"smtp://127.0.0.1:{mails.port}"}
        self.began, self.out = time.monotonic(), folder / "up.out"
        with self.out.open("wb") as out:
            self._up = subprocess.Popen([*PROGRAM, "up"], env=self.env, cwd=folder, stdout=out, stderr=out)
        self.running: Running
        self.http: httpx.AsyncClient

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")[-_SAID:]

    @property
    def broker_saved(self) -> float:
        """When the broker wrote its file last; 0.0 where it has not."""
        file = self.data / "mqtt" / "mosquitto.db"
        return file.stat().st_mtime if file.exists() else 0.0

    def url_of(self, group: str) -> str:
        return self.databases.get(group) or f"sqlite:///{self.data / group}.db"

    def operator(self) -> dict[str, str]:
        return {"authorization": f"Bearer {(self.data / 'operator.token').read_text().strip()}"}

    def processes(self) -> dict[str, int]:
        """Name → process, of those that run now: services by their groups, and the others by theirs."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
                words = (status.parent / "cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == self._up.pid and (name := _name(words)):
                found[name] = int(status.parent.name)
        return found

    async def wholly(self) -> None:
        """Wait until every process runs and says that it is ready."""
        await eventually(self._whole, WITHIN)

    async def _whole(self) -> bool:
        assert self._up.poll() is None, self.said
        if not (self.data / "up.json").exists() or not (self.data / "operator.token").exists():
            return False
        self.running = msgspec.json.decode((self.data / "up.json").read_bytes(), type=Running)
        await asyncio.sleep(0.4)  # sixteen answers cost more than they tell, twice in a moment
        if not NAMES <= self.processes().keys():
            return False
        async with httpx.AsyncClient(timeout=WITHIN, trust_env=False) as probe:
            for at in (self.running.edge, *self.running.health.values()):
                try:
                    answer = await probe.get(f"{at}/readyz")
                    # A bridge that stands by is ready too: the lease of the one that was killed is not over.
                    if answer.status_code != httpx.codes.OK or answer.text.startswith("standby"):
                        return False
                except httpx.TransportError:
                    return False
        return True

    def kill(self, *names: str) -> dict[str, int]:
        """Kill these at one moment; returns who they were."""
        were = {name: pid for name, pid in self.processes().items() if name in names}
        assert were.keys() == set(names), f"{names}: {self.said}"
        for pid in were.values():
            os.kill(pid, signal.SIGKILL)
        return were

    async def replaced(self, were: Mapping[str, int]) -> None:
        """Wait until others are in their places, and all is ready."""

        async def others() -> bool:
            assert self._up.poll() is None, self.said
            await asyncio.sleep(0.1)  # to look costs what is looked for
            now = self.processes()
            return all(now.get(name, pid) != pid for name, pid in were.items())

        await eventually(others, WITHIN)
        await self.wholly()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """As the operator; returns what was answered."""
        answer = await asked(self.http, method, path, body, self.operator())
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def ran(self, *words: str) -> str:
        """Return what a command of the gateway prints, on this gateway."""
        done = subprocess.run(
            [*PROGRAM, *words], env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=WITHIN
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> None:
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
        try:
            self._up.wait(WITHIN)
        finally:
            self._up.kill()  # its children end with it


async def asked(
    http: httpx.AsyncClient, method: str, path: str, body: object, headers: dict[str, str]
) -> httpx.Response:
    """Return an answer that is final: what may be asked again is, with the same words, as a user's client would."""
    while True:
        try:
            answer = await http.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            pause = 0.3  # the edge was killed; whether it had heard us, nobody knows
        else:
            if (pause := wait_of(answer)) < 0:
                return answer
        await asyncio.sleep(min(pause, 2.0))


def wait_of(answer: httpx.Response) -> float:
    """Return for how many seconds to wait before asking again; below 0 for an answer that is final."""
    if answer.headers.get("content-type") != "application/problem+json":
        return -1.0 if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR else 0.3
    told = answer.json()
    return float(told.get("retry_after", 0.3)) if told["retryable"] else -1.0


def _name(words: list[str]) -> str:
    """Return what a process is called here; nothing of one that is not itself yet."""
    if words[1:3] == ["-m", "gateway.cli"]:
        return words[4] if words[3] == "work" else words[3]
    program = Path(words[0]).name
    return next((name for name in ("valkey", "mosquitto") if name in program), "")


@asynccontextmanager
async def whole(folder: Path, databases: Mapping[str, str] | None = None) -> AsyncIterator[Whole]:
    """Everything runs in the block."""
    if shutil.which("mosquitto") is None and shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") is None:
        missing(ServerMissing("mosquitto", "apt install mosquitto"))
    mails, pager = Mails(), Receiver()
    async with mails.serving(), pager.serving():
        stage = Whole(folder, databases or {}, mails, pager)
        try:
            await stage.wholly()
            async with httpx.AsyncClient(base_url=stage.running.edge, timeout=30.0, trust_env=False) as stage.http:
                yield stage
        finally:
            await asyncio.to_thread(stage.end)

"""A fleet as a developer starts it: `gateway up` with one application, its devices by the commands, a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gateway.adapters import embedded
from gateway.errors import ServerMissing
from gateway.up import Running
from tests.deploy.mqtt_clients import Peer, Refused
from tests.servers import eventually, missing

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "gateway.cli"]
#: A guard against hanging.
WITHIN = 200.0


class Stage:
    """What runs, and commands beside it."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.env, self.folder = env, folder
        self.running: Running

    async def gateway(self, *words: str, fails: int = 0) -> str:
        ran = await asyncio.to_thread(
            subprocess.run,
            [*PROGRAM, *words],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert ran.returncode == fails, f"{words}: {ran.returncode} {ran.stdout}{ran.stderr}"
        assert "Traceback" not in ran.stderr
        return ran.stdout if not fails else ran.stderr

    async def devices(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (await self.gateway("devices", "ls")).splitlines()]

    def get(self, path: str) -> Any:
        try:  # its token may come after its address
            headers = {"authorization": f"Bearer {(self.folder / 'data' / 'operator.token').read_text().strip()}"}
            answer = httpx.get(self.running.edge + path, headers=headers, trust_env=False, timeout=30)
        except (httpx.TransportError, FileNotFoundError):
            return None
        return answer.json() if answer.is_success else None

    def peer(self, word: str) -> Peer | None:
        try:
            return Peer("127.0.0.1", "pump-1", word, port=int(self.running.mqtt.rpartition(":")[2]))
        except Refused:
            return None

    async def enters(self, word: str) -> Peer:
        found: list[Peer | None] = []

        async def come() -> bool:
            found.append(await asyncio.to_thread(self.peer, word))
            return found[-1] is not None

        await eventually(come, within=WITHIN)
        assert found[-1] is not None
        return found[-1]

    async def stays_out(self, word: str) -> None:
        async def refused() -> bool:
            peer = await asyncio.to_thread(self.peer, word)
            if peer is not None:
                peer.close()
            return peer is None

        await eventually(refused, within=WITHIN)


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """`gateway up` runs in the block, with every service of the fleet."""
    port = embedded.free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "DEVICES_"))}
    env |= {"GATEWAY_DATA": str(folder / "data"), "GATEWAY_EDGE_PORT": str(port), "GATEWAY_PARTITIONS": "2"}
    env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": "devices.app:app", "GATEWAY_URL": f"http://127.0.0.1:{port}"}
    stage, out = Stage(env, folder), folder / "out"
    with out.open("wb") as said:
        up = await asyncio.create_subprocess_exec(*PROGRAM, "up", env=env, stdout=said, stderr=said, cwd=folder)
    try:

        def ready() -> bool:
            assert up.returncode is None, out.read_text()
            try:
                stage.running = msgspec.json.decode((folder / "data" / "up.json").read_bytes(), type=Running)
            except (OSError, msgspec.DecodeError):
                return False
            paths = ("registry/", "alerting/rules", "storage/x/latest")
            return all(stage.get(f"/devices/{path}") is not None for path in paths)

        await eventually(lambda: asyncio.to_thread(ready), within=WITHIN)
        yield stage
    except AssertionError as error:
        error.add_note(out.read_text())
        raise
    finally:
        up.send_signal(signal.SIGTERM)
        await up.wait()


async def test_devices_come_in_and_go_by_commands_and_a_bad_reading_is_mended(tmp_path: Path) -> None:
    try:
        embedded._program("mosquitto", "apt install mosquitto")
    except ServerMissing as error:
        missing(error)
    async with staged(tmp_path) as stage:
        word = (await stage.gateway("devices", "create", "pump-1", "--label", "in the hall")).strip()
        assert len(word) >= 24
        peer = await stage.enters(word)
        (pump,) = await stage.devices()
        assert (pump["device"], pump["state"], pump["label"]) == ("pump-1", "active", "in the hall")
        bad = {"boot": 1, "seq": 1, "ts": int(time.time() * 1000), "m": {"temp": "hot"}}
        assert await asyncio.to_thread(peer.publish, "devices/pump-1/telemetry", json.dumps(bad).encode()) == 0
        (letter,) = await mended(stage, bad | {"m": {"temp": 21.5}})
        assert (letter["group"], letter["reason"]) == ("devices.storage", "rejected")
        kept = list[Any]()

        def stored() -> bool:
            kept[:] = (stage.get("/devices/storage/pump-1/latest") or {"items": []})["items"]
            return bool(kept)

        await eventually(lambda: asyncio.to_thread(stored), within=WITHIN)
        (latest,) = kept
        assert (latest["ts"], latest["value"]) == (bad["ts"], 21.5)

        assert json.loads(await stage.gateway("devices", "want", "pump-1", '{"every": 5}')) == {"every": 5}
        assert json.loads(await stage.gateway("devices", "shadow", "pump-1"))["desired"] == {"every": 5}
        assert "SETTINGS" in await stage.gateway("devices", "want", "pump-1", "every=5", fails=2)
        assert "no device has such a name" in await stage.gateway("devices", "shadow", "Pump", fails=1)
        await stage.gateway("devices", "suspend", "pump-1")
        await eventually(peer.cut.is_set, within=WITHIN)
        await asyncio.to_thread(peer.close)
        await stage.stays_out(word)
        assert [one["state"] for one in await stage.devices()] == ["suspended"]
        await stage.gateway("devices", "resume", "pump-1")
        peer = await stage.enters(word)
        await stage.gateway("devices", "delete", "pump-1")
        await eventually(peer.cut.is_set, within=WITHIN)
        await asyncio.to_thread(peer.close)
        await stage.stays_out(word)
        assert await stage.devices() == []
        assert "there is no device" in await stage.gateway("devices", "resume", "pump-1", fails=1)
        assert "No such file" not in await stage.gateway("devices", "ls", "--url", "http://127.0.0.1:1", fails=1)
        assert "token" in await stage.gateway("devices", "ls", "--token-file", "none", fails=2)


async def mended(stage: Stage, right: dict[str, Any]) -> list[dict[str, Any]]:
    """Edit the one dead letter, and return what it was."""

    def there() -> bool:
        said = stage.get("/dead?group=devices.storage")
        return bool(said and said["letters"])

    await eventually(lambda: asyncio.to_thread(there), within=WITHIN)
    found = [json.loads(line) for line in (await stage.gateway("dead", "ls", "--json")).splitlines()]
    await stage.gateway("dead", "edit", found[0]["letter"], "--data", json.dumps(right))
    return found

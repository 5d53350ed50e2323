"""The shop as a developer starts it: `gateway up` with two applications, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from gateway.adapters import embedded
from tests.servers import eventually

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "gateway.cli"]


def started(env: dict[str, str], out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as said:
        return subprocess.Popen([*PROGRAM, "up"], env=env, stdout=said, stderr=said, cwd=out.parent)


def ran(env: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


async def test_two_applications_are_named_and_people_buy(tmp_path: Path) -> None:
    port = embedded.free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "ECOMMERCE_"))}
    env |= {"GATEWAY_DATA": str(tmp_path / "data"), "GATEWAY_EDGE_PORT": str(port), "GATEWAY_PARTITIONS": "2"}
    env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": "accounts.app:app,ecommerce.app:app", "ACCOUNTS_HASH_MIB": "1"}
    env |= {f"ECOMMERCE_{step}": "0.01" for step in ("PACKING", "DRIVING", "THINKING")}
    out = tmp_path / "out"
    up = started(env, out)

    def ready() -> bool:
        assert up.poll() is None, out.read_text()
        return "services are ready" in out.read_text()

    try:
        await eventually(ready, 100)
        words = ["ecommerce", "simulate", "--orders", "3", "--customers", "1", "--url", f"http://127.0.0.1:{port}"]
        day = await asyncio.to_thread(ran, env, tmp_path, *words)
        assert day.returncode == 0, day.stdout + day.stderr + out.read_text()
        keys = sorted((tmp_path / "data" / "keys").iterdir())
        assert [path.name for path in keys] == [
            f"ecommerce.{one}.key" for one in ("acquirer", "notifications", "payments")
        ]
        assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(100)

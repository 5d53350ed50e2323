"""The shop as a developer starts it: `gateway up` with two applications, and nothing else."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from ecommerce.commands import shown
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


def test_no_number_of_a_day_is_cut_where_eighty_columns_are_all_there_is() -> None:
    said, ends = io.StringIO(), "700 completed 200 cancelled 60 expired 40 out_of_stock"
    with shown(Console(file=said, width=80, force_terminal=False)) as bar:
        bar.add_task("ended", total=1000, completed=1000, ends=ends)
    assert re.fullmatch(rf"ended .* 1000/1000 [0-9:]+ {ends} *", " ".join(said.getvalue().split()))


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
        day = await asyncio.to_thread(ran, env | {"COLUMNS": "80", "FORCE_COLOR": ""}, tmp_path, *words)
        assert day.returncode == 0, day.stdout + day.stderr + out.read_text()
        placed, ended, *more, said = day.stdout.splitlines()
        assert re.fullmatch(r"placed .* 3/3 [0-9:]+ *", placed), day.stdout
        how = re.fullmatch(r"ended .* 3/3 [0-9:]+ (.*)", " ".join([ended, *map(str.strip, more)]))
        counted = re.findall(r"([0-9]+) ([a-z_]+)", how[1] if how else "")
        assert sum(int(n) for n, _ in counted) == 3, day.stdout
        ends = ", ".join(f"{n} {end}" for n, end in sorted(counted, key=lambda one: one[1]))
        assert re.fullmatch(rf"{ends}; answered in [0-9]+ ms \(median\), [0-9]+ ms \(99 %\)", said), day.stdout
        keys = sorted((tmp_path / "data" / "keys").iterdir())
        assert [path.name for path in keys] == [
            f"ecommerce.{one}.key" for one in ("acquirer", "notifications", "payments")
        ]
        assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(100)

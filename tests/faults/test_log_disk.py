"""The log server's disk fills up and is given more: publishers hear it, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import Unavailable
from tests.contracts.log_running import draft
from tests.faults.log_checker import complaints
from tests.faults.log_load import Load, P, running, story
from tests.servers import LOG_SERVERS, eventually, stream_server


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, size: str) -> None:
        subprocess.run(_mount("-o", f"remount,size={size}", str(self.folder)), check=True)


def _mount(*arguments: str) -> list[str]:
    return [shutil.which("mount") or "mount", *arguments]


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Disk]:
    folder.mkdir()
    subprocess.run(_mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)), check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run([shutil.which("umount") or "umount", "--lazy", str(folder)], check=True)


# Not a missing server: no installation makes root of somebody, in CI or at home.
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk to fill; run as root")
@pytest.mark.parametrize("name", sorted(LOG_SERVERS))
async def test_a_full_disk_loses_nothing_acknowledged_and_heals(name: str, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "2m") as small:
        with stream_server(name, small.folder / "data") as server:
            async with running(server.url) as log:
                load = Load(log)
                await load.watch()
                load.pour()
                # With `appendfsync always` both servers end rather than acknowledge what the disk did not take.
                await eventually(lambda: not server.alive, within=60)
                (answer,) = await log.append(P, [draft("devices/1/telemetry", "impatient")], patient=False)
                assert isinstance(answer, Unavailable), answer
                assert answer.retry
                acknowledged = dict(load.acknowledged)
                assert acknowledged
                small.resize("64m")
                await asyncio.to_thread(server.start)
                await eventually(lambda: len(load.acknowledged) > len(acknowledged) + 300, within=30)
                await load.settle()
                await eventually(lambda: load.seen and load.seen[-1][1] >= max(load.acknowledged.values()))
                told = await story(log, load, lives=2, doubles=True)
                assert complaints(told) == set()
                assert len(load.acknowledged) == len(load.sent)
                assert load.lost == 0
                await load.end()

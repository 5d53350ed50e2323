"""Children of `gateway up` that fail at a bad moment: at the start, and as soon as they are there."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway import limits
from gateway.adapters.child import Door, Plan, Server
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.errors import ServerFailed
from gateway.settings import GatewayTable, LogTable, MqttTable, Settings
from gateway.up import Up
from tests.servers import eventually


class Staged(Up):
    """Its bridge cannot start, and its edge comes a moment later."""

    def __init__(self, folder: Path, say: list[str]) -> None:
        log, mqtt = LogTable(url="redis://elsewhere"), MqttTable(url="mqtt://elsewhere")
        settings = Settings(gateway=GatewayTable(data=str(folder)), log=log, mqtt=mqtt)
        super().__init__(settings, Declared([]), TopicMap([]), None, say.append)
        self.failed = threading.Event()
        self.edge: Server | None = None

    def _process(self, name: str, doors: tuple[Door, ...], *words: str, now: bool = True) -> Server:
        if name == "bridge":
            self.failed.set()
            raise ServerFailed("the bridge cannot start", "")
        self.failed.wait(10)
        time.sleep(0.1)  # in a thread: what waits for both has heard of the bridge by then
        self.edge = self._server(name, (sys.executable, "-c", "import time; time.sleep(60)"), (), now=now)
        return self.edge


class Fleeting(Server):
    """It is gone before anybody looks at it."""

    def start(self) -> None:
        super().start()
        if self._child is not None:
            self._child.wait()


async def test_who_dies_as_soon_as_it_is_back_takes_nobody_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESTART_PAUSE", (0.01, 0.01))
    monkeypatch.setattr(limits, "LOOK_EVERY", 0.01)
    said: list[str] = []
    up = Staged(tmp_path, said)
    up._children.append(Fleeting(Plan("demo", (sys.executable, "-c", "exit('boom')"), tmp_path, ())))
    keeping = asyncio.create_task(up.keep(), name="keep")
    await eventually(lambda: keeping.done() or len(said) >= 2)
    assert not keeping.done()
    assert set(said) == {"demo ended after saying 'boom'; starting it again"}
    keeping.cancel()


async def test_where_one_cannot_start_the_others_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_URL", "MQTT_URL", "EDGE_PORT", "DATA", "ORIGIN"):
        monkeypatch.setenv(f"GATEWAY_{name}", "")  # and puts them back
    up = Staged(tmp_path, [])
    with pytest.raises(ServerFailed, match="the bridge cannot start"):
        await up.start()
    await up.stop()
    assert up.edge is not None
    assert not up.edge.alive

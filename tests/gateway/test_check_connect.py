"""``gateway check --connect`` beside a running bridge, on a broker that takes the username for the client id."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.adapters.child import Server
from gateway.adapters.mqtt import MqttClient
from tests.bridges import options, running_bridge, value
from tests.servers import GATEWAY, GATEWAY_PASSWORD, eventually

CONFIG = """
[log]
url = "{log}"

[mqtt]
url = "{broker}"
client_id = "bridge"
username = "{name}"
password_file = "password"

[[topics]]
pattern = "devices/{{device}}/telemetry"
write = ["device:{{device}}"]
mqtt = "in"
"""


async def test_a_running_bridge_is_not_thrown_out(
    log_server: str, mosquitto: Callable[[], Server], tmp_path: Path
) -> None:
    broker = mosquitto()
    conf = broker.log.parent / "mosquitto.conf"
    conf.write_text(conf.read_text() + "use_username_as_clientid true\n")
    await asyncio.to_thread(broker.restart)
    (tmp_path / "password").write_text(GATEWAY_PASSWORD)
    (tmp_path / "gateway.toml").write_text(CONFIG.format(log=log_server, broker=broker.url, name=GATEWAY))
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}

    def check(command: str = "check", *words: str) -> str:
        argv = [sys.executable, "-m", "gateway.cli", command, *words]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        return done.stdout

    async with running_bridge(log_server, options(broker)) as bridge:
        said = await asyncio.to_thread(check, "check", "--connect")
        assert f"broker: {broker.url}: not asked, for " in said
        assert " serves it: ok\n" in said
        examined = await asyncio.to_thread(check, "doctor")
        assert "ok    bridge: " in examined
        assert value(bridge, "gateway_mqtt_reconnects_total") == 0
        # What it would have done: another id, the same account.
        async with MqttClient(options(broker, client_id="another"), (), lambda _: None):
            await eventually(lambda: value(bridge, "gateway_mqtt_reconnects_total") > 0, within=30)
    said = await asyncio.to_thread(check, "check", "--connect")
    assert f"broker: {broker.url}: ok\n" in said
    (tmp_path / "gateway.toml").write_text(CONFIG.format(log="redis://127.0.0.1:1", broker=broker.url, name=GATEWAY))
    assert "not asked, for a bridge may serve it" in await asyncio.to_thread(check, "check", "--connect")

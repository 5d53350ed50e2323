"""A small fleet: real readings from CSV files, sent by devices over MQTT 5 as if they happened now.

    python examples/fleet.py mqtt://127.0.0.1:1883 ACCOUNTS [--every 1.0]

ACCOUNTS is a JSON file of device names and passwords, {"seattle-01": "…"}. What a device measures follows from its
name: `seattle-` and `bay-` the air, `river-` the flow of a river, `room-` a room, `meter-` the same room by a device
whose topic was burnt in years ago. Each sends its birth and leaves a will; every reading carries `boot` and `seq`, so
that nothing is counted twice. The files are read out of the wheels of vega_datasets and river, which are not imported.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

#: What a name begins with -> package, file, the column of the time, and column -> field of the readings.
SERIES = {
    "seattle": ("vega_datasets", "_data/seattle-temps.csv", "date", {"temp": "fahrenheit"}),
    "bay": ("vega_datasets", "_data/sf-temps.csv", "date", {"temp": "fahrenheit"}),
    "river": ("river", "datasets/water-flow.csv", "Time", {"Water flow [l/s]": "litres_per_second"}),
    "room": (
        "river",
        "drift/datasets/occupancy.csv",
        "time",
        {"V1": "celsius", "V2": "humidity", "V3": "lux", "V4": "co2_ppm"},
    ),
}
SERIES["meter"] = SERIES["room"]
#: More devices would need one selector for all of them; each of these has a thread.
MOST_DEVICES = 100
#: Messages of a device that wait while the broker is away; paho then drops the newest.
MOST_WAITING = 100
PROGRESS_EVERY = 30.0


def readings(series: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield the readings of ``series`` from row ``start`` on, again and again; raises SystemExit without the file."""
    package, name, clock, columns = SERIES[series]
    spec = find_spec(package)
    folder = next(iter(spec.submodule_search_locations or []), None) if spec is not None else None
    path = Path(folder or ".", name)
    if folder is None or not path.is_file():
        sys.exit(f"error: {package} is not installed; install its data with: pip install --no-deps {package}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            {"measured": row[clock]} | {field: float(row[column]) for column, field in columns.items() if row[column]}
            for row in csv.DictReader(file)
        ]
    return islice(cycle(rows), start % len(rows), None)


class Device:
    """One device: its session at the broker, and the number of its next reading."""

    def __init__(self, name: str, password: str, number: int) -> None:
        self.name = name
        self.seq = 0
        self._boot = int(time.time())
        self._series = name.partition("-")[0]
        # Devices of one kind stand at different places of the same file.
        self._readings = readings(self._series, number * 500)
        self._topic = f"tele/{name}/SENSOR" if self._series == "meter" else f"devices/{name}/telemetry"
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(name, password)
        self._client.max_queued_messages_set(MOST_WAITING)
        self._client.reconnect_delay_set(1, 10)
        self._client.on_connect = self._born
        if self._series != "meter":
            self._client.will_set(f"devices/{name}/status", self._status("offline"), qos=1, retain=True)

    def connect(self, host: str, port: int) -> None:
        # Its thread connects, and connects again whenever it is cut off.
        self._client.connect_async(host, port, keepalive=30, clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY)
        self._client.loop_start()

    def send(self) -> None:
        """Send the next reading, at least once; its id makes a second copy recognizable."""
        self.seq += 1
        reading = next(self._readings) | {"boot": self._boot, "seq": self.seq}
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.UserProperty = ("id", f"{self.name}:{self._boot}:{self.seq}")
        self._client.publish(self._topic, json.dumps(reading), qos=1, properties=properties)

    def leave(self) -> None:
        """Say goodbye: a device that is switched off is not one that was cut off, so no will is sent."""
        if self._series != "meter" and self._client.is_connected():
            self._client.publish(f"devices/{self.name}/status", self._status("offline"), qos=1, retain=True)
        self._client.disconnect()

    def join(self) -> None:
        """Wait until its thread has ended."""
        self._client.loop_stop()

    def _born(self, client: mqtt.Client, data: object, flags: object, reason: Any, properties: object) -> None:
        if reason.is_failure:
            print(f"{self.name}: refused by the broker: {reason}", flush=True)
        elif self._series != "meter":
            client.publish(f"devices/{self.name}/status", self._status("online"), qos=1, retain=True)

    def _status(self, state: str) -> str:
        return json.dumps({"state": state, "boot": self._boot})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", help="mqtt://host:port")
    parser.add_argument("accounts", type=Path, help="JSON file of device names and passwords")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two readings of a device")
    asked = parser.parse_args()
    broker = urlsplit(asked.broker)
    accounts = json.loads(asked.accounts.read_text(encoding="utf-8"))
    known = [(name, word) for name, word in accounts.items() if name.partition("-")[0] in SERIES][:MOST_DEVICES]
    if not known:
        sys.exit(f"error: no device in {asked.accounts} is ours; name one {', '.join(f'{s}-01' for s in SERIES)}")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    fleet = [Device(name, word, number) for number, (name, word) in enumerate(known)]
    for device in fleet:
        device.connect(broker.hostname or "127.0.0.1", broker.port or 1883)
    said, turn = time.monotonic(), 0
    # One after the other, so that readings come as a stream and not in bursts.
    while not stop.wait(asked.every / len(fleet)):
        fleet[turn % len(fleet)].send()
        turn += 1
        if time.monotonic() - said > PROGRESS_EVERY:
            said = time.monotonic()
            print(f"{len(fleet)} devices, {turn} readings sent", flush=True)
    for device in fleet:
        device.leave()
    for device in fleet:
        device.join()
    print(f"{len(fleet)} devices, {turn} readings sent, all switched off", flush=True)


if __name__ == "__main__":
    main()

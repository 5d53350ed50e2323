"""The demo of `gateway up --demo`: it stocks the shop, makes devices and rules, and sends readings until it is ended.

    python examples/demo.py mqtt://127.0.0.1:1883 BROKER NAME...

`up` starts it, with GATEWAY_ORIGIN and GATEWAY_DATA in the environment. What is there already stays as it is, so that
a second start changes nothing. What a device measures follows from its name: `seattle-` and `bay-` the air, `river-`
the flow of a river, `room-` a room, all from real readings; `pump-` a pump that runs in turns. One gauge is broken:
what it sends becomes a dead letter of devices.storage.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from devices.radio import Plan, run
from devices.simulation import FILES, Faults, Values, pump, recorded

#: Seconds between two readings of a device, and between two tries while a service is still coming.
EVERY, AGAIN = 5.0, 0.5
#: Title, price in cents, and how many of it there are.
ARTICLES = {
    "TEA-GREEN": ("Green tea, 100 g", 1290, 300),
    "TEA-BLACK": ("Black tea, 100 g", 990, 300),
    "TEA-MINT": ("Mint tea, 50 g", 790, 120),
    "HONEY": ("Honey of the lime tree, 250 g", 850, 60),
    "CUP": ("Cup with a handle", 1450, 80),
    "TEAPOT": ("Teapot for four", 3900, 25),
    "STRAINER": ("Strainer of steel", 690, 40),
    "KETTLE": ("Kettle that whistles", 4900, 5),
}
RULES: dict[str, dict[str, Any]] = {
    "stuffy-room": {"kind": "above", "devices": "room-*", "metric": "co2", "threshold": 1000, "clear": 900},
    "warm-outside": {"kind": "above", "devices": "seattle-*", "metric": "temp", "threshold": 60, "severity": "info"},
    "pump-stopped": {"kind": "below", "devices": "pump-*", "metric": "pressure", "threshold": 3, "clear": 3.5},
    "silent": {"kind": "silent", "after": 60, "severity": "critical"},
}


class Gateway:
    """The services' routes, asked as an operator."""

    def __init__(self, data: Path) -> None:
        token = (data / "operator.token").read_text().strip()
        self._http = httpx.Client(
            base_url=os.environ["GATEWAY_ORIGIN"],
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
            verify=False,  # noqa: S501 - the edge of this machine, by whatever name its certificate has
        )

    def ask(self, method: str, path: str, body: object = None, *fine: int) -> httpx.Response:
        """Return the answer, once the service is there; its status is one of ``fine`` where it is an error."""
        while True:
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError:
                time.sleep(AGAIN)
                continue
            if answer.status_code in fine:
                return answer
            if answer.status_code not in (429, 502, 503, 504):
                return answer.raise_for_status()
            time.sleep(AGAIN)

    def make(self, path: str, body: object) -> None:
        """Put ``body`` where nothing is."""
        if self.ask("GET", path, None, 404).status_code == httpx.codes.NOT_FOUND:
            self.ask("PUT", path, body)


def stock(gateway: Gateway) -> None:
    """Fill the shop, and say what devices are watched for."""
    for sku, (title, price, many) in ARTICLES.items():
        gateway.make(f"/ecommerce/catalog/{sku}", {"title": title, "price": price, "currency": "EUR"})
        # A receipt that is there already adds nothing.
        gateway.ask("PUT", f"/ecommerce/inventory/receipts/demo-{sku}", {"sku": sku, "quantity": many})
    for name, rule in RULES.items():
        gateway.make(f"/devices/alerting/rules/{name}", rule)
    print(f"{len(ARTICLES)} articles and {len(RULES)} rules are there", flush=True)


def accounts(gateway: Gateway, names: list[str], file: Path, *, fixed: bool) -> dict[str, str]:
    """Return the passwords of ``names``, who are devices of the registry; where they are ``fixed``, as in ``file``."""
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    for name in names:
        made = gateway.ask("POST", "/devices/registry/", {"device": name, "label": "demo"}, 409)
        if fixed:
            continue  # this broker believes what it was started with, and asks no registry
        if made.status_code == httpx.codes.CONFLICT and name not in known:
            made = gateway.ask("POST", f"/devices/registry/{name}/rotate")
        if made.is_success:
            known[name] = made.json()["password"]
            draft = file.with_suffix(".new")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as new:
                json.dump(known, new)
            draft.replace(file)
    return {name: known[name] for name in names}


def broken(dice: random.Random) -> Iterator[Values]:
    """A pump whose gauge fails at once, and then every hour: NaN, for which JSON has no number."""
    for n, values in zip(count(), pump(dice), strict=False):
        yield {**values, "pressure": math.nan} if n % (3600 // EVERY) == 2 else values


def signal_of(name: str) -> Callable[[random.Random], Iterator[Values]]:
    kind = name.partition("-")[0]
    return broken if name == "pump-01" else recorded(kind) if kind in FILES else pump


def main() -> None:
    broker, kind, *names = sys.argv[1:]
    data, at = Path(os.environ["GATEWAY_DATA"]), urlsplit(broker)
    over = threading.Event()
    gateway = Gateway(data)
    # Neither waits for the other's services.
    threading.Thread(target=stock, args=(gateway,), name="stock", daemon=True).start()
    fixed = kind == "iotcore"
    file = data / "mqtt" / "demo.json" if fixed else data / "demo" / "devices.json"
    known = accounts(gateway, names, file, fixed=fixed)
    # Until here, to end is to end at once.
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    plan = Plan(2**62, EVERY, Faults(duplicate=0.01, late=0.001, dropout=0.005), seed=1)
    run(at.hostname or "", at.port or 1883, known, [signal_of(name) for name in names], plan, stop=over.is_set)


if __name__ == "__main__":
    main()

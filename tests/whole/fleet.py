"""Devices over real MQTT, QoS 1: what each sent, and when the broker acknowledged it."""

from __future__ import annotations

import random
import selectors
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devices.simulation import PRESETS, Faults, Mischief, Values
from tests.devices.ledger import Ledger, Message, Said

FAULTS: Final = Faults(duplicate=0.05, reorder=0.05, late=0.02)
#: Who is never silent for longer than two readings, as who holds a batch back is; but the one that stays away for good
#: after so many.
STEADY, MUTE, MUTE_AFTER = "d-1", "d-19", 4
#: Seconds between two readings of one device, and between two tries to come back.
EVERY: Final = 0.8
AGAIN: Final = 0.3
#: Readings from one report of its settings to the next.
REPORT: Final = 5
#: Seconds to say goodbye; whoever cannot is cut off.
LEAVE_WITHIN: Final = 10.0
BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE
#: What the first device also sends, once: storage refuses it, and says why.
WRONG: Final = {"boot": "wrong", "seq": 1, "ts": "noon", "m": {"temp": 1}}


class Fleet:
    """A device for each of ``words`` (name → password), on one thread and one selector; use it as a context manager."""

    def __init__(self, port: int, words: Mapping[str, str], seed: int) -> None:
        self.port = port
        self.ledger = Ledger()
        #: Messages, and when the broker acknowledged them, by the monotonic clock.
        self.acks: list[tuple[Message, float]] = []
        #: Messages that the broker did not take.
        self.refused: list[str] = []
        self.poll, self._seed = selectors.DefaultSelector(), seed
        self._devices = [_Device(self, name, word, seed) for name, word in words.items()]
        self._devices[0].say("telemetry", WRONG)
        self._stop, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet")

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()
        self.poll.close()

    @property
    def names(self) -> set[str]:
        """Who goes on measuring."""
        return {one.name for one in self._devices if not one.over}

    @property
    def away(self) -> set[str]:
        """Who has stopped, and all that it sent is acknowledged."""
        return {one.name for one in self._devices if one.over and not one.under_way}

    def joins(self, name: str, word: str) -> None:
        """One more, from any thread."""
        self._devices.append(_Device(self, name, word, self._seed))

    def stop(self) -> None:
        """Measure once more, and no more; what is under way goes on until it is acknowledged."""
        self._stop.set()

    @property
    def ended(self) -> bool:
        """All that was sent is acknowledged, and everybody has left."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        tended, last = 0.0, False
        while not self._leave.is_set() and (not last or any(one.under_way for one in self._devices)):
            now = time.monotonic()
            if not last:
                last = self._stop.is_set()
                for device in self._devices:
                    device.measure(now, last=last)
            if now - tended > AGAIN / 2:
                tended = now
                for device in self._devices:
                    device.tend(now)
            for key, events in self.poll.select(0.02):
                key.data.moved(events)
        for device in self._devices:
            device.leave()
        give_up = time.monotonic() + LEAVE_WITHIN
        while self.poll.get_map() and time.monotonic() < give_up:
            for key, events in self.poll.select(0.1):
                key.data.moved(events)


class _Device:
    def __init__(self, fleet: Fleet, name: str, word: str, seed: int) -> None:
        self._fleet, self.name, self._boot, self._seq = fleet, name, f"b{seed}", 0
        dice = random.Random(f"{seed} {name}")
        self._values: Iterator[Values] = PRESETS["climate"](dice)
        steady = name.startswith(STEADY)
        self._mischief = Mischief(msgspec.structs.replace(FAULTS, late=0.0) if steady else FAULTS, dice)
        #: It has measured for the last time.
        self.over = False
        self._due, self._again = time.monotonic() + dice.random() * EVERY, 0.0
        #: What is not acknowledged yet, by the number of its packet.
        self.under_way: dict[int, Message | None] = {}
        poll: Any = fleet.poll
        self._paho = paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        paho.username_pw_set(name, word)
        paho.on_publish = self._heard
        paho.on_socket_open = lambda c, d, sock: poll.register(sock, selectors.EVENT_READ, self)
        paho.on_socket_close = lambda c, d, sock: poll.unregister(sock)
        paho.on_socket_register_write = lambda c, d, sock: poll.modify(sock, BOTH, self)
        paho.on_socket_unregister_write = lambda c, d, sock: poll.modify(sock, selectors.EVENT_READ, self)
        paho.will_set(f"devices/{name}/status", msgspec.json.encode(self._status("offline")), qos=1, retain=True)
        paho.on_connect = self._entered
        # Its session is new at the first connection alone.
        paho.connect_async("127.0.0.1", fleet.port, keepalive=60, clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY)

    def measure(self, now: float, *, last: bool) -> None:
        if self.over or (now < self._due and not last):
            return
        self._due, self._seq = now + EVERY, self._seq + 1
        last = last or (self.name == MUTE and self._seq > MUTE_AFTER)
        reading = {"ts": time.time_ns() // 1_000_000, "boot": self._boot, "seq": self._seq, "m": next(self._values)}
        # The first and the last are told at once, alone: between them every gap shows.
        alone = self._seq == 1 or last
        held = self._mischief.rest().messages if last else ()
        for payload in (*held, *((reading,) if alone else self._mischief.take(reading).messages)):
            many: Any = payload if isinstance(payload, list) else [payload]
            said = [Said(one["boot"], one["seq"], one["ts"], one["m"]) for one in many]
            self.say("telemetry", payload, self._fleet.ledger.sends(self.name, *said))
        if self._seq % REPORT == 1:
            self.say("shadow/update", {"reported": {"n": self._seq}})
        if last:
            self.say("status", self._status("offline"))
        self.over = last  # after what it says: who is away has nothing under way

    def say(self, what: str, payload: object, message: Message | None = None) -> None:
        retain = what == "status"
        said = self._paho.publish(f"devices/{self.name}/{what}", msgspec.json.encode(payload), qos=1, retain=retain)
        self.under_way[said.mid] = message

    def tend(self, now: float) -> None:
        over = self.over and not self.under_way
        if self._paho.socket() is not None:
            self.leave() if over else self._paho.loop_misc()
        elif now >= self._again and not over:
            self._again = now + AGAIN
            try:
                self._paho.reconnect()
            except OSError:
                pass  # nobody listens now

    def moved(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._paho.loop_read()
        if events & selectors.EVENT_WRITE:
            self._paho.loop_write()

    def leave(self) -> None:
        self._paho.disconnect()

    def _status(self, state: str) -> dict[str, str]:
        return {"state": state, "boot": self._boot}

    def _entered(self, client: mqtt.Client, data: object, flags: object, reason: Any, properties: object) -> None:
        if not reason.is_failure:
            self.say("status", self._status("offline" if self.over else "online"))

    def _heard(self, client: mqtt.Client, data: object, mid: int, reason: Any, properties: object) -> None:
        message = self.under_way.pop(mid, None)
        if reason.is_failure:
            self._fleet.refused.append(f"{self.name}: {reason}")
        elif message is not None:
            self._fleet.acks.append((message, time.monotonic()))

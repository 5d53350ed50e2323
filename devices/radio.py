"""Many MQTT devices on one selector: each a connection of its own, none a thread."""

from __future__ import annotations

import heapq
import itertools
import random
import resource
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import paho.mqtt.client as mqtt
from msgspec import UNSET, UnsetType
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from devices import limits
from devices.simulation import Faults, Mischief, Values


class Tally(msgspec.Struct):
    """What became of it all so far."""

    #: Devices that the broker let in, now.
    online: int = 0
    #: Readings that were made; of these, lost on purpose.
    made: int = 0
    lost: int = 0
    #: Messages that were sent, and that the broker acknowledged.
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What each device does: so many readings, so many seconds apart."""

    readings: int
    every: float
    faults: Faults = Faults()
    seed: int = 1


class _Wanted(msgspec.Struct):
    """Settings of a simulated device: seconds between two readings."""

    every: Annotated[float, msgspec.Meta(ge=limits.SIMULATED_EVERY[0], le=limits.SIMULATED_EVERY[1])] | UnsetType = (
        UNSET
    )


class _Delta(msgspec.Struct):
    state: _Wanted


class _Device:
    def __init__(
        self,
        name: str,
        word: str,
        values: Iterator[Values],
        plan: Plan,
        tally: Tally,
        poll: Any,
        wake: Callable[[_Device], None],
    ) -> None:
        self.left, self._name, self._values, self._tally, self._poll = plan.readings, name, values, tally, poll
        self.every, self._wake = plan.every, wake
        self._mischief = Mischief(plan.faults, random.Random(f"{plan.seed} {name}"))  # noqa: S311 - faults that can be repeated
        self._boot, self._seq = time.time_ns() // 1_000_000, 0
        self._online, self._again = False, 0.0
        self._paho = paho = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        paho.username_pw_set(name, word)
        paho.max_queued_messages_set(limits.SIMULATED_WAITING)
        paho.will_set(f"devices/{name}/status", msgspec.json.encode(self._status("offline")), qos=1, retain=True)
        paho.on_connect, paho.on_disconnect = self._entered, self._left
        paho.on_publish, paho.on_message = self._acknowledged, self._told
        # The socket comes and goes with the connection; what is to be written waits until it may be.
        paho.on_socket_open = lambda c, d, sock: poll.register(sock, selectors.EVENT_READ, self)
        paho.on_socket_close = lambda c, d, sock: poll.unregister(sock)
        paho.on_socket_register_write = lambda c, d, sock: self._watch(sock, selectors.EVENT_WRITE)
        paho.on_socket_unregister_write = lambda c, d, sock: self._watch(sock, 0)

    def connect(self, host: str, port: int) -> None:
        self._paho.connect(host, port, keepalive=60, clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY)

    def send(self) -> None:
        self.left -= 1
        self._seq += 1
        self._tally.made += 1
        reading = {"ts": time.time_ns() // 1_000_000, "boot": self._boot, "seq": self._seq, "m": next(self._values)}
        leaving = self._mischief.take(reading)
        self._tally.lost += leaving.lost
        for message in (*leaving.messages, *(() if self.left else self._mischief.rest().messages)):
            self._publish("telemetry", message)
        if not self.left:
            # Whoever is switched off is not cut off: no will is sent.
            self._publish("status", self._status("offline"), retain=True)

    def moved(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._paho.loop_read()
        if events & selectors.EVENT_WRITE:
            self._paho.loop_write()

    def tend(self, now: float) -> None:
        """Keep the connection; come back where it was lost."""
        if self._paho.socket() is not None:
            self._paho.loop_misc()
        elif now >= self._again:
            self._again = now + limits.CONNECT_AGAIN
            try:
                self._paho.reconnect()
            except OSError:
                pass  # at the next time

    def leave(self) -> None:
        if self.left and self._online:
            self._publish("status", self._status("offline"), retain=True)
        self._paho.disconnect()

    def _publish(self, what: str, payload: object, *, retain: bool = False) -> None:
        said = self._paho.publish(f"devices/{self._name}/{what}", msgspec.json.encode(payload), qos=1, retain=retain)
        self._tally.sent += said.rc != mqtt.MQTT_ERR_QUEUE_SIZE

    def _status(self, state: str) -> dict[str, object]:
        return {"state": state, "boot": self._boot}

    def _watch(self, sock: Any, more: int) -> None:
        self._poll.modify(sock, selectors.EVENT_READ | more, self)

    def _entered(self, client: mqtt.Client, data: object, flags: object, reason: Any, properties: object) -> None:
        if reason.is_failure:
            self._tally.refused += 1
            return
        self._online = True
        self._tally.online += 1
        self._publish("status", self._status("online"), retain=True)
        self._paho.subscribe(f"devices/{self._name}/shadow/delta", qos=1)
        self._report()

    def _report(self) -> None:
        self._publish("shadow/update", {"reported": {"every": self.every}})

    def _told(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        """What it cannot be it does not become, which its shadow shows."""
        try:
            every = msgspec.json.decode(message.payload, type=_Delta).state.every
        except msgspec.MsgspecError:
            return
        if every is not UNSET and every != self.every:
            self.every = every
            if self.left:
                self._wake(self)
            self._report()

    def _left(self, client: mqtt.Client, data: object, flags: object, reason: object, properties: object) -> None:
        self._tally.online -= self._online
        self._online = False

    def _acknowledged(self, client: mqtt.Client, data: object, mid: int, reason: Any, properties: object) -> None:
        self._tally.acknowledged += not reason.is_failure
        self._tally.refused += reason.is_failure


class _Turns:
    """Whose reading is due, and when. A device has one turn: the one that was set last."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Device]] = []
        self._set: dict[_Device, float] = {}
        self._count = itertools.count()

    def set(self, device: _Device, at: float) -> None:
        self._set[device] = at
        heapq.heappush(self._heap, (at, next(self._count), device))

    @property
    def left(self) -> bool:
        return bool(self._set)

    def of(self, now: float) -> Iterator[tuple[_Device, float]]:
        """Take the turns that came up to ``now``."""
        while self._heap and self._heap[0][0] <= now:
            at, _, device = heapq.heappop(self._heap)
            if self._set.get(device) == at:
                del self._set[device]
                yield device, at

    def pause(self, now: float) -> float:
        """Return how long there is nothing to send, in seconds: at most a tenth of one."""
        return max(0.0, min(0.1, self._heap[0][0] - now)) if self._heap else 0.1


def run(
    host: str,
    port: int,
    accounts: Mapping[str, str],
    signals: Sequence[Callable[[random.Random], Iterator[Values]]],
    plan: Plan,
    *,
    progress: Callable[[Tally], object] = lambda tally: None,
    stop: Callable[[], bool] = lambda: False,
) -> Tally:
    """Run a device for each of ``accounts`` until each has sent its readings and all are acknowledged, or ``stop()``.

    The signals are dealt out in turn. Raises :class:`OSError` where nobody listens at first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(accounts) + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    tally, poll, turns = Tally(), selectors.DefaultSelector(), _Turns()
    fleet = [
        _Device(
            name,
            word,
            signals[n % len(signals)](random.Random(f"{plan.seed} {n}")),  # noqa: S311 - a simulation that can be repeated
            plan,
            tally,
            poll,
            lambda device: turns.set(device, time.monotonic() + device.every),
        )
        for n, (name, word) in enumerate(accounts.items())
    ]
    for device in fleet:
        device.connect(host, port)
    begun = time.monotonic()
    # One after the other, so that readings come as a stream and not in bursts.
    for n, device in enumerate(fleet):
        turns.set(device, begun + plan.every * n / len(fleet))
    tended, give_up = 0.0, 0.0
    while not stop() and (turns.left or (tally.acknowledged < tally.sent and time.monotonic() < give_up)):
        now = time.monotonic()
        for device, at in turns.of(now):
            device.send()
            if device.left:
                turns.set(device, at + device.every)
            give_up = now + limits.ACKNOWLEDGED_WITHIN
        if now - tended > limits.CONNECT_AGAIN / 2:
            tended = now
            for device in fleet:
                device.tend(now)
        for key, events in poll.select(turns.pause(now)):
            key.data.moved(events)
        progress(tally)
    for device in fleet:
        device.leave()
    give_up = time.monotonic() + limits.ASK_WITHIN
    while poll.get_map() and time.monotonic() < give_up:  # what is said last is to be written
        for key, events in poll.select(0.1):
            key.data.moved(events)
    poll.close()
    return tally

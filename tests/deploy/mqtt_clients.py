"""MQTT clients for the tests of rights: each waits for what the broker says, and keeps what it was sent."""

from __future__ import annotations

import queue
import threading
from typing import Any

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

#: A guard against hanging.
WITHIN = 30.0


class Refused(Exception):
    """The broker did not let it in; ``code`` is the reason of CONNACK."""

    def __init__(self, code: int) -> None:
        super().__init__(hex(code))
        self.code = code


class Peer:
    """One connection. ``got`` is every message it was sent, in order."""

    def __init__(
        self,
        host: str,
        name: str | None,
        word: str = "",
        *,
        port: int = 8883,
        ca: str = "",
        client_id: str | None = None,
        version: MQTTProtocolVersion = MQTTv5,
        transport: Any = "tcp",
        will: str = "",
    ) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self._answers: queue.Queue[int] = queue.Queue()
        self._acks: dict[int, int] = {}
        self.cut = threading.Event()
        self.paho = Paho(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or name or "",
            protocol=version,
            transport=transport,
            reconnect_on_failure=False,  # who is cut off stays so
        )
        if name is not None:
            self.paho.username_pw_set(name, word)
        if ca:
            self.paho.tls_set(ca)
        if will:
            self.paho.will_set(will, b"a will", qos=1)
        self.paho.on_connect = lambda _c, _u, _f, reason, _p: self._answers.put(reason.value)
        self.paho.on_disconnect = lambda *_: self.cut.set()
        self.paho.on_message = self._take
        self.paho.on_subscribe = lambda _c, _u, _m, reasons, _p: self._answers.put(reasons[0].value)
        self.paho.on_publish = self._acked
        self.paho.connect(host, port)
        self.paho.loop_start()
        if code := self._answers.get(timeout=WITHIN):
            self.close()
            raise Refused(code)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()

    def vanish(self) -> None:
        """Cut the connection without DISCONNECT: the broker sends the will."""
        self.paho.loop_stop()
        sock = self.paho.socket()
        if sock is not None:
            sock.close()

    def subscribe(self, filter: str) -> int:
        """The broker's answer: the granted QoS, or a reason from 0x80 on."""
        self.paho.subscribe(filter, 1)
        return self._answers.get(timeout=WITHIN)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """The reason of the broker's PUBACK; 0 is success, and all that MQTT 3.1.1 can say."""
        message = self.paho.publish(topic, payload, qos=1, retain=retain)
        with self._changed:
            if not self._changed.wait_for(lambda: message.mid in self._acks, WITHIN):
                raise TimeoutError(f"no PUBACK for {topic}")
            return self._acks.pop(message.mid)

    def until(self, topic: str) -> list[str]:
        """Wait for a message of ``topic``; the topics of everything before it."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(one == topic for one, _ in self.got), WITHIN):
                raise TimeoutError(f"{topic} did not come, only {self.got}")
            topics = [one for one, _ in self.got]
        return topics[: topics.index(topic)]

    def _take(self, _client: Paho, _data: Any, message: MQTTMessage) -> None:
        with self._changed:
            self.got.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()

    def _acked(self, _client: Paho, _data: Any, number: int, reason: Any, _properties: Any) -> None:
        with self._changed:
            self._acks[number] = reason.value
            self._changed.notify_all()


def in_time(peer: Peer) -> bool:
    """Whether ``peer`` is cut off."""
    return peer.cut.wait(WITHIN)


def still(peer: Peer, own: str) -> bool:
    """Whether ``peer`` is as it was: connected, and heard."""
    return not peer.cut.is_set() and peer.publish(own) in (0, 0x10)

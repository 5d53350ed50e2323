"""The topics of the benchmarks: JSON readings that an anonymous MQTT client may publish on loopback."""

from __future__ import annotations

import time

from gateway.core.declared import Topic

#: Below ``try/``, the one place where the generator needs no name at the broker.
TOPICS = (
    Topic(
        pattern="try/bench/{sensor}",
        key="{sensor}",
        write=("anyone",),
        read=("user",),
        mqtt="in",
    ),
)
#: What ``mqttgen`` puts its topic's number behind.
PREFIX = "try/bench/t"
#: The topic that everybody watches.
WATCHED = f"{PREFIX}000"
#: Bytes of a payload, the same in the C generators.
PAYLOAD = 128


def payload(sequence: int) -> bytes:
    """Return a payload as ``mqttgen`` makes it; it carries its own time in nanoseconds."""
    head = b'{"id":"%010d","topic":"%b","ts":%d,"data":"' % (sequence, WATCHED.encode(), time.time_ns())
    return head + b"x" * (PAYLOAD - 2 - len(head)) + b'"}'

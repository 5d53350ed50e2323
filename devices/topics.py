"""The topics of the fleet. What is of one device has one key, so that it arrives in its order."""

from __future__ import annotations

from typing import Any, Final

from devices.events import (
    READERS,
    Accepted,
    Alert,
    Delta,
    Document,
    Presence,
    Registered,
    Rejected,
    Status,
    Window,
    Wrong,
)
from gateway import Topic


def _told(name: str, schema: Any, **more: Any) -> Topic:
    return Topic(pattern=f"devices/{{device}}/{name}", key="{device}", schema=schema, **{"read": READERS, **more})


def _asked(name: str, **more: Any) -> Topic:
    return Topic(
        pattern=f"devices/{{device}}/{name}",
        key="{device}",
        kind="command",
        mqtt="in",
        write=("device:{device}",),
        read=READERS,
        **more,
    )


TOPICS: Final = (
    Topic(
        pattern="devices/{device}/telemetry",
        key="{device}",
        identity="{device}/{boot}/{seq}",
        mqtt="in",
        write=("device:{device}",),
        read=READERS,
    ),
    _told("status", Status, mqtt="in", retain=True, write=("device:{device}",)),
    _told("errors", Wrong, mqtt="out"),
    _told("presence", Presence, retain=True),
    _told("registered", Registered, read=("operator",)),
    _told("windows/{metric}", Window),
    _told("alerts/{rule}", Alert, retain=True),
    # Whatever JSON: what is wrong with it the device is told, and it is no dead letter.
    _asked("shadow/update"),
    _asked("shadow/get", payload="bytes"),
    _told("shadow", Document, retain=True),
    _told("shadow/delta", Delta, mqtt="out", retain=True),
    _told("shadow/update/accepted", Accepted, mqtt="out"),
    _told("shadow/update/rejected", Rejected, mqtt="out"),
    _told("shadow/get/accepted", Document, mqtt="out"),
    # What services tell themselves, later.
    Topic(pattern="devices/registry/project", key="project", kind="command"),
    Topic(pattern="devices/alerting/rules/{rule}/look", key="{rule}", kind="command"),
    Topic(pattern="devices/alerting/rules/{rule}/retire", key="{rule}", kind="command"),
    # In the lane of the device, behind all that it had sent before.
    Topic(pattern="devices/alerting/devices/{device}/silent", key="{device}", kind="command"),
    Topic(pattern="devices/alerting/notices/{notice}/notify", key="{notice}", kind="command"),
)

"""What a device measured: one form for an envelope, a batch of them, and a bare object."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from devices import limits

_METRIC = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:-]{{0,{limits.NAME_MOST - 1}}}")
#: Fields of a bare object that are no metric.
_RESERVED = ("ts", "boot", "seq")


class BadReading(Exception):
    """What a device sent cannot be a reading; says where and why."""


class Reading(msgspec.Struct, frozen=True):
    """What one device measured at one moment."""

    #: Event time, in ms since 1970.
    ts: int
    #: One start of the device, and the number of this reading since then: together its name.
    boot: str
    seq: int
    #: Metric → value; nothing else is measured.
    values: Mapping[str, float]
    #: The device named it by boot and seq, so what is missing can be counted.
    counted: bool = True


def read(payload: object, arrived: int, event: str) -> tuple[Reading, ...]:
    """Return the readings of one message; raises :class:`BadReading`: one bad reading spoils its message.

    ``{"ts", "boot", "seq", "m": {"temp": 21.5}}``, a list of these, or a bare object whose numbers are metrics. ``ts``
    is in ms; without one, and for what may be too old or too new, it is compared with ``arrived``. Without ``boot`` and
    ``seq`` a reading is named by the id of its ``event`` and its place in it.
    """
    many: Sequence[object] = payload if isinstance(payload, list) else [payload]
    if not 1 <= len(many) <= limits.READINGS_MOST:
        raise BadReading(f"{len(many)} readings in one message: send 1 to {limits.READINGS_MOST}")
    return tuple(_one(item, arrived, event, n) for n, item in enumerate(many))


def _one(item: object, arrived: int, event: str, n: int) -> Reading:
    where = f"reading {n}"
    if not isinstance(item, dict):
        raise BadReading(f"{where} is no object")
    ts = item.get("ts", arrived)
    if isinstance(ts, bool) or not isinstance(ts, int):
        raise BadReading(f"{where}: ts is no whole number of milliseconds")
    if not arrived - limits.PAST_MOST <= ts <= arrived + limits.AHEAD_MOST:
        raise BadReading(f"{where}: ts is {(ts - arrived) / 1000:+.0f} s from when it arrived")
    values = dict(_values(item, where))
    if not 1 <= len(values) <= limits.METRICS_MOST:
        raise BadReading(f"{where} has {len(values)} metrics: send 1 to {limits.METRICS_MOST}")
    boot, seq = item.get("boot"), item.get("seq")
    if boot is None and seq is None:
        return Reading(ts, f"@{event}", n, values, counted=False)
    if isinstance(boot, bool) or not isinstance(boot, int | str) or not 1 <= len(str(boot)) <= limits.NAME_MOST:
        raise BadReading(f"{where}: boot is no number or text of 1 to {limits.NAME_MOST} characters")
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= limits.SEQ_MOST:
        raise BadReading(f"{where}: seq is no whole number from 0 on")
    return Reading(ts, str(boot), seq, values)


def _values(item: Mapping[str, Any], where: str) -> Iterator[tuple[str, float]]:
    if bare := "m" not in item:
        # A device without an envelope may say more than it measures.
        measured = {name: value for name, value in item.items() if name not in _RESERVED and _numeric(value)}
    else:
        measured = item["m"]
    if not isinstance(measured, dict):
        raise BadReading(f"{where}: m is no object")
    for name, value in measured.items():
        if not _METRIC.fullmatch(name):
            raise BadReading(f"{where}: a metric is named {name[: limits.NAME_MOST]!r}")
        if not bare and not _numeric(value):
            raise BadReading(f"{where}: {name} is {type(value).__name__}, no number")
        if not math.isfinite(value):
            raise BadReading(f"{where}: {name} is {value}")
        yield name, float(value)


def _numeric(value: object) -> bool:
    """A switch is 0 or 1."""
    return isinstance(value, int | float)

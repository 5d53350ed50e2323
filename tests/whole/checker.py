"""The checkers that see more than one application: gaps of readings, keys of orders, and letters to the operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from devices import limits
from devices.events import Window
from tests.devices.ledger import Kept, Ledger, Said
from tests.whole.evidence import Letter

Rows = Sequence[Mapping[str, Any]]


def ledger_of(events: Iterable[tuple[str, Any]]) -> Ledger:
    """Return (device, payload) of a log as a ledger of what must be stored; what is no reading is not in it."""
    made = Ledger()
    for device, payload in events:
        many = payload if isinstance(payload, list) else [payload]
        if all(isinstance(one.get("ts"), int) for one in many):
            said = [Said(one["boot"], one["seq"], one["ts"], one["m"]) for one in many]
            made.acknowledged(made.sends(device, *said))
    return made


def gap_faults(sent: Ledger, kept: Kept) -> list[str]:
    """Say whose gaps nobody could count: the first or the last of what a device sent is not there."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for message in sent.messages:
        for one in message.readings:
            numbers.setdefault((message.device, one.boot), []).append(one.seq)
    runs = {(row["device"], row["boot"]): (row["first"], row["last"]) for row in kept.runs}
    return [
        f"{key}: sent {min(some)} to {max(some)}, and the run is {runs.get(key)}"
        for key, some in numbers.items()
        if runs.get(key) != (min(some), max(some))
    ]


def window_faults(kept: Kept, windows: Rows, told: Iterable[tuple[str, str, Window]]) -> list[str]:
    """Say which window is not what the stored readings make, or was not ``told`` (device, metric, window) as it is."""
    values: dict[tuple[str, str, int], list[float]] = {}
    for point in kept.points:
        begin = point["ts"] // limits.WINDOW * limits.WINDOW
        values.setdefault((point["device"], point["metric"], begin), []).append(point["value"])
    heard: dict[tuple[str, str, int], list[Window]] = {}
    for device, metric, window in told:
        heard.setdefault((device, metric, window.start), []).append(window)
    there = {(row["device"], row["metric"], row["start"]): row for row in windows}
    found = [f"window {key}: nobody measured it" for key in (there.keys() | heard.keys()) - values.keys()]
    for key, some in values.items():
        row, said = there.get(key), heard.get(key, [])
        if row is None or (row["count"], row["least"], row["most"]) != (right := (len(some), min(some), max(some))):
            found.append(f"window {key}: {row}, where {len(some)} readings are from {min(some)} to {max(some)}")
        elif [one.revision for one in said] != list(range(row["revision"])):
            found.append(f"window {key}: told are the revisions {[one.revision for one in said]} of {row['revision']}")
        elif not row["untold"] and (said[-1].count, said[-1].min, said[-1].max) != right:
            found.append(f"window {key}: {said[-1]} was told last")
    return found


def order_faults(placed: Mapping[str, str], orders: Rows, keys: Rows) -> list[str]:
    """Say which order of ``placed`` (idempotency key → what 202 said) is not there once, and which nobody placed."""
    there, known = Counter(row["id"] for row in orders), Counter(row["key"] for row in keys)
    doubled = [order for order, times in Counter(placed.values()).items() if times > 1]
    return [
        *(f"{order} is what several keys became" for order in doubled),
        *(
            f"{order} was acknowledged and is there {there[order]} times"
            for order in placed.values()
            if there[order] != 1
        ),
        *(f"{key} is known {known[key]} times" for key in placed if known[key] != 1),
        *(f"{order} is there, and nobody was told" for order in there.keys() - set(placed.values())),
        *(f"{key} is known, and nobody was told" for key in known.keys() - placed.keys()),
    ]


def letter_faults(letters: Sequence[Letter], planted: AbstractSet[tuple[str, str, str]]) -> list[str]:
    """Say which dead letters are there that nobody planted, and which of ``planted`` are not, with their reason."""
    found = {(one.group, one.topic, one.reason): one for one in letters}
    return [
        *(f"a dead letter: {one}" for key, one in found.items() if key not in planted),
        *(f"no dead letter tells of {one}" for one in planted - found.keys()),
        *(f"a dead letter without an error: {one}" for one in letters if not one.error),
    ]

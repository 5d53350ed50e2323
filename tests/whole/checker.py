"""The checkers of what the whole keeps and tells: gaps, windows, alerts and their webhooks, orders, mails, letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from devices import limits
from devices.alerting.hook import signature
from devices.events import ALL, Alert, Window
from tests.devices.ledger import Kept, Ledger, Said
from tests.whole.evidence import Letter

Rows = Sequence[Mapping[str, Any]]
#: How an order ended → what its customer was written, in the order they were.
MAILS: Final = {
    "completed": ("Your order {} is confirmed", "Your order {} is on its way", "Your order {} was delivered"),
    "out_of_stock": ("Your order {}: out of stock",),
    "expired": ("Your order {} has expired",),
    "cancelled": ("Your order {} is cancelled",),
}
DECLINED: Final = "Your order {}: the payment was declined"


class Mail(msgspec.Struct, frozen=True):
    """What came to somebody; two of one id are one."""

    id: str
    to: str
    subject: str


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


def loss_faults(sent: Ledger, kept: Kept, told: Mapping[tuple[str, str], int]) -> list[str]:
    """Say where ``told``, (device, boot) → how many storage calls lost, is not what was sent and is not there."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for message in sent.messages:
        for one in message.readings:
            numbers.setdefault((message.device, one.boot), set()).add(one.seq)
    for point in kept.points:
        numbers.get((point["device"], point["boot"]), set()).discard(point["seq"])
    return [
        f"{key}: {sorted(numbers.get(key, ()))} are missing, and {told.get(key)} are called lost"
        for key in numbers.keys() | told.keys()
        if len(numbers.get(key, ())) != told.get(key)
    ]


def standing_faults(alerts: Rows, told: Iterable[Alert]) -> list[str]:
    """Say which alert stands otherwise than it was told last, of each device; the fleet as one goes on by the clock."""
    last = {(one.rule, one.device): one.what for one in told if one.device != ALL}
    there = {(row["rule"], row["device"]): row["state"] for row in alerts if row["device"] != ALL}
    return [
        f"alert {key} stands as {there.get(key)}, and was told {last.get(key)}"
        for key in last.keys() | there.keys()
        if (there.get(key) == "firing") != (last.get(key) == "firing")
    ]


def hook_faults(got: Iterable[tuple[Mapping[str, str], bytes]], right: Mapping[str, Alert], secret: bytes) -> list[str]:
    """Say which webhook of ``right`` (id → alert) did not come, or came of nothing, or is not what it should be."""
    found, came = [] if right else ["no webhook should have come"], set[str]()
    for headers, body in got:
        came.add(id := headers["webhook-id"])
        if id not in right:
            found.append(f"webhook {id}: nothing happened")
        elif msgspec.json.decode(body, type=Alert) != right[id]:
            found.append(f"webhook {id}: {body!r}, and not {right[id]}")
        if headers["webhook-signature"] != signature(secret, id, int(headers["webhook-timestamp"]), body):
            found.append(f"webhook {id}: nobody signed this")
    return [*found, *(f"webhook {id} did not come" for id in right.keys() - came)]


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


def mail_faults(mails: Iterable[Mail], orders: Rows, declined: Iterable[str], people: Mapping[str, str]) -> list[str]:
    """Say who (user → address in ``people``) has a mail of an order too many or too few; ``declined``: once each."""
    ours, once = {row["id"]: people.get(row["user"], "nobody") for row in orders}, set(mails)
    right = Counter((ours.get(order, "nobody"), DECLINED.format(order)) for order in declined)
    for row in orders:
        right.update((ours[row["id"]], one.format(row["id"])) for one in MAILS.get(row["status"], ()))
    came = Counter((mail.to, mail.subject) for mail in once)
    doubled = [id for id, times in Counter(mail.id for mail in once).items() if times > 1]
    return [
        *(f"mail {id} is not the same each time" for id in doubled),
        *(
            f"{to} has {came[to, subject]} mails {subject!r}, of {right[to, subject]}"
            for to, subject in came.keys() | right.keys()
            if came[to, subject] != right[to, subject]
        ),
    ]


def letter_faults(letters: Sequence[Letter], planted: AbstractSet[tuple[str, str, str]]) -> list[str]:
    """Say which dead letters are there that nobody planted, and which of ``planted`` are not, with their reason."""
    found = {(one.group, one.topic, one.reason): one for one in letters}
    return [
        *(f"a dead letter: {one}" for key, one in found.items() if key not in planted),
        *(f"no dead letter tells of {one}" for one in planted - found.keys()),
        *(f"a dead letter without an error: {one}" for one in letters if not one.error),
    ]

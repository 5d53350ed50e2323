"""The checkers of the whole find what is planted for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from devices.alerting.hook import signature
from devices.alerting.rules import Rule
from devices.events import Alert, Window
from devices.shadow.rules import Shadow
from tests.devices.ledger import Kept, alert_faults
from tests.whole import shadows
from tests.whole.checker import (
    Mail,
    gap_faults,
    hook_faults,
    ledger_of,
    letter_faults,
    loss_faults,
    mail_faults,
    order_faults,
    standing_faults,
    window_faults,
)
from tests.whole.evidence import Letter, Told
from tests.whole.stage import wait_of
from tests.whole.talkers import View
from tests.whole.watcher import Watcher


def reading(seq: int) -> dict[str, Any]:
    return {"boot": "b", "seq": seq, "ts": seq, "m": {"temp": seq}}


def test_a_log_is_a_ledger_of_what_must_be_there() -> None:
    made = ledger_of([("d", reading(1)), ("d", [reading(2), reading(3)]), ("d", {**reading(4), "ts": "noon"})])
    assert [[one.seq for one in message.readings] for message in made.messages] == [[1], [2, 3]]
    assert all(message.acknowledged for message in made.messages)


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [(1, 3, []), (2, 3, ["('d', 'b'): sent 1 to 3, and the run is (2, 3)"]), (1, 2, ["is (1, 2)"]), (0, 0, ["None"])],
)
def test_a_gap_that_nobody_can_count_is_found(first: int, last: int, told: list[str]) -> None:
    runs = [{"device": "d", "boot": "b", "first": first, "last": last}] if first else []
    found = gap_faults(ledger_of([("d", reading(n)) for n in (1, 2, 3)]), Kept([], [], [], runs))
    assert len(found) == len(told)
    assert all(one in fault for one, fault in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("there", "told", "found"),
    [
        ((1, 2, 3, 4), 0, []),
        ((1, 4), 2, []),
        ((1, 4), 1, ["[2, 3] are missing, and 1 are called lost"]),
        ((1, 2, 3, 4), 1, ["[] are missing, and 1 are called lost"]),
        ((1, 2, 4), None, ["[3] are missing, and None are called lost"]),
    ],
)
def test_a_loss_that_is_not_what_is_missing_is_found(
    there: tuple[int, ...], told: int | None, found: list[str]
) -> None:
    kept = Kept([{"device": "d", "boot": "b", "seq": seq} for seq in there], [], [], [])
    said = {} if told is None else {("d", "b"): told}
    faults = loss_faults(ledger_of([("d", reading(n)) for n in (1, 2, 3, 4)]), kept, said)
    assert [fault.partition(": ")[2] for fault in faults] == found


def alert(device: str, what: Any = "firing", occurred: int = 30_000) -> Alert:
    return Alert("mute", device, what, "print", occurred, occurred + 9, None, "warning")


@pytest.mark.parametrize(
    ("told", "faults"),
    [
        ([alert("d"), alert("*"), alert("*", "resolved")], 0),
        ([], 1),
        ([alert("d"), alert("d", "resolved")], 1),
        ([alert("d", occurred=30_001)], 0),
        ([alert("d", occurred=29_999)], 1),
        ([alert("d"), alert("d")], 2),
        ([alert("d"), alert("e")], 1),
        ([alert("d"), alert("e"), alert("e", "resolved")], 1),
        ([alert("d"), alert("*", "resolved")], 1),
    ],
)
def test_a_silence_that_was_not_told_or_that_nobody_kept_is_found(told: list[Alert], faults: int) -> None:
    rules = {"mute": Rule("silent", after=20.0)}
    assert len(alert_faults(ledger_of([]), Kept([], [], [], []), rules, told, {"d": 10_000})) == faults


@pytest.mark.parametrize(
    ("state", "told", "faults"),
    [
        ("firing", [alert("d")], 0),
        ("pending", [alert("d"), alert("d", "resolved"), alert("*")], 0),
        ("resolved", [alert("d")], 1),
        ("firing", [alert("d"), alert("d", "resolved")], 1),
        ("ok", [alert("e")], 1),
    ],
)
def test_an_alert_that_stands_otherwise_than_it_was_told_is_found(state: str, told: list[Alert], faults: int) -> None:
    assert len(standing_faults([{"rule": "mute", "device": "d", "state": state}], told)) == faults


Hook = tuple[dict[str, str], bytes]


def hook(id: str, body: bytes, secret: bytes = b"s") -> Hook:
    headers = {"webhook-id": id, "webhook-timestamp": "7", "webhook-signature": signature(secret, id, 7, body)}
    return headers, body


BODY = msgspec.json.encode(alert("d"))
HOOKS: dict[str, Callable[[list[Hook]], object]] = {
    "webhook one did not come": lambda got: got.clear(),
    "webhook two: nothing happened": lambda got: got.append(hook("two", BODY)),
    "webhook one: nobody signed this": lambda got: got.append(hook("one", BODY, b"other")),
    "and not Alert(": lambda got: got.append(hook("one", msgspec.json.encode(alert("e")))),
}


@pytest.mark.parametrize("said", HOOKS)
def test_a_webhook_that_did_not_come_or_of_nothing_is_found(said: str) -> None:
    got, right = [hook("one", BODY), hook("one", BODY)], {"one": alert("d")}
    assert hook_faults(got, right, b"s") == []
    assert hook_faults([], {}, b"s") == ["no webhook should have come"]
    HOOKS[said](got)
    assert [fault for fault in hook_faults(got, right, b"s") if said in fault]


WINDOWS: dict[str, Callable[[list[dict[str, Any]], list[Window]], object]] = {
    "where 2 readings are from 1.0 to 3.0": lambda rows, told: rows[0].update(count=3),
    "None, where 2 readings": lambda rows, told: rows.clear(),
    "told are the revisions [0] of 2": lambda rows, told: told.pop(),
    "told are the revisions [0, 1, 1] of 2": lambda rows, told: told.append(told[1]),
    "was told last": lambda rows, told: told.__setitem__(1, msgspec.structs.replace(told[1], max=2.0)),
    "nobody measured it": lambda rows, told: rows.append({**rows[0], "device": "e"}),
}


@pytest.mark.parametrize("said", WINDOWS)
def test_a_window_that_no_readings_make_or_that_was_not_told_is_found(said: str) -> None:
    key = {"device": "d", "metric": "temp"}
    kept = Kept([{**key, "ts": 60_001, "value": 1.0}, {**key, "ts": 60_002, "value": 3.0}], [], [], [])
    rows = [{**key, "start": 60_000, "count": 2, "least": 1.0, "most": 3.0, "revision": 2, "untold": False}]
    first = Window(60_000, 120_000, 1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, None, unusual=False)
    told = [first, msgspec.structs.replace(first, count=2, max=3.0, revision=1)]
    assert window_faults(kept, rows, [("d", "temp", one) for one in told]) == []
    WINDOWS[said](rows, told)
    assert any(said in fault for fault in window_faults(kept, rows, [("d", "temp", one) for one in told]))


class Shop:
    """Two orders, each with its key."""

    def __init__(self) -> None:
        self.placed = {"k1": "o1", "k2": "o2"}
        self.orders = [{"id": "o1"}, {"id": "o2"}]
        self.keys = [{"key": "k1"}, {"key": "k2"}]

    def faults(self) -> list[str]:
        return order_faults(self.placed, self.orders, self.keys)


SHOP: dict[str, Callable[[Shop], object]] = {
    "o2 was acknowledged and is there 0 times": lambda s: s.orders.pop(),
    "o2 was acknowledged and is there 2 times": lambda s: s.orders.append({"id": "o2"}),
    "o3 is there, and nobody was told": lambda s: s.orders.append({"id": "o3"}),
    "o1 is what several keys became": lambda s: s.placed.update(k2="o1"),
    "k2 is known 0 times": lambda s: s.keys.pop(),
    "k1 is known 2 times": lambda s: s.keys.append({"key": "k1"}),
    "k3 is known, and nobody was told": lambda s: s.keys.append({"key": "k3"}),
}


@pytest.mark.parametrize("told", SHOP)
def test_an_order_that_is_not_there_once_is_found(told: str) -> None:
    shop = Shop()
    assert shop.faults() == []
    SHOP[told](shop)
    assert told in shop.faults()


class Post:
    """Three orders: one came, one is short, one was declined and then cancelled; the first mail came twice."""

    def __init__(self) -> None:
        ends = {"o1": "completed", "o2": "out_of_stock", "o3": "cancelled"}
        self.orders = [{"id": id, "user": "u", "status": status} for id, status in ends.items()]
        self.declined = ["o3"]
        subjects = ["1 is confirmed", "1 is confirmed", "1 is on its way", "1 was delivered", "2: out of stock"]
        subjects += ["3: the payment was declined", "3 is cancelled"]
        self.mails = [Mail(f"m{one}", "u@", f"Your order o{one}") for one in subjects]

    def faults(self) -> list[str]:
        return mail_faults(self.mails, self.orders, self.declined, {"u": "u@", "v": "v@"})

    def changes(self, n: int, **to: str) -> None:
        self.mails[n] = msgspec.structs.replace(self.mails[n], **to)


POST: dict[str, Callable[[Post], object]] = {
    "u@ has 0 mails 'Your order o2: out of stock', of 1": lambda post: post.mails.pop(4),
    "u@ has 2 mails 'Your order o1 is confirmed', of 1": lambda post: post.changes(1, id="another"),
    "u@ has 1 mails 'Your order o2 is confirmed', of 0": lambda post: post.changes(
        1, subject="Your order o2 is confirmed"
    ),
    "u@ has 0 mails 'Your order o1 was delivered', of 1": lambda post: post.changes(3, to="v@"),
    "v@ has 1 mails 'Your order o1 was delivered', of 0": lambda post: post.changes(3, to="v@"),
    "u@ has 1 mails 'Your order o3: the payment was declined', of 0": lambda post: post.declined.clear(),
    "u@ has 1 mails 'Your order o3: the payment was declined', of 2": lambda post: post.declined.append("o3"),
    "u@ has 0 mails 'Your order o2 is cancelled', of 1": lambda post: post.orders[1].update(status="cancelled"),
    "mail m1 is confirmed is not the same each time": lambda post: post.changes(
        1, subject="Your order o1 was delivered"
    ),
}


@pytest.mark.parametrize("told", POST)
def test_a_mail_too_many_or_too_few_is_found(told: str) -> None:
    post = Post()
    assert post.faults() == []
    POST[told](post)
    assert told in post.faults()


def test_only_planted_letters_are_good_and_they_say_why() -> None:
    wrong = Letter("devices.storage", "rejected", "devices/d/telemetry", "1", "no number")
    planted = {("devices.storage", "devices/d/telemetry", "rejected")}
    assert letter_faults([wrong], planted) == []
    assert "no dead letter tells of" in letter_faults([], planted)[0]
    assert "a dead letter: " in letter_faults([wrong, msgspec.structs.replace(wrong, reason="timeout")], planted)[0]
    assert "without an error" in letter_faults([msgspec.structs.replace(wrong, error="")], planted)[0]


def entry(seq: int, id: str = "") -> dict[str, Any]:
    return {"seq": seq, "id": id or f"m{seq}"}


@pytest.mark.parametrize(
    ("coming", "told"),
    [
        ([entry(1), entry(2), entry(1), entry(2), entry(3)], []),
        ([entry(1), entry(3)], ["tea: 3 came after 1"]),
        ([entry(1), entry(2), entry(1, "other")], ["tea: 1 came twice, and was not the same"]),
    ],
)
def test_a_client_tells_of_a_hole_and_of_a_number_that_is_two_things(coming: list[Any], told: list[str]) -> None:
    view = View("tea")
    for one in coming:
        view.take(one, live=True)
    assert view.wrong == told


@pytest.mark.parametrize(
    ("shown", "notes", "faults"),
    [
        ("abc", "back\n", 0),
        ("bcbc", "", 0),
        ("ac", "", 1),
        ("ab", "", 1),
        ("acb", "", 1),
        ("abcd", "", 1),
        ("xabc", "", 1),
        ("", "", 1),
        ("abc", "note: t: something is missing here\n", 1),
    ],
)
def test_what_a_watcher_missed_is_found(tmp_path: Path, shown: str, notes: str, faults: int) -> None:
    out, noted = tmp_path / "out", tmp_path / "notes"
    out.write_text("".join(f'{{"topic": "t", "id": "{id}"}}\n' for id in shown) + '{"topic": "t", "i')
    noted.write_text(notes)
    assert len(Watcher(["t"], out, noted).faults([Told("t", id, 0, None) for id in "abc"])) == faults


@pytest.mark.parametrize(
    ("status", "retryable", "asks_again"), [(503, True, True), (429, True, True), (409, False, False)]
)
def test_what_may_be_asked_again_is(status: int, retryable: bool, asks_again: bool) -> None:
    body = msgspec.json.encode({"retryable": retryable, "status": status})
    answer = httpx.Response(status, content=body, headers={"content-type": "application/problem+json"})
    assert (wait_of(answer) >= 0) is asks_again


def _shadow(version: int, n: int, said: int) -> dict[str, Any]:
    kept = msgspec.json.encode(Shadow(version, {"n": n}, {"n": said}))
    return {"device": "d", "version": version, "said": kept}


def _log(*events: tuple[str, Any]) -> list[Told]:
    return [Told(f"devices/d/shadow{topic}", str(n), n, data) for n, (topic, data) in enumerate(events)]


def test_a_shadow_is_what_was_told_of_it_each_version_once_and_each_update_answered() -> None:
    documents = [("", {"version": n, "desired": {"n": n}, "reported": {"n": 0}}) for n in (1, 2)]
    log = _log(("/update", {}), ("/update/accepted", {}), *documents, ("/delta", {"version": 2, "state": {"n": 2}}))
    assert shadows.faults([_shadow(2, 2, 0)], log, {"d": 2}) == []
    assert "1 updates, 0 answers" in shadows.faults([_shadow(2, 2, 0)], [log[0], *log[2:]], {})[0]
    assert "versions [2] of 2" in shadows.faults([_shadow(2, 2, 0)], [log[3], log[4]], {})[0]
    assert "versions [1, 2, 2] of 2" in shadows.faults([_shadow(2, 2, 0)], [*log[2:4], *log[3:]], {})[0]
    assert "not what was told last" in shadows.faults([_shadow(2, 2, 1)], log, {})[0]
    assert "told is the delta None" in shadows.faults([_shadow(2, 2, 0)], log[:4], {})[0]
    assert "3 was wanted last" in shadows.faults([_shadow(2, 2, 0)], log, {"d": 3})[0]
    assert "of 0" in shadows.faults([], log, {})[0]

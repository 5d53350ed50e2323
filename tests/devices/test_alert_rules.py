"""What alerting decides: every pair of its table, late readings, hysteresis, and where webhooks may lead."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from devices import limits
from devices.alerting.hook import open_to_us, signature
from devices.alerting.rules import (
    STEPS,
    Condition,
    Rule,
    Saw,
    State,
    Watch,
    contradiction,
    fingerprint,
    heard_of_all,
    horizon,
    judged,
    means_else,
    pause,
    stepped,
    told,
    watched,
)

HOT = Rule("above", metric="temp", threshold=30.0, clear=25.0, lasting=60.0)


def test_the_table_is_what_it_says() -> None:
    legal = {
        "ok breach pending", "ok held firing", "resolved breach pending", "resolved held firing",
        "pending held firing", "pending between ok", "pending calm ok", "firing calm resolved", "ending calm resolved",
    }  # fmt: skip
    assert {f"{state} {saw} {to}" for (state, saw), to in STEPS.items()} == legal


@pytest.mark.parametrize(("state", "saw"), list(product(get_args(State), get_args(Saw))))
def test_each_pair_leads_where_the_table_says_and_tells_beginning_and_end(state: Any, saw: Any) -> None:
    old = Condition(state, 1, 1, 1)
    new = stepped(old, saw, 9, 5, 2.0)
    assert new.state == STEPS.get((state, saw), state)
    assert (new.at, new.value) == (9, 2.0)
    assert (new.since, new.changed) == ((1, 1) if new.state == state else (5, 9))
    heard = {"firing": "firing", "resolved": "resolved"}.get(new.state) if new.state != state else None
    assert told(old, new) == heard


def walk(rule: Rule, *readings: tuple[int, float]) -> list[str]:
    now, states = Condition(), list[str]()
    for seconds, value in readings:
        now = judged(rule, now, seconds * 1000, value)
        states.append(now.state)
    return states


def test_it_must_last_in_event_time() -> None:
    assert walk(HOT, (1, 31), (60, 31), (61, 31)) == ["pending", "pending", "firing"]
    assert walk(HOT, (1, 31), (50, 28), (61, 31), (120, 31), (121, 31)) == [
        "pending", "ok", "pending", "pending", "firing",
    ]  # fmt: skip


def test_between_threshold_and_clear_it_goes_on() -> None:
    at_once = Rule("above", metric="temp", threshold=30.0, clear=25.0)
    assert walk(at_once, (1, 31), (2, 28), (3, 25), (4, 28), (5, 31)) == [
        "firing", "firing", "resolved", "resolved", "firing",
    ]  # fmt: skip


def test_below_is_the_same_upside_down() -> None:
    cold = Rule("below", metric="temp", threshold=0.0, clear=2.0)
    assert walk(cold, (1, 0), (2, -1), (3, 1), (4, 2)) == ["ok", "firing", "firing", "resolved"]


def test_without_clear_it_ends_at_the_threshold() -> None:
    assert walk(Rule("above", metric="temp", threshold=30.0), (1, 31), (2, 30)) == ["firing", "resolved"]


def test_a_late_reading_ends_nothing() -> None:
    assert walk(Rule("above", metric="temp", threshold=30.0), (10, 31), (9, 1)) == ["firing", "firing"]


def test_silence_is_not_judged_by_values() -> None:
    assert judged(Rule("silent", after=5.0), Condition(), 1, 1.0) == Condition()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (HOT, ""),
        (Rule("below", metric="t", threshold=1.0, clear=2.0), ""),
        (Rule("silent", after=1.0), ""),
        (Rule("silent"), "needs `after`"),
        (Rule("silent", after=1.0, metric="t"), "has no metric"),
        (Rule("silent", after=1.0, threshold=1.0), "has no metric"),
        (Rule("above", threshold=1.0), "needs `metric`"),
        (Rule("above", metric="t"), "needs `metric`"),
        (Rule("above", metric="t", threshold=1.0, clear=2.0), "wrong side"),
        (Rule("below", metric="t", threshold=1.0, clear=0.0), "wrong side"),
    ],
)
def test_a_rule_that_means_nothing_says_why(rule: Rule, why: str) -> None:
    assert (why in contradiction(rule)) if why else contradiction(rule) == ""


def test_a_rule_is_about_one_device_or_a_prefix() -> None:
    assert Rule("silent", devices="pump-*").about("pump-7")
    assert not Rule("silent", devices="pump-*").about("bay-7")
    assert Rule("silent", devices="pump-7").about("pump-7")
    assert not Rule("silent", devices="pump-7").about("pump-77")
    assert Rule("silent").about("anything")


def test_fingerprints_tell_rules_and_devices_apart() -> None:
    assert len({fingerprint("a", "b"), fingerprint("a", "c"), fingerprint("b", "b"), fingerprint("ab", "")}) == 4


def test_looks_are_a_quarter_apart_within_bounds() -> None:
    assert [pause(0.1), pause(8), pause(10_000)] == [0.5, 2.0, 60.0]


def test_a_rule_of_another_kind_or_metric_means_something_else() -> None:
    assert not means_else(HOT, Rule("above", metric="temp", threshold=1.0, devices="x-*", channels=("ops",)))
    assert means_else(HOT, Rule("above", metric="rpm", threshold=30.0))
    assert means_else(HOT, Rule("below", metric="temp", threshold=30.0))


def looks(*heard: int, after: float = 40.0, late: int = 0) -> Watch:
    """Looks 10 s apart from 1000 s on, each of which finds what was heard last, in s; the last ``late`` s later."""
    watch = Watch()
    for n, last in enumerate(heard):
        now = (1000 + n * 10 + (late if n == len(heard) - 1 else 0)) * 1000
        watch = watched(watch, now, last * 1000, pause(after))
    return watch


def test_where_others_are_heard_a_device_is_silent_after_its_time() -> None:
    watch = looks(999, 1009, 1019, 1029, 1039, 1049)
    assert horizon(watch, 40.0) == 1_010_000
    assert heard_of_all(watch, 40.0) == "calm"


def test_what_was_silent_before_the_first_look_is_so_at_once() -> None:
    assert horizon(looks(999), 40.0) == 959_000


def test_a_stretch_without_a_word_of_anybody_is_nobodys_silence() -> None:
    # Nothing from 1000 to 1020; then the fleet is there again, and its first 20 s count with those before.
    watch = looks(1000, 1000, 1000, 1029, 1039)
    assert horizon(watch, 40.0) == (1000 - 20) * 1000
    assert horizon(watch, 19.0) == (1040 - 19) * 1000


def test_after_a_stretch_as_long_as_the_rule_everybody_has_all_the_time_anew() -> None:
    away = [1000] * 6
    assert horizon(looks(*away), 40.0) == 0
    assert horizon(looks(*away, 1059, 1069, 1079), 40.0) == 0
    assert horizon(looks(*away, 1059, 1069, 1079, 1089), 40.0) == 1_050_000


def test_a_fleet_that_is_not_heard_is_told_as_one() -> None:
    assert [heard_of_all(looks(*[999] * n), 40.0) for n in (1, 4, 5)] == ["between", "between", "held"]
    assert heard_of_all(looks(*[999] * 9, 1088), 40.0) == "calm"


def test_while_nobody_looked_nothing_was_silent() -> None:
    # An hour without a look, and part of what came meanwhile is handled: all that came before counts, nothing else.
    watch = looks(999, 1009, 1019, late=3600)
    assert horizon(watch, 40.0) == 0
    assert heard_of_all(watch, 40.0) == "between"
    assert heard_of_all(looks(999, 999, 999, late=3600), 40.0) == "between"


def test_the_oldest_stretches_are_forgotten() -> None:
    # One device speaks every 20 s and the others never: slower than a rule of 40 s would tell, but told.
    watch = looks(*(1000 + n // 2 * 20 for n in range(200)))
    assert len(watch.still) == limits.STILL_MOST
    assert 0 < horizon(watch, 40.0) < watch.at - 40_000


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.1.2.3", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a00:1", False),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),
    ],
)
def test_webhooks_lead_to_public_addresses(address: str, public: bool) -> None:
    assert open_to_us(address) is public


def test_a_signature_is_the_one_of_standard_webhooks() -> None:
    # The example of its specification, with its secret decoded.
    import base64

    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

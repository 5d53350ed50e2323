"""What accounts decides: addresses, waiting, and refresh tokens; every branch."""

from __future__ import annotations

import pytest

from accounts import forms, limits
from accounts.families import Known, judge
from accounts.throttle import counted, counters, wait

NOW, GRACE = 1_000_000, limits.REUSE_WITHIN * 1000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ann@Example.org", "ann@example.org"),
        (" ann@example.org ", "ann@example.org"),
        ("a\u0301nn@example.org", "ánn@example.org"),
        ("ann", ""),
        ("@example.org", ""),
        ("ann@", ""),
        ("ann@host", ""),
        ("ann@.example.org", ""),
        ("ann@example..org", ""),
        ("a@b@example.org", ""),
        ("a b@example.org", ""),
        ("ann@example.org\nbcc: x", ""),
        ("ann@example.org,eve@example.org", ""),
        ("a" * 254 + "@example.org", ""),
    ],
)
def test_an_address_has_one_spelling(text: str, found: str) -> None:
    assert forms.mail(text) == found


@pytest.mark.parametrize(
    ("password", "name", "phone", "good"),
    [
        ("correct horse", "Ann", "", True),
        ("correct horse", "Ann", "+4915112345678", True),
        ("short", "Ann", "", False),
        ("x" * 257, "Ann", "", False),
        ("correct horse", " ", "", False),
        ("correct horse", "An\nn", "", False),
        ("correct horse", "x" * 101, "", False),
        ("correct horse", "Ann", "0151", False),
        ("correct horse", "Ann", "+49x", False),
        ("correct horse", "Ann", "+" + "1" * 20, False),
        ("correct horse", "Ann", "+٤٩", False),
    ],
)
def test_an_account_is_refused_with_its_reason(password: str, name: str, phone: str, good: bool) -> None:
    assert (forms.fault(password, name, phone) == "") is good


def test_the_gateway_knows_users_viewers_and_operators() -> None:
    assert [forms.principal(role) for role in forms.ROLES] == ["user", "viewer", "operator", "operator"]
    assert forms.principal("courier") == "user"  # type: ignore[arg-type]  # what a newer release wrote


def test_waiting_grows_and_ends() -> None:
    assert wait(4, 0, 5) == 0
    assert [wait(n, 0, 5) for n in (5, 6, 7)] == [1, 2, 4]
    assert wait(6, 1.5, 5) == 0.5
    assert wait(7, 60, 5) == 0
    assert wait(10_000, 0, 5) == limits.WAIT_MOST
    assert counted(3, 10) == 4
    assert counted(300, limits.FAILURES_KEPT + 1) == 1


def test_a_try_is_counted_under_names_that_tell_nothing() -> None:
    names = counters("ann@example.org", "192.0.2.1")
    assert sorted(names.values()) == sorted([limits.FREE_PAIR, limits.FREE_MAIL, limits.FREE_PLACE])
    assert not any("ann" in name or "192" in name for name in names)
    assert counters("ann@example.org", "192.0.2.2").keys() & names.keys() == {n for n in names if n[:4] == "mail"}


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        (None, "over"),
        (Known(None, NOW + 1, None), "rotate"),
        (Known(None, NOW, None), "over"),
        (Known(None, NOW + 1, NOW - 9), "over"),
        # Used before: two tabs, or a lost answer, for a moment and until a successor is used.
        (Known(NOW, NOW + 1, None, given=1), "again"),
        (Known(NOW - GRACE, NOW + 1, None, given=limits.SUCCESSORS - 1), "again"),
        (Known(NOW - GRACE, NOW + 1, None, given=limits.SUCCESSORS), "over"),
        (Known(NOW - GRACE, NOW + 1, NOW - 9, given=1), "over"),
        (Known(NOW - GRACE - 1, NOW + 1, None, given=1), "reuse"),
        (Known(NOW - GRACE - 1, NOW - 1, None, given=1), "reuse"),
        (Known(NOW, NOW + 1, None, given=2, given_used=1), "reuse"),
    ],
)
def test_a_refresh_token_is_good_once(known: Known | None, verdict: str) -> None:
    assert judge(known, NOW) == verdict

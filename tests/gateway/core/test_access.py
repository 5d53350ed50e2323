"""Grants: each word, whom it covers, and what is no grant."""

import pytest

from gateway import limits
from gateway.core.access import ANONYMOUS, KINDS, Grant, Principal, Revocation, Revoked, check_grants, denied, may
from gateway.errors import LimitReached, Misconfigured

ALICE, OPERATOR, VIEWER = Principal("user", "alice"), Principal("operator", "alice"), Principal("viewer", "alice")
PUMP, ORDERS = Principal("device", "pump-7"), Principal("service", "orders")


@pytest.mark.parametrize(
    ("who", "grant", "bound", "covered"),
    [
        (ANONYMOUS, "anyone", {}, True),
        (PUMP, "anyone", {}, True),
        (ANONYMOUS, "user", {}, False),
        (ALICE, "user", {}, True),
        (ALICE, "device", {}, False),
        (OPERATOR, "operator", {}, True),
        (OPERATOR, "user", {}, False),
        (VIEWER, "viewer", {}, True),
        (VIEWER, "user", {}, False),
        (VIEWER, "user:{user}", {"user": "alice"}, False),
        (ALICE, "viewer", {}, False),
        (OPERATOR, "viewer", {}, False),
        (ORDERS, "service:orders", {}, True),
        (ORDERS, "service:order", {}, False),
        (Principal("user", "orders"), "service:orders", {}, False),
        (PUMP, "device:{device}", {"device": "pump-7"}, True),
        (PUMP, "device:{device}", {"device": "pump-8"}, False),
        (Principal("user", "pump-7"), "device:{device}", {"device": "pump-7"}, False),
        # A wildcard left the variable open: his own is not everybody's.
        (PUMP, "device:{device}", {}, False),
        # Nobody in particular must not pass for the empty level of "devices//telemetry".
        (Principal("device", ""), "device:{device}", {"device": ""}, False),
        (Principal("device", ""), "device:{device}", {}, False),
        (Principal("user", "{user}"), "user:{user}", {}, False),
    ],
)
def test_a_grant_covers_whom_it_names(who: Principal, grant: str, bound: dict[str, str], covered: bool) -> None:
    assert may(who, [grant], bound) is covered


@pytest.mark.parametrize(
    ("who", "word", "bound", "covered"),
    [
        (ANONYMOUS, "anyone", {}, True),
        (ALICE, "user", {}, True),
        (ALICE, "user:alice", {}, True),
        (ALICE, "user:bob", {}, False),
        (OPERATOR, "user:{user}", {}, False),
        (ALICE, "user:{user}", {"user": "alice"}, True),
        (ALICE, "user:{user}", {"user": "bob"}, False),
        # A wildcard left the variable open: what is denied is among what it lets through.
        (ALICE, "user:{user}", {}, True),
    ],
)
def test_a_denial_covers_whoever_it_could_mean(who: Principal, word: str, bound: dict[str, str], covered: bool) -> None:
    assert denied(who, ["service", word], bound) is covered


@pytest.mark.parametrize("who", [ANONYMOUS, ALICE, VIEWER, OPERATOR, PUMP, ORDERS])
def test_what_no_grant_gives_is_denied(who: Principal) -> None:
    assert not may(who, [], {"user": who.name, "device": who.name})


def test_one_of_several_grants_is_enough() -> None:
    assert may(ALICE, ["service:orders", "device", "user:{user}"], {"user": "alice"})


def test_principals_are_written_as_kind_and_name() -> None:
    assert [str(p) for p in (ALICE, PUMP, ANONYMOUS)] == ["user:alice", "device:pump-7", "anonymous"]


@pytest.mark.parametrize("grant", ["anyone", *KINDS, "service:orders", "user:a.b_c@d-e", "device:{device}"])
def test_a_grant_is_accepted(grant: str) -> None:
    check_grants([grant], ["device"], "here")


@pytest.mark.parametrize(
    "grant",
    [
        "",
        "any",
        "Anyone",
        "anyone:x",
        "admin",
        "user:",
        "user:{}",
        "user:{A}",
        "user:*",
        "user:a/b",
        "anonymous",
        "user x",
    ],
)
def test_any_other_word_is_no_grant(grant: str) -> None:
    with pytest.raises(Misconfigured, match=r"^here: .* is not a grant; write anyone, user,"):
        check_grants(["anyone", grant], [], "here")


@pytest.mark.parametrize(("variables", "says"), [([], "has no variable"), (["a", "b"], r"has \{a\}, \{b\}")])
def test_a_grant_may_only_name_a_level_of_the_pattern(variables: list[str], says: str) -> None:
    with pytest.raises(Misconfigured, match=rf"names \{{device\}}, which is no level .*{says}"):
        check_grants(["device:{device}"], variables, "here")


def test_what_was_revoked_and_what_was_not() -> None:
    alice, bob = Principal("user", "alice"), Principal("user", "bob")
    by_sub = Revocation("sub", "user:alice", 1_000, 2_000)
    by_jti = Revocation("jti", "j-1", 1_000, 2_000)
    by_key = Revocation("key", "old", 1_000, 2_000)
    revoked = Revoked([by_sub, by_jti, by_key])
    table = [
        (Grant(alice, 1_500, "k", "", 999), 1_100, by_sub),
        (Grant(alice, 1_500, "k", "", 1_000), 1_100, by_sub),  # made in the same second
        (Grant(alice, 1_500, "k", "", 1_001), 1_100, None),  # made later: she may come again
        (Grant(alice, 1_500, "k", "", None), 1_100, by_sub),  # does not say
        (Grant(alice, 1_500, "k", "", 999), 2_000, None),  # over, and so is the token
        (Grant(Principal("operator", "alice"), 1_500, "k", "", 999), 1_100, None),
        (Grant(bob, 1_500, "k", "j-1", 1_500), 1_100, by_jti),
        (Grant(bob, 1_500, "k", "j-2", 999), 1_100, None),
        (Grant(bob, 1_500, "old", "j-2", 1_900), 1_950, by_key),  # whoever has the key writes any iat
        (Grant(ANONYMOUS), 1_100, None),
        (Grant(Principal("service", "s"), None, "api:s.1"), 1_100, None),
    ]
    for grant, now, expected in table:
        assert revoked.covers(grant, now) == expected, grant
    assert Revoked().covers(table[0][0], 1_100) is None


def test_what_is_over_is_forgotten_and_the_rest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REVOCATIONS", 3)
    revoked = Revoked(Revocation("jti", str(n), 0, 10) for n in range(3))
    revoked.add(Revocation("jti", "2", 5, 30))  # again, for longer
    assert len(revoked) == 3
    revoked.add(Revocation("jti", "3", 20, 30))  # the others are over by then
    assert len(revoked) == 2
    revoked.add(Revocation("jti", "4", 20, 30))
    with pytest.raises(LimitReached, match="key ring"):
        revoked.add(Revocation("jti", "5", 20, 30))
    # Whoever asked is told, and yet it is in force: to forget one would let somebody in.
    assert revoked.covers(Grant(Principal("user", "a"), 25, "k", "5"), 21) is not None

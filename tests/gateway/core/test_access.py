"""Grants: each word, whom it covers, and what is no grant."""

import pytest

from gateway.core.access import ANONYMOUS, KINDS, Principal, check_grants, may
from gateway.errors import Misconfigured

ALICE, OPERATOR = Principal("user", "alice"), Principal("operator", "alice")
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


@pytest.mark.parametrize("who", [ANONYMOUS, ALICE, OPERATOR, PUMP, ORDERS])
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

"""What the shop decides: every pair of every status table, and every branch of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from ecommerce import limits
from ecommerce.acquirer import rules as acquirer
from ecommerce.events import Currency, Line, Method, Sku, Title, What
from ecommerce.inventory import rules as inventory
from ecommerce.notifications import mail
from ecommerce.notifications import rules as notifications
from ecommerce.orders import rules as orders
from ecommerce.payments import rules as payments
from ecommerce.shipping import rules as shipping

#: Each table: where it is, what happens, and all pairs that lead anywhere, written a second time.
LEGAL: dict[str, tuple[Mapping[Any, Any], tuple[Any, ...], tuple[Any, ...], set[str]]] = {
    "order": (
        orders.ORDER,
        get_args(orders.Order),
        get_args(What),
        {
            "accepted reserved", "reserved confirmed", "confirmed completed", "accepted out_of_stock",
            "accepted expired", "reserved expired", "accepted cancelled", "reserved cancelled",
        },
    ),
    "order's payment": (
        orders.PAYMENT,
        get_args(orders.Payment),
        get_args(What),
        {
            "none authorized", "none declined", "declined declined", "declined authorized", "authorized captured",
            "authorized voided",
        },
    ),
    "fulfilment": (
        orders.FULFILMENT,
        get_args(orders.Fulfilment),
        get_args(What),
        {"unfulfilled shipped", "shipped delivered"},
    ),
    "reservation": (
        inventory.STEPS,
        get_args(inventory.Reservation),
        get_args(inventory.Asked),
        {
            "none reserve", "held reserve", "short reserve", "released reserve", "committed reserve", "none release",
            "held release", "short release", "released release", "held commit", "committed commit",
        },
    ),
    "payment": (
        payments.STEPS,
        get_args(payments.Payment),
        get_args(payments.What),
        {
            "none authorize", "pending approved", "pending declined", "declined retry", "none void", "pending void",
            "declined void", "authorized void", "voided void", "authorized capture", "captured capture",
        },
    ),
    "parcel": (
        shipping.STEPS,
        get_args(shipping.Parcel),
        get_args(shipping.What),
        {
            "none ship", "prepared ship", "prepared packed", "shipped ship", "moving ship", "delivered ship",
            "shipped deliver", "moving deliver", "moving arrived", "delivered deliver",
        },
    ),
    "charge": (
        acquirer.STEPS,
        get_args(acquirer.Charge),
        get_args(acquirer.Asked),
        {
            "none void", "silent void", "declined void", "approved void", "captured void", "voided void",
            "refunded void", "approved capture", "captured capture",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_only_legal_pairs_lead_anywhere(name: str) -> None:
    table, froms, whats, legal = LEGAL[name]
    assert {f"{a} {b}" for a, b in product(froms, whats) if (a, b) in table} == legal
    # Nothing in the table is of another world.
    assert set(table) <= set(product(froms, whats))
    for then in table.values():
        assert (then[0] if isinstance(then, tuple) else then) in froms


def test_what_has_ended_stays_so() -> None:
    for end, what in product(orders.ENDS, get_args(What)):
        assert (end, what) not in orders.ORDER


def test_an_order_follows_one_axis_at_a_time() -> None:
    now = orders.Standing()
    for what in ("reserved", "declined", "authorized", "confirmed", "shipped", "captured", "delivered", "completed"):
        then = orders.follow(now, what)
        assert then is not None
        changed = [axis for axis in ("order", "payment", "fulfilment") if getattr(now, axis) != getattr(then, axis)]
        assert len(changed) == 1
        now = then
    assert now == orders.Standing("completed", "captured", "delivered")
    assert orders.follow(now, "cancelled") is None


def test_every_turn_that_is_told_can_be() -> None:
    assert set(orders.TOLD.values()) <= set(get_args(What))
    assert {orders.ends_as(reason) for reason in get_args(orders.Reason)} == {"out_of_stock", "expired", "cancelled"}
    assert set(notifications.TEMPLATES) <= set(get_args(What))


@pytest.mark.parametrize(
    ("step", "what", "reason", "stuck"),
    [
        ("reserve", "late", "", True),
        ("authorize", "late", "", False),
        ("authorize", "late", "cancelled", True),
        ("commit", "late", "", True),
        ("commit", "done", "", False),
    ],
)
def test_operators_hear_of_services_and_not_of_customers(step: str, what: str, reason: str, stuck: bool) -> None:
    assert orders.is_stuck(step, what, reason) is stuck


PRICES = {
    "TEA": orders.Price(500, "EUR", True),
    "CUP": orders.Price(700, "EUR", True),
    "HAT": orders.Price(700, "USD", True),
    "OLD": orders.Price(1, "EUR", False),
    "GOLD": orders.Price(limits.AMOUNT_MOST, "EUR", True),
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([("TEA", 2), ("CUP", 1)], 1700),
        ([("TEA", 1), ("TEA", 1)], 1000),
        ([("GOLD", 1)], limits.AMOUNT_MOST),
        ([("GOLD", 1), ("TEA", 1)], "at most"),
        ([("TEA", 1), ("HAT", 1)], "one currency"),
        ([("OLD", 1), ("NONE", 1), ("TEA", 1)], "not sold: NONE, OLD"),
        ([], "one currency"),
    ],
)
def test_what_a_basket_costs(wanted: list[tuple[str, int]], found: int | str) -> None:
    said = orders.priced([orders.Wanted(*one) for one in wanted], PRICES)
    if isinstance(found, str):
        assert isinstance(said, str)
        assert found in said
    else:
        assert isinstance(said, tuple)
        assert said[1:] == (found, "EUR")
        assert [(line.sku, line.quantity) for line in said[0]] == wanted


def test_lines_of_one_article_are_one_and_all_lock_in_one_order() -> None:
    lines = [Line("TEA", 2, 5), Line("CUP", 1, 5), Line("TEA", 3, 5)]
    assert inventory.summed(lines) == [("CUP", 1), ("TEA", 5)]
    assert inventory.summed(reversed(lines)) == [("CUP", 1), ("TEA", 5)]


def test_declines_end() -> None:
    assert [payments.final("insufficient_funds", n) for n in (1, 2, 3)] == [False, False, True]
    assert payments.final("stolen_card", 1)


def test_a_webhook_is_believed_for_its_signature() -> None:
    body, secret = b'{"id": "1"}', b"secret"
    header = acquirer.signature(secret, body, 1_000)
    assert payments.fault(secret, body, header, 1_000 + limits.WEBHOOK_AGE) == ""
    assert "too long ago" in payments.fault(secret, body, header, 1_001 + limits.WEBHOOK_AGE)
    assert "too long ago" in payments.fault(secret, body, header, 999 - limits.WEBHOOK_AGE)
    for other in (body + b" ", b""):
        assert "not the acquirer's" in payments.fault(secret, other, header, 1_000)
    assert "not the acquirer's" in payments.fault(secret, body, header.replace("t=1000", "t=1001"), 1_000)
    for unsigned in ("", header.upper(), header + "0", header.replace("t=", "")):
        assert "not signed" in payments.fault(secret, body, unsigned, 1_000)


def test_a_try_is_charged_once_and_never_after_a_void() -> None:
    charged = {(status, n) for status in get_args(acquirer.Charge) for n in (1, 2) if acquirer.chargeable(status, 1, n)}
    assert charged == {("none", 2), ("declined", 2)}
    assert acquirer.card("card_ok").becomes == "approved"
    assert acquirer.card("stranger").code == "unknown_card"


def test_a_parcel_has_one_number() -> None:
    assert shipping.tracking("a") == shipping.tracking("a") != shipping.tracking("b")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1290, "EUR", "12.90 EUR"), (5, "USD", "0.05 USD"), (1290, "JPY", "1290 JPY"), (1290, "KWD", "1.290 KWD")],
)
def test_money_as_people_write_it(amount: int, currency: str, text: str) -> None:
    assert notifications.shown(amount, currency) == text


@pytest.mark.parametrize("address", ["https://shop.example.org", "http://127.0.0.1:8080", "http://[::1]:80"])
def test_a_link_that_readers_reach(address: str) -> None:
    assert mail.public(address) == address


@pytest.mark.parametrize(
    "address", ["", "http://edge:8080", "shop.example.org", "https://", "https://a/b", "https://me@a", "ftp://a"]
)
def test_a_link_that_nobody_reaches_is_not_sent(address: str) -> None:
    with pytest.raises(mail.NoAddress, match="ECOMMERCE_ADDRESS=https://HOST"):
        mail.public(address)


def _takes(type: Any, value: str) -> bool:
    try:
        msgspec.convert(value, type)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("method", ["card_ok", "tok_1N3T00LkdIwHu7ixt44h1F8k", "card_4242", "card_" + "x" * 59])
def test_a_method_is_a_token(method: str) -> None:
    assert _takes(Method, method)


@pytest.mark.parametrize(
    "method",
    [
        *("", "card_", "ok", "Card_ok", "xcard_ok", "card_ok\n", "card_o k", "card_ö", "card_" + "x" * 60),
        *("4111111111111111", "card_4111111111111111", "tok_4111_1111_1111_1111", "card_x411111111111", "4111 1111"),
        "card_378282246310005_12_29",
    ],
)
def test_a_number_of_a_card_is_no_method(method: str) -> None:
    assert not _takes(Method, method)


def test_a_last_newline_is_part_of_no_name() -> None:
    for type, good in ((Sku, "CUP-1"), (Currency, "EUR"), (Title, "A cup")):
        assert _takes(type, good)
        assert not _takes(type, good + "\n")


def test_who_is_told_how() -> None:
    assert notifications.channels("shipped", True) == ("mail", "sms")
    assert notifications.channels("shipped", False) == notifications.channels("declined", True) == ("mail",)
    assert [notifications.refused(code) for code in (250, 421, 550, 554, 600)] == [False, False, True, True, False]

"""The checker finds what is planted for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ecommerce.books import Books, faults


def books() -> Books:
    """A shop after one order that was completed, and one that was not."""
    return Books(
        orders=[
            {"id": "a", "status": "completed", "total": 5, "ended": 1},
            {"id": "b", "status": "expired", "total": 5, "ended": 1},
            {"id": "c", "status": "reserved", "total": 5, "ended": None},
        ],
        stock=[{"sku": "TEA", "on_hand": 8, "reserved": 1}],
        reservations=[
            {"order": "a", "status": "committed"},
            {"order": "b", "status": "released"},
            {"order": "c", "status": "held"},
        ],
        parts=[
            {"order": "a", "sku": "TEA", "quantity": 2},
            {"order": "b", "sku": "TEA", "quantity": 3},
            {"order": "c", "sku": "TEA", "quantity": 1},
        ],
        receipts=[{"sku": "TEA", "quantity": 4}, {"sku": "TEA", "quantity": 6}],
        payments=[],
        charges=[{"order": "a", "status": "captured", "amount": 5}, {"order": "b", "status": "voided", "amount": 5}],
        parcels=[{"order": "a", "status": "delivered"}],
    )


def test_good_books_are_good() -> None:
    assert faults(books(), ended=False) == []
    assert faults(books()) == ["c: has not ended, it is reserved"]


PLANTED: dict[str, Callable[[Books], object]] = {
    "oversold": lambda b: b.stock[0].update(reserved=9),
    "live reservations hold": lambda b: b.stock[0].update(reserved=0),
    "not conserved": lambda b: b.stock[0].update(on_hand=9),
    "captured for an order that is": lambda b: b.charges[1].update(status="captured"),
    "charged for": lambda b: b.charges[0].update(amount=4),
    "completed, but charge approved": lambda b: b.charges[0].update(status="approved"),
    "completed, but charge captured, stock held": lambda b: b.reservations[0].update(status="held"),
    "parcel shipped": lambda b: b.parcels[0].update(status="shipped"),
    "ended as expired, but charge approved": lambda b: b.charges[1].update(status="approved"),
    "ended as expired, but charge voided, stock held": lambda b: b.reservations[1].update(status="held"),
    "nobody ordered it": lambda b: b.charges[1].update(order="z"),
}


@pytest.mark.parametrize("said", PLANTED)
def test_a_planted_fault_is_found(said: str) -> None:
    bad = books()
    PLANTED[said](bad)
    assert any(said in one for one in faults(bad, ended=False)), faults(bad, ended=False)

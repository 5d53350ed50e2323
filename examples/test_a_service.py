"""Tests of a_service, on a real log server that starts by itself: pytest examples/test_a_service.py"""
# ruff: noqa: S101 - assert is how pytest asks

from collections.abc import AsyncIterator

import pytest

from examples.a_service import Order, app
from gateway.testing import Gateway, running


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running(app) as gateway:
        yield gateway


async def test_an_order_is_reserved(gateway: Gateway) -> None:
    await gateway.publish("shop/orders/7/placed", {"item": "tea"}, by="user:ann")
    event = await gateway.event("shop/orders/7/reserved")
    assert event.json(Order) == Order("tea")


async def test_coffee_is_a_dead_letter(gateway: Gateway) -> None:
    await gateway.publish("shop/orders/8/placed", {"item": "coffee"})
    await gateway.at_rest()
    assert await gateway.events("shop/orders/+/reserved") == []
    assert [(letter.reason, letter.error) for letter in await gateway.dead_letters()] == [("rejected", "we sell tea")]

"""A dead letter tells of itself: on its application's own topic, without its payload, not too often, not in a loop."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import App, Context, Rejected, Service, Topic, limits
from gateway.testing import running
from gateway.worker.notices import Notice

TOPICS = [
    Topic(pattern="shop/orders/{order}"),
    Topic(pattern="shop/mails/{mail}", key="{mail}"),
    Topic(pattern="shop/letters", read=("operator",)),
]


def stock() -> Service:
    service = Service("stock")

    @service.on("shop/orders/{order}")
    async def take(order: dict[str, Any], context: Context) -> None:
        raise Rejected("we sell tea")

    return service


def mails() -> Service:
    """Hears of letters, and fails over each."""
    service = Service("mails")

    @service.on("shop/letters")
    async def tell(notice: Notice, context: Context) -> None:
        raise Rejected("no mail server")

    return service


async def test_a_letter_is_told_once_without_its_payload_and_a_letter_about_a_letter_is_not() -> None:
    async with running(App("shop", TOPICS, [stock(), mails()])) as gateway:
        id = await gateway.publish("shop/orders/7", {"card": "4111"})
        await gateway.at_rest()
        (told,) = await gateway.events("shop/letters")
        notice = told.json(Notice)
        assert (notice.service, notice.id, notice.topic) == ("shop.stock", id, "shop/orders/7")
        assert (notice.reason, notice.more) == ("rejected", 0)
        assert b"4111" not in told.data
        letters = {letter.group: letter for letter in await gateway.dead_letters()}
        assert letters.keys() == {"shop.stock", "shop.mails"}
        assert notice.at == letters["shop.stock"].ts


async def test_too_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOTICES", 2)
    async with running(App("shop", TOPICS, [stock()])) as gateway:
        for n in range(5):
            await gateway.publish(f"shop/orders/{n}", {})
        await gateway.at_rest()
        assert len(await gateway.events("shop/letters")) == 2
        assert len(await gateway.dead_letters()) == 5
        monkeypatch.setattr(limits, "NOTICES_WITHIN", 0.0)
        await gateway.publish("shop/orders/5", {})
        await gateway.at_rest()
        assert (await gateway.events("shop/letters", 3))[-1].json(Notice).more == 3


async def test_where_no_topic_is_declared_nothing_is_told() -> None:
    async with running(App("shop", TOPICS[:1], [stock()])) as gateway:
        await gateway.publish("shop/orders/7", {})
        await gateway.at_rest()
        assert len(await gateway.dead_letters()) == 1

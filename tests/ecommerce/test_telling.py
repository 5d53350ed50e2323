"""Who is told what: customers by mail and short message, operators of what is stuck, promotions by consent alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from ecommerce import limits, simulation
from ecommerce.acquirer.tables import CHARGES
from ecommerce.notifications.tables import CONSENTS, MESSAGES
from ecommerce.orders.checkout import checkout
from tests.ecommerce.books import faults, read
from tests.ecommerce.shop import PASSWORD, WITHIN, Person, Shop, bodies, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # apprise's own import, which it guards for Pythons that have it no more.
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """What apprise's ``json://`` reaches: yields its URL, and what it got."""
    got: list[dict[str, Any]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        got.append(json.loads(await reader.readexactly(int(length[1]) if length else 0)) | {"path": head.split()[1]})
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"json://127.0.0.1:{server.sockets[0].getsockname()[1]}", got
    finally:
        server.close()
        await server.wait_closed()


async def test_a_service_that_finally_fails_tells_the_operator(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await shop.person("ann")
    await shop.sells("TEA", stock=1)
    async with channel() as (url, got):
        (tmp_path / "apprise").write_text(f"# operators\n{url}/alarm\n")
        monkeypatch.setenv("ECOMMERCE_APPRISE_FILE", str(tmp_path / "apprise"))
        async with shop.gateway.away("ecommerce.shipping"):
            order = await ann.buys(("TEA", 1))
            await shop.status(order, "confirmed")
            await _charge_is(shop, order, "silent")  # the acquirer will not pay what it approved
        letter = await _dead(shop, order)
        assert letter.reason == "rejected"
        assert "409" in letter.error
        # Of the letter itself the operator hears by mail: once, and not what was in it.
        gave_up = "ecommerce.payments gave up an event: rejected"
        await until(lambda: any(letter.id in bodies(mail)[0] for mail in _mails(shop, gave_up)))
        await shop.gateway.at_rest(within=WITHIN)
        (mail,) = (mail for mail in _mails(shop, gave_up) if letter.id in bodies(mail)[0])
        assert mail["To"] == "operator@example.org"
        await _hurry(shop, order)
        stuck = await shop.gateway.event(f"ecommerce/orders/{order}/stuck", within=WITHIN)
        assert stuck.json() == {"step": "capture"}
        await until(lambda: any(f"{order} is stuck at capture" in str(mail["Subject"]) for mail in shop.mails.got))
        await until(lambda: any(order in one["title"] for one in got))
    assert {one["path"] for one in got} == {"/alarm"}
    assert "operator@example.org" in [str(mail["To"]) for mail in shop.mails.got]
    # Once it is mended, the saga asks again, and the order ends well.
    await _charge_is(shop, order, "approved")
    await _hurry(shop, order)
    await shop.status(order, "completed")
    assert faults(await read(shop.gateway)) == []


def _mails(shop: Shop, subject: str) -> list[EmailMessage]:
    return [mail for mail in shop.mails.got if str(mail["Subject"]) == subject]


async def test_a_short_message_when_the_parcel_leaves(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await shop.person("bob")
    await shop.sells("MUG", stock=1)
    async with channel() as (url, got):
        (tmp_path / "sms").write_text(f"{url}/sms/{{phone}}")
        monkeypatch.setenv("ECOMMERCE_SMS_FILE", str(tmp_path / "sms"))
        order = await bob.buys(("MUG", 1))
        await shop.status(order, "completed")
        await until(lambda: got)
        await until(lambda: len(shop.mails.to(bob)) == 3)
    assert [one["path"] for one in got] == ["/sms/+4915100"]
    assert "tracking number is TG" in got[0]["message"]


async def test_a_mail_that_nobody_takes_is_not_sent_for_ever(shop: Shop) -> None:
    cat = await shop.person("cat")
    shop.mails.refuse = "421 come back later"
    await shop.sells("NO-TEA")
    order = await cat.buys(("NO-TEA", 1))
    await shop.status(order, "out_of_stock")
    await until(lambda: shop.mails.refused)
    shop.mails.refuse = ""
    await until(lambda: len(shop.mails.to(cat)) == 1)
    shop.mails.refuse = "550 no such mailbox"
    order = await cat.buys(("NO-TEA", 1))
    await shop.status(order, "out_of_stock")
    await until(lambda: _outcomes(shop, cat.user, "refused"))
    shop.mails.refuse = ""


async def test_promotions_are_for_who_agreed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROMOTION_PAGE", 1)
    dan, eve, fay = await shop.person("dan"), await shop.person("eve"), await shop.person("fay")
    for one in (dan, eve):
        assert (await _consent(one, "PUT")).json() == {"consent": True}
    assert (await _consent(fay, "GET")).json() == {"consent": False}
    await _promote(shop, "spring", "Tea & more")
    await _promote(shop, "spring", "Tea & more")
    await until(lambda: _outcomes(shop, dan.user, "sent"))
    await until(lambda: _outcomes(shop, eve.user, "sent"))
    (mail,) = (one for one in shop.mails.got if one["To"] == dan.mail)
    text, html = bodies(mail)
    assert "Tea & more" in text
    assert "Tea &amp; more" in html
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = str(mail["List-Unsubscribe"]).strip("<>")
    # A scanner that looks at the link changes nothing; one click does (RFC 8058).
    assert (await shop.http.get(link)).status_code == 200
    assert (await _consent(dan, "GET")).json() == {"consent": True}
    assert (await shop.http.post(link, data={"List-Unsubscribe": "One-Click"})).status_code == 200
    assert (await _consent(dan, "GET")).json() == {"consent": False}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ECOMMERCE_ADDRESS", "http://edge:8080")  # which no reader of a mail reaches
        root = {"authorization": f"Bearer {shop.token('root', 'operator')}"}
        path, offer = "/ecommerce/notifications/promotions/summer", {"subject": "summer", "text": "Ice"}
        refused = await shop.http.put(path, json=offer, headers=root)
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "no_address")
        environment.setenv("ECOMMERCE_ADDRESS", "https://shop.example.org/")
        await _promote(shop, "summer", "Ice")
        await until(lambda: shop.mails.to(eve) == ["spring", "summer"])
    (late,) = (one for one in shop.mails.got if one["To"] == eve.mail and one["Subject"] == "summer")
    assert str(late["List-Unsubscribe"]).startswith("<https://shop.example.org/ecommerce/notifications/unsubscribe/")
    await until(lambda: shop.mails.to(eve) == ["spring", "summer"])
    await shop.gateway.at_rest(within=WITHIN)
    assert (shop.mails.to(dan), shop.mails.to(fay)) == (["spring"], [])
    assert (await _consent(eve, "DELETE")).json() == {"consent": False}


async def test_a_simulated_day_ends(shop: Shop) -> None:
    ivy, jon = await shop.person("ivy"), await shop.person("jon")
    await simulation.stock_up(shop.http, shop.token("root", "operator"), 10)
    seen = list[tuple[int, int]]()
    tokens = [one.access for one in (ivy, jon)]

    def progress(placed: int, ends: Counter[str]) -> None:
        seen.append((placed, ends.total()))

    result = await simulation.run(shop.http, tokens, 10, within=WITHIN, progress=progress)
    assert sum(result.ends.values()) == 10
    assert "open" not in result.ends
    assert result.ends["completed"]
    # Each step is told: ten times one more is placed, ten times one more has ended.
    assert seen == sorted(seen)
    assert (len(set(seen)), seen[-1]) == (20, (10, 10))
    assert 0 < result.p50 <= result.p99
    assert len(await simulation.customer(shop.http)) > 100


async def test_who_is_erased_is_written_to_no_more(shop: Shop) -> None:
    gus = await shop.person("gus")
    await _consent(gus, "PUT")
    await shop.sells("NO-MORE")
    order = await gus.buys(("NO-MORE", 1))
    await shop.status(order, "out_of_stock")
    await until(lambda: len(shop.mails.to(gus)) == 1)
    gone = await gus.ask("POST", "/accounts/users/me/erase", {"password": PASSWORD})
    assert gone.status_code == 200

    async def forgotten() -> bool:
        async with shop.gateway.database("ecommerce.notifications") as db:
            found = [(await db.execute(t.select().where(t.c.user == gus.user))).all() for t in (CONSENTS, MESSAGES)]
        return found == [[], []]

    await until(forgotten)
    order = await gus.buys(("NO-MORE", 1))  # by a token that is still out
    await shop.status(order, "out_of_stock")
    await until(lambda: _outcomes(shop, gus.user, "nobody"))
    assert len(shop.mails.to(gus)) == 1


async def _consent(person: Person, method: str) -> Any:
    return await person.ask(method, f"/ecommerce/notifications/people/{person.user}/consent")


async def _promote(shop: Shop, id: str, text: str) -> None:
    await shop.by_operator("PUT", f"/ecommerce/notifications/promotions/{id}", {"subject": id, "text": text})


async def _outcomes(shop: Shop, user: str, outcome: str) -> bool:
    async with shop.gateway.database("ecommerce.notifications") as db:
        rows = (await db.execute(MESSAGES.select().where(MESSAGES.c.user == user))).all()
    return outcome in [row.outcome for row in rows]


async def _charge_is(shop: Shop, order: str, status: str) -> None:
    async with shop.gateway.database("ecommerce.acquirer") as db:
        await db.execute(CHARGES.update().where(CHARGES.c.order == order).values(status=status))


async def _hurry(shop: Shop, order: str) -> None:
    async with shop.gateway.database("ecommerce.orders") as db:
        assert await checkout.extend(db, order, 0.01)


async def _dead(shop: Shop, order: str) -> Any:
    found: list[Any] = []

    async def buried() -> bool:
        found[:] = [one for one in await shop.gateway.dead_letters() if order in one.topic]
        return bool(found)

    await until(buried)
    return found[0]

"""The service ``ecommerce.notifications``: tells customers what became of orders, and operators what is stuck."""

from __future__ import annotations

import time

import msgspec

from ecommerce import limits
from ecommerce.events import Letter, Nothing, Status, Stuck
from ecommerce.notifications.mail import letter, post, public, written
from ecommerce.notifications.push import push, urls
from ecommerce.notifications.routes import ROUTES, Promote
from ecommerce.notifications.rules import TEMPLATES, Channel, Outcome, channels
from ecommerce.notifications.tables import CONSENTS, MESSAGES, TABLES
from ecommerce.settings import settings
from gateway import Context, Service
from gateway.sql import Database
from gateway.web import TurnedDown, ask, origin

service = Service(
    "notifications",
    database=Database(tables=TABLES, migrations="ecommerce.notifications.migrations"),
    delays=["ecommerce/notifications/{message}/send", "ecommerce/notifications/{message}/promote"],
    routes=ROUTES,
    asks=["accounts.users", "ecommerce.notifications"],
)


class Contact(msgspec.Struct, frozen=True):
    """What accounts says of somebody; it is kept nowhere here."""

    mail: str
    name: str
    phone: str


class Agreed(msgspec.Struct, frozen=True):
    """Whether somebody wants promotions, and the word by which they end."""

    consent: bool
    token: str = ""


class Send(msgspec.Struct, frozen=True):
    """One message to one person, without a word about who that is."""

    user: str
    template: str
    channel: Channel
    order: str = ""
    status: Status | None = None
    step: str = ""
    promotion: Promote | None = None
    letter: Letter | None = None


@service.on("ecommerce/orders/{order}/status/{user}")
async def changed(status: Status, context: Context) -> None:
    template, known = TEMPLATES.get(status.what), settings()
    if template is None:
        return
    await context.transaction()  # the inbox: an event that is replayed writes to nobody a second time
    order, user = context.variables["order"], context.variables["user"]
    for channel in channels(template, bool(known.sms_file)):
        _later(context, f"{context.event.id}-{channel}", Send(user, template, channel, order, status))


@service.on("ecommerce/orders/{order}/stuck")
async def stuck(why: Stuck, context: Context) -> None:
    await context.transaction()
    for channel in ("mail", "push"):
        one = Send("", "stuck", channel, context.variables["order"], step=why.step)
        _later(context, f"{context.event.id}-{channel}", one)


@service.on("ecommerce/letters")
async def given_up(letter: Letter, context: Context) -> None:
    await context.transaction()
    for channel in ("mail", "push"):
        _later(context, f"{context.event.id}-{channel}", Send("", "letter", channel, letter=letter))


@service.on("ecommerce/notifications/{message}/promote")
async def promote(promotion: Promote, context: Context) -> None:
    """A page of those who agreed, then the next page."""
    db, id = await context.transaction(), context.variables["message"]
    wanted = CONSENTS.select().where(CONSENTS.c.user > promotion.after).order_by(CONSENTS.c.user)
    users = [row.user for row in (await db.execute(wanted.limit(limits.PROMOTION_PAGE))).all()]
    for user in users:
        _later(context, f"{id}-{user}", Send(user, "promotion", "mail", promotion=promotion))
    if len(users) == limits.PROMOTION_PAGE:
        following = msgspec.structs.replace(promotion, after=users[-1])
        context.later(limits.AT_ONCE, f"ecommerce/notifications/{id}/promote", following)


@service.on("accounts/users/{user}/erased")
async def erased(gone: Nothing, context: Context) -> None:
    db = await context.transaction()
    for table in (CONSENTS, MESSAGES):
        await db.execute(table.delete().where(table.c.user == context.variables["user"]))


@service.on("ecommerce/notifications/{message}/send", timeout=60)
async def send(one: Send, context: Context) -> None:
    """At least once: the outside world has no transaction. A mail that goes twice has one Message-ID."""
    id = context.variables["message"]
    outcome = await (_to_operator(one, id) if not one.user else _to_customer(one, id, context))
    db, now = await context.transaction(), time.time_ns() // 1_000_000
    over = MESSAGES.c.at < now - limits.MESSAGES_KEPT * 1000
    old = MESSAGES.select().with_only_columns(MESSAGES.c.id).where(over).limit(limits.PURGE_PAGE)
    await db.execute(MESSAGES.delete().where(MESSAGES.c.id.in_(old)))
    row = {"id": id, "user": one.user, "template": one.template, "channel": one.channel, "outcome": outcome, "at": now}
    await db.execute(MESSAGES.insert(), row)


async def _to_customer(one: Send, id: str, context: Context) -> Outcome:
    known, unsubscribe = settings(), ""
    if one.promotion is not None:
        # Asked now, not when it was queued: in between, somebody may have changed their mind.
        agreed = await ask(context, "GET", f"/ecommerce/notifications/people/{one.user}/consent", returns=Agreed)
        if not agreed.consent:
            return "no_consent"
        address = public(known.address or origin(context))
        unsubscribe = f"{address}/ecommerce/notifications/unsubscribe/{agreed.token}"
    try:
        to = await ask(context, "GET", f"/accounts/users/people/{one.user}/contact", returns=Contact)
    except TurnedDown as error:
        if error.answered == 404:
            return "nobody"
        raise
    words = written(
        one.template, name=to.name, order=one.order, status=one.status, promotion=one.promotion, link=unsubscribe
    )
    if one.channel == "sms":
        return await push(urls(known.sms_file), words[0], words[1], to.phone) if to.phone else "unset"
    return await post(known, letter(known, to.mail, id, words, unsubscribe))


async def _to_operator(one: Send, id: str) -> Outcome:
    known, words = settings(), written(one.template, order=one.order, step=one.step, letter=one.letter)
    if one.channel == "push":
        return await push(urls(known.apprise_file), words[0], words[1])
    return await post(known, letter(known, known.operator_mail, id, words)) if known.operator_mail else "unset"


def _later(context: Context, id: str, one: Send) -> None:
    context.later(limits.AT_ONCE, f"ecommerce/notifications/{id}/send", one)

"""What alerting answers over HTTP: below ``/devices/alerting``."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from sqlalchemy import ColumnElement, func, or_, select, true, tuple_
from starlette.requests import Request
from starlette.routing import Route

from devices import limits
from devices.alerting.rules import Name, Rule, Watch, contradiction, means_else
from devices.alerting.tables import ALERTS, RULES
from devices.events import ALL, PEOPLE
from devices.rows import replaced
from devices.settings import settings
from gateway.sql import Reading, Transaction, reading, transaction
from gateway.web import Listing, NotAvailable, Page, Refused, operation, principal


class NotARule(Refused):
    """A rule that means nothing, or one too many."""

    code, status = "bad_rule", 422


class Look(msgspec.Struct, frozen=True):
    """A rule's timer; one of another version than the rule's is over."""

    version: int
    watch: Watch = Watch()


class Retire(msgspec.Struct, frozen=True):
    """Asks that who heard of alerts that no rule stands behind any more hears their end."""

    version: int


class Known(Rule, frozen=True, kw_only=True):
    """A rule, and its name."""

    rule: str


class Standing(msgspec.Struct, frozen=True):
    """How it is between one rule and one device; ``*``: the fleet as one. Times in ms."""

    rule: str
    device: str
    state: str
    #: Of the newest reading that was judged.
    at: int
    since: int
    changed: int
    value: float | None
    #: By whom.
    acknowledged: str
    comment: str


class Listed(Listing, frozen=True):
    state: Literal["ok", "pending", "firing", "resolved"] = "firing"


class Comment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    comment: Annotated[str, msgspec.Meta(max_length=limits.TEXT_MOST, pattern=r"^[^\x00]*$")] = ""


async def rules(db: Reading, *, hold: bool = False) -> list[tuple[str, int, Rule]]:
    """Return name, version and rule of all that are in force; ``hold``: until this transaction ends they stay so."""
    wanted = RULES.select().where(RULES.c.retired.is_(False)).order_by(RULES.c.rule)
    rows = await db.execute(wanted.with_for_update(read=True) if hold else wanted)
    return [(row.rule, row.version, msgspec.json.decode(row.said, type=Rule)) for row in rows]


def covered(device: ColumnElement[str], rule: Rule) -> ColumnElement[bool]:
    """`Rule.about`, for the database."""
    if rule.devices.endswith("*"):
        return func.substr(device, 1, len(rule.devices) - 1) == rule.devices[:-1]
    return device == rule.devices


@operation(
    "The rules that are in force.",
    grants=PEOPLE,
    description=f"All of them: there may be {limits.RULES_MOST}; no pages.",
)
async def all_rules(request: Request) -> list[Known]:
    async with reading(request) as db:
        return [Known(rule=name, **msgspec.structs.asdict(rule)) for name, _, rule in await rules(db)]


@operation("A rule.", grants=PEOPLE, errors=[NotAvailable])
async def one_rule(request: Request) -> Rule:
    async with reading(request) as db:
        return await _known(db, request.path_params["rule"])


@operation(
    "Make a rule, or let another take its place.",
    grants=["operator"],
    errors=[NotARule],
    description="What fires stays so until the next reading; what the new rule is not about is resolved.",
)
async def put_rule(request: Request, body: Rule) -> Rule:
    name = request.path_params["rule"]
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise NotARule(f"its name: {error}", "use a-z, 0-9, - and _") from None
    wrong = contradiction(body)
    if unknown := [one for one in body.channels if one not in settings().channels]:
        wrong = f"there is no channel {unknown[0]!r}"
    async with transaction(request) as db:
        known = {one: rule for one, _, rule in await rules(db)}
        if len(known) >= limits.RULES_MOST and name not in known:
            wrong = f"{limits.RULES_MOST} rules are all there may be"
        if wrong:
            raise NotARule(wrong, "mend it")
        version = time.time_ns()  # also where a rule of this name was taken away: its timers are over
        row = {"rule": name, "version": version, "said": msgspec.json.encode(body), "retired": False}
        await db.execute(replaced(RULES), row)
        if (old := known.get(name)) is not None:
            gone = true() if means_else(old, body) else ~or_(covered(ALERTS.c.device, body), ALERTS.c.device == ALL)
            await _orphan(db, name, version, gone)
        if body.kind == "silent":
            db.later(limits.AT_ONCE, f"devices/alerting/rules/{name}/look", Look(version))
    return body


@operation("Take a rule away; its alerts are resolved.", grants=["operator"], errors=[NotAvailable])
async def drop_rule(request: Request) -> None:
    name = request.path_params["rule"]
    async with transaction(request) as db:
        await _known(db, name)
        await db.execute(RULES.update().where(RULES.c.rule == name).values(retired=True))
        version = await db.scalar(select(RULES.c.version).where(RULES.c.rule == name))
        await _orphan(db, name, version, true())


async def _orphan(db: Transaction, rule: str, version: int, which: ColumnElement[bool]) -> None:
    """Take ``which`` alerts from ``rule``; of those that fire somebody is to hear, at once or with its next reading."""
    of = (ALERTS.c.rule == rule, which)
    await db.execute(ALERTS.update().where(*of, ALERTS.c.state == "firing").values(state="ending"))
    await db.execute(ALERTS.delete().where(*of, ALERTS.c.state != "ending"))
    db.later(limits.AT_ONCE, f"devices/alerting/rules/{rule}/retire", Retire(version))


@operation("Alerts in one state: those that fire, by default.", grants=PEOPLE)
async def alerts(request: Request, query: Listed) -> Page[Standing]:
    key = (ALERTS.c.rule, ALERTS.c.device)
    wanted = ALERTS.select().where(ALERTS.c.state == query.state).order_by(*key).limit(query.limit + 1)
    if query.after:
        rule, _, device = query.after.partition("/")
        wanted = wanted.where(tuple_(*key) > (rule, device))
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    return Page.of([Standing(*row) for row in rows], query, lambda one: f"{one.rule}/{one.device}")


@operation("Say that somebody knows, until it is over.", grants=["operator"], errors=[NotAvailable])
async def acknowledge(request: Request, body: Comment) -> None:
    who = principal(request)
    of = (ALERTS.c.rule == request.path_params["rule"], ALERTS.c.device == request.path_params["device"])
    async with transaction(request) as db:
        new = ALERTS.update().where(*of, ALERTS.c.state == "firing")
        done = await db.execute(new.values(acknowledged=str(who), comment=body.comment))
        if not done.rowcount:
            raise NotAvailable("no such alert fires", "see /devices/alerting/alerts")


async def _known(db: Reading, name: str) -> Rule:
    found = next((rule for known, _, rule in await rules(db) if known == name), None)
    if found is None:
        raise NotAvailable(f"there is no rule {name!r}", "see /devices/alerting/rules")
    return found


ROUTES = (
    Route("/rules", all_rules, methods=["GET"]),
    Route("/rules/{rule}", one_rule, methods=["GET"]),
    Route("/rules/{rule}", put_rule, methods=["PUT"]),
    Route("/rules/{rule}", drop_rule, methods=["DELETE"]),
    Route("/alerts", alerts, methods=["GET"]),
    Route("/alerts/{rule}/{device}/acknowledge", acknowledge, methods=["POST"]),
)

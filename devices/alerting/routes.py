"""What alerting answers over HTTP: below ``/devices/alerting``."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import select, tuple_
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devices import limits
from devices.alerting.rules import Name, Rule, contradiction
from devices.alerting.tables import ALERTS, RULES
from devices.asked import asked, page, position
from devices.rows import replaced
from devices.settings import settings
from gateway.sql import Reading, reading, transaction
from gateway.web import NotAvailable, Refused, answer, body, principal

#: Who watches.
PEOPLE = ("user", "operator")


class NotARule(Refused):
    """A rule that means nothing, or one too many."""

    code, status = "bad_rule", 422


class Look(msgspec.Struct, frozen=True):
    """A rule's timer; one of another version than the rule's is over."""

    version: int


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["ok", "pending", "firing", "resolved"] = "firing"
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE)] = limits.PAGE
    after: str = ""


class Comment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    comment: Annotated[str, msgspec.Meta(max_length=limits.TEXT_MOST)] = ""


async def rules(db: Reading) -> list[tuple[str, int, Rule]]:
    """Return name, version and rule of all that hold."""
    rows = await db.execute(RULES.select().where(RULES.c.retired.is_(False)).order_by(RULES.c.rule))
    return [(row.rule, row.version, msgspec.json.decode(row.said, type=Rule)) for row in rows]


async def all_rules(request: Request) -> Response:
    principal(request, *PEOPLE)
    async with reading(request) as db:
        return answer([{"rule": name, **_shown(rule)} for name, _, rule in await rules(db)])


async def one_rule(request: Request) -> Response:
    principal(request, *PEOPLE)
    async with reading(request) as db:
        return answer(_shown(await _known(db, request.path_params["rule"])))


async def put_rule(request: Request) -> Response:
    """Make a rule, or let another take its place; what it had found so far stays."""
    principal(request, "operator")
    rule, name = await body(request, Rule), request.path_params["rule"]
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise NotARule(f"its name: {error}", "use a-z, 0-9, - and _") from None
    wrong = contradiction(rule)
    if unknown := [one for one in rule.channels if one not in settings().channels]:
        wrong = f"there is no channel {unknown[0]!r}"
    async with transaction(request) as db:
        known = await rules(db)
        if len(known) >= limits.RULES_MOST and name not in [one for one, _, _ in known]:
            wrong = f"{limits.RULES_MOST} rules are all there may be"
        if wrong:
            raise NotARule(wrong, "mend it")
        version = time.time_ns()  # also where a rule of this name was taken away: its timers are over
        row = {"rule": name, "version": version, "said": msgspec.json.encode(rule), "retired": False}
        await db.execute(replaced(RULES), row)
        if rule.kind == "silent":
            db.later(limits.AT_ONCE, f"devices/alerting/rules/{name}/look", Look(version))
    return answer(_shown(rule))


async def drop_rule(request: Request) -> Response:
    """Take a rule away; its alerts are resolved."""
    principal(request, "operator")
    name = request.path_params["rule"]
    async with transaction(request) as db:
        await _known(db, name)
        await db.execute(RULES.update().where(RULES.c.rule == name).values(retired=True))
        version = await db.scalar(select(RULES.c.version).where(RULES.c.rule == name))
        db.later(limits.AT_ONCE, f"devices/alerting/rules/{name}/retire", Look(version))
    return Response(status_code=204)


async def alerts(request: Request) -> Response:
    """A page of alerts in one state: those that fire, by default."""
    principal(request, *PEOPLE)
    said = asked(request, Listed)
    key = (ALERTS.c.rule, ALERTS.c.device)
    wanted = ALERTS.select().where(ALERTS.c.state == said.state).order_by(*key).limit(said.limit + 1)
    if said.after:
        wanted = wanted.where(tuple_(*key) > position(said.after, tuple[str, str]))
    async with reading(request) as db:
        rows = (await db.execute(wanted)).all()
    items = [dict(row._mapping) for row in rows[: said.limit]]
    return answer({"items": items, "next": page(rows, said.limit, lambda row: (row.rule, row.device))})


async def acknowledge(request: Request) -> Response:
    """Say that somebody knows, until it is over."""
    who, said = principal(request, "operator"), await body(request, Comment)
    of = (ALERTS.c.rule == request.path_params["rule"], ALERTS.c.device == request.path_params["device"])
    async with transaction(request) as db:
        new = ALERTS.update().where(*of, ALERTS.c.state == "firing")
        done = await db.execute(new.values(acknowledged=str(who), comment=said.comment))
        if not done.rowcount:
            raise NotAvailable("no such alert fires", "see /devices/alerting/alerts")
    return Response(status_code=204)


async def _known(db: Reading, name: str) -> Rule:
    found = next((rule for known, _, rule in await rules(db) if known == name), None)
    if found is None:
        raise NotAvailable(f"there is no rule {name!r}", "see /devices/alerting/rules")
    return found


def _shown(rule: Rule) -> Any:
    return msgspec.to_builtins(rule)


ROUTES = (
    Route("/rules", all_rules),
    Route("/rules/{rule}", one_rule),
    Route("/rules/{rule}", put_rule, methods=["PUT"]),
    Route("/rules/{rule}", drop_rule, methods=["DELETE"]),
    Route("/alerts", alerts),
    Route("/alerts/{rule}/{device}/acknowledge", acknowledge, methods=["POST"]),
)

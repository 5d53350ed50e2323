"""The service ``devices.alerting``: holds rules against readings and silence, and tells who should know."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func, select

from devices import limits
from devices.alerting.hook import post as post_hook
from devices.alerting.mail import letter
from devices.alerting.mail import post as post_mail
from devices.alerting.routes import ROUTES, Look, Retire, covered, rules
from devices.alerting.rules import (
    Condition,
    Name,
    Rule,
    fingerprint,
    heard_of_all,
    horizon,
    judged,
    pause,
    stepped,
    told,
    watched,
)
from devices.alerting.tables import ALERTS, FLEET, RULES, TABLES
from devices.events import ALL, Alert, Registered
from devices.readings import BadReading, Reading, read
from devices.rows import replaced
from devices.settings import settings
from gateway import Context, Rejected, Retry, Service
from gateway.sql import Database, Transaction, upsert

service = Service(
    "alerting",
    database=Database(tables=TABLES, migrations="devices.alerting.migrations"),
    emits=["devices/{device}/alerts/{rule}"],
    delays=[
        "devices/alerting/rules/{rule}/look",
        "devices/alerting/rules/{rule}/retire",
        "devices/alerting/devices/{device}/silent",
        "devices/alerting/notices/{notice}/notify",
    ],
    routes=ROUTES,
)
_CHANGED: Final = upsert(
    ALERTS,
    "state = excluded.state, at = excluded.at, since = excluded.since, changed = excluded.changed, "
    "value = excluded.value, "
    # Whoever knew of the last trouble does not know of the next.
    "acknowledged = CASE WHEN excluded.changed = alerts.changed THEN alerts.acknowledged ELSE '' END, "
    "comment = CASE WHEN excluded.changed = alerts.changed THEN alerts.comment ELSE '' END",
)
_SEEN: Final = upsert(FLEET, "seen = CASE WHEN excluded.seen > fleet.seen THEN excluded.seen ELSE fleet.seen END")


class Silent(msgspec.Struct, frozen=True):
    """Asks, behind all that a device had sent by ``at``, whether it was heard ``since``."""

    rule: Name
    version: int
    at: int
    since: int


class Notice(msgspec.Struct, frozen=True):
    """One alert to one channel. Where that leads, the operator's file says: no address is in the log."""

    channel: str
    alert: Alert


@service.on("devices/{device}/telemetry", batch=limits.BATCH)
async def judge(payloads: list[Any], contexts: list[Context]) -> None:
    db = await contexts[0].transaction()
    known = {name: rule for name, _, rule in await rules(db, hold=True)}
    here = [context.variables["device"] for context in contexts]
    before = await _conditions(db, here)
    # Of who was cut off or deleted something may still be on its way: nobody would ever hear the end of its alerts.
    out = set(await db.scalars(select(FLEET.c.device).where(FLEET.c.device.in_(here), FLEET.c.active.is_(False))))
    seen, changed = list[dict[str, Any]](), list[dict[str, Any]]()
    for payload, context, device in zip(payloads, contexts, here, strict=True):
        if device in out:
            continue
        arrived = context.event.meta.ts
        seen.append({"device": device, "seen": arrived, "active": True})
        try:
            readings = sorted(read(payload, arrived, context.event.id), key=lambda one: one.ts)
        except BadReading:
            readings = []  # storage tells; that it came is no silence
        for name, rule in known.items():
            if rule.about(device):
                old = new = before.get((name, device)) or Condition()
                if old.state == "ending":
                    ended = _over(context, name, rule, device, old, arrived, "rule changed")
                    # The new rule may be about another metric, with times of its own.
                    old = new = msgspec.structs.replace(ended, at=0)
                elif rule.kind == "silent" and old.state == "firing":
                    new = _over(context, name, rule, device, old, arrived)
                for one in readings:
                    new = _judged(context, name, rule, device, new, one)
                if new != before.get((name, device), Condition()):
                    changed.append(_row(name, device, new))
    if seen:
        await db.execute(_SEEN, seen)
    if changed:
        await db.execute(_CHANGED, changed)


def _judged(context: Context, name: str, rule: Rule, device: str, old: Condition, one: Reading) -> Condition:
    if rule.kind == "silent" or rule.metric not in one.values:
        return old
    new = judged(rule, old, one.ts, one.values[rule.metric])
    _tell(context, name, rule, device, old, new)
    return new


@service.on("devices/{device}/registered")
async def registered(now: Registered, context: Context) -> None:
    """A device that never spoke is silent too; one that may not come in is not, whatever comes of it yet."""
    db, device, at = await context.transaction(), context.variables["device"], context.event.meta.ts
    await db.execute(replaced(FLEET), {"device": device, "seen": at, "active": now.state == "active"})
    if now.state == "active":
        return
    known = {name: rule for name, _, rule in await rules(db, hold=True)}
    for (name, _), old in (await _conditions(db, [device])).items():
        if name in known:
            _over(context, name, known[name], device, old, at, f"device {now.state}")
    # What is left of a rule that was removed, `retire` tells.
    await db.execute(ALERTS.delete().where(ALERTS.c.device == device, ALERTS.c.rule.in_(list(known))))


@service.on("devices/alerting/rules/{rule}/look")
async def look(asked: Look, context: Context) -> None:
    """Ask after the devices that seem to be silent, and look again later; ends with the rule."""
    db, name = await context.transaction(), context.variables["rule"]
    rule = await _rule(db, name, asked.version)
    if rule is None or rule.after is None:
        return
    now, every = time.time_ns() // 1_000_000, pause(rule.after)
    heard = await db.scalar(select(func.max(FLEET.c.seen)).where(FLEET.c.active.is_(True)))
    watch = watched(asked.watch, now, heard or 0, every)
    context.later(every, f"devices/alerting/rules/{name}/look", Look(asked.version, watch))
    old = (await _conditions(db, [ALL])).get((name, ALL)) or Condition()
    # Where no device may come in, there is nobody to be heard.
    saw = "calm" if heard is None else heard_of_all(watch, rule.after)
    new = stepped(old, saw, now, watch.heard)
    _tell(context, name, rule, ALL, old, new)
    if new.state != old.state:
        await db.execute(_CHANGED, _row(name, ALL, new))
    since = horizon(watch, rule.after)
    firing = select(ALERTS.c.device).where(ALERTS.c.rule == name, ALERTS.c.state == "firing")
    quiet = select(FLEET.c.device).where(FLEET.c.active.is_(True), FLEET.c.seen < since, covered(FLEET.c.device, rule))
    quiet = quiet.where(FLEET.c.device.not_in(firing)).order_by(FLEET.c.seen).limit(limits.LOOK_PAGE)
    for device in list(await db.scalars(quiet)):
        question = Silent(name, asked.version, now, since)
        context.later(limits.AT_ONCE, f"devices/alerting/devices/{device}/silent", question)


@service.on("devices/alerting/devices/{device}/silent")
async def silent(asked: Silent, context: Context) -> None:
    """Now all that came before the question was judged, however long this service was away."""
    db, device = await context.transaction(), context.variables["device"]
    rule = await _rule(db, asked.rule, asked.version)
    row = (await db.execute(FLEET.select().where(FLEET.c.device == device))).first()
    if rule is None or rule.after is None or row is None or not row.active:
        return
    if row.seen < asked.since:
        old = (await _conditions(db, [device])).get((asked.rule, device)) or Condition()
        new = stepped(old, "held", asked.at, row.seen + int(rule.after * 1000))
        _tell(context, asked.rule, rule, device, old, new)
        await db.execute(_CHANGED, _row(asked.rule, device, new))


@service.on("devices/alerting/rules/{rule}/retire")
async def retire(asked: Retire, context: Context) -> None:
    """Tell the end of alerts that their rule is not about any more, a page at a time; then forget a rule without."""
    db, name = await context.transaction(), context.variables["rule"]
    row = (await db.execute(RULES.select().where(RULES.c.rule == name).with_for_update())).first()
    if row is None:
        return
    rule, here = msgspec.json.decode(row.said, type=Rule), (ALERTS.c.rule == name, ALERTS.c.state == "ending")
    rows = (await db.execute(ALERTS.select().where(*here).limit(limits.END_PAGE).with_for_update())).all()
    now, reason = time.time_ns() // 1_000_000, "rule removed" if row.retired else "rule changed"
    for one in rows:
        _over(context, name, rule, one.device, _condition(one), now, reason)
    await db.execute(ALERTS.delete().where(*here, ALERTS.c.device.in_([one.device for one in rows])))
    if rows:
        context.later(limits.AT_ONCE, f"devices/alerting/rules/{name}/retire", asked)
    elif row.retired and row.version == asked.version:
        await db.execute(RULES.delete().where(RULES.c.rule == name))


@service.on("devices/alerting/notices/{notice}/notify", retry=Retry(12, first=1.0, most=600.0), timeout=60)
async def notify(notice: Notice, context: Context) -> None:
    """At least once: the outside world has no transaction. What goes twice has one id."""
    known, id = settings(), context.variables["notice"]
    channel = known.channels.get(notice.channel)
    if channel is None:
        raise Rejected(f"there is no channel {notice.channel!r}")
    if channel.mail:
        await post_mail(known, letter(known, channel.mail, id, notice.alert))
    else:
        await post_hook(channel, known.private, id, time.time_ns() // 10**9, msgspec.json.encode(notice.alert))
    await context.transaction()  # the inbox: what is replayed by mistake is not sent again


def _over(context: Context, name: str, rule: Rule, device: str, old: Condition, at: int, reason: Any = "") -> Condition:
    """Return how it is after an end that no value tells."""
    new = stepped(old, "calm", at, old.since)
    _tell(context, name, rule, device, old, new, reason)
    return new


def _tell(
    context: Context, name: str, rule: Rule, device: str, old: Condition, new: Condition, reason: Any = ""
) -> None:
    what = told(old, new)
    if what is None:
        return
    detected, mark = time.time_ns() // 1_000_000, fingerprint(name, device)
    alert = Alert(name, device, what, mark, new.changed, detected, new.value, rule.severity, reason)
    context.emit(f"devices/{device}/alerts/{name}", alert)
    for channel in rule.channels:
        id = f"{mark}-{what}-{new.changed}-{channel}"
        context.later(limits.AT_ONCE, f"devices/alerting/notices/{id}/notify", Notice(channel, alert))


async def _rule(db: Transaction, name: str, version: int) -> Rule | None:
    return next((rule for known, now, rule in await rules(db, hold=True) if (known, now) == (name, version)), None)


async def _conditions(db: Transaction, devices: Sequence[str]) -> Mapping[tuple[str, str], Condition]:
    # The lock: whoever else ends one of these (`retire`, a rule's `PUT`) does so before, or afterwards.
    rows = await db.execute(ALERTS.select().where(ALERTS.c.device.in_(devices)).with_for_update())
    return {(row.rule, row.device): _condition(row) for row in rows}


def _condition(row: Any) -> Condition:
    return Condition(row.state, row.at, row.since, row.changed, row.value)


def _row(rule: str, device: str, now: Condition) -> dict[str, object]:
    return {"rule": rule, "device": device, **msgspec.structs.asdict(now), "acknowledged": "", "comment": ""}

"""Alerting on real servers: thresholds, silence, restarts, acknowledgement, mail and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from devices.alerting.hook import signature
from devices.alerting.service import Silent
from devices.alerting.tables import ALERTS, FLEET, RULES
from devices.events import Alert
from tests.devices.fleet import HOUR, WITHIN, Fleet, Mails, Receiver
from tests.servers import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = b"what we share"


@pytest.fixture(autouse=True)
def channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    monkeypatch.setenv("DEVICES_CHANNELS_FILE", str(tmp_path / "channels.toml"))
    monkeypatch.setenv("DEVICES_WEBHOOK_PRIVATE", "1")
    (tmp_path / "channels.toml").write_text("")
    return tmp_path


def named(channels: Path, **found: dict[str, str]) -> None:
    lines = [f"[{name}]\n" + "".join(f'{k} = "{v}"\n' for k, v in one.items()) for name, one in found.items()]
    (channels / "channels.toml").write_text("".join(lines))


@asynccontextmanager
async def ruled(fleet: Fleet, name: str, **rule: Any) -> AsyncIterator[None]:
    await fleet.done("PUT", f"/devices/alerting/rules/{name}", rule)
    yield
    await fleet.done("DELETE", f"/devices/alerting/rules/{name}")


HOT = {"kind": "above", "metric": "temp", "threshold": 30, "clear": 25, "for": 60}


async def heard(fleet: Fleet, device: str, count: int) -> list[Alert]:
    """What came, each once: a relay that was killed sends the same events, with the same ids, again."""
    found = await fleet.gateway.events(f"devices/{device}/alerts/+", count, within=WITHIN)
    return [one.json(Alert) for one in {one.id: one for one in found}.values()]


async def firing(fleet: Fleet, rule: str) -> list[dict[str, Any]]:
    said = await fleet.get("/devices/alerting/alerts")
    return [one for one in said["items"] if one["rule"] == rule]


async def test_it_fires_in_event_time_is_acknowledged_and_resolved(fleet: Fleet) -> None:
    async with ruled(fleet, "hot", devices="oven-*", **HOT):
        await fleet.says("oven-1", (1, HOUR, 31), (2, HOUR + 59_000, 31), (3, HOUR + 60_000, 40))
        await fleet.says("fridge-1", (1, HOUR, 31), (2, HOUR + 60_000, 31))
        (alert,) = await heard(fleet, "oven-1", 1)
        assert (alert.what, alert.occurred, alert.value) == ("firing", HOUR + 60_000, 40.0)
        (row,) = await firing(fleet, "hot")
        assert (row["device"], row["since"], row["acknowledged"]) == ("oven-1", HOUR, "")
        await fleet.done("POST", "/devices/alerting/alerts/hot/oven-1/acknowledge", {"comment": "on my way"})
        await fleet.says("oven-1", (4, HOUR + 61_000, 28), (5, HOUR + 1_000, 1))
        await fleet.rests()
        (row,) = await firing(fleet, "hot")
        assert (row["acknowledged"], row["comment"]) == ("operator:root", "on my way")
        await fleet.says("oven-1", (6, HOUR + 62_000, 25))
        assert [one.what for one in await heard(fleet, "oven-1", 2)] == ["firing", "resolved"]
        again = await fleet.ask("POST", "/devices/alerting/alerts/hot/oven-1/acknowledge", {})
        assert again.status_code == 404
        await fleet.says("oven-1", (7, HOUR + 63_000, 31), (8, HOUR + 123_000, 31))
        await heard(fleet, "oven-1", 3)
        assert [row["acknowledged"] for row in await firing(fleet, "hot")] == [""]
    # With its rule the alert ends, for whoever watches too.
    assert (await heard(fleet, "oven-1", 4))[-1].what == "resolved"
    await fleet.rests()
    assert await heard(fleet, "fridge-1", 0) == []


async def test_a_kill_forgets_nothing_and_repeats_nothing(fleet: Fleet) -> None:
    async with ruled(fleet, "killed", devices="kiln", **HOT):
        await fleet.says("kiln", (1, HOUR, 31))
        await fleet.rests()
        async with fleet.gateway.away("devices.alerting", killed=True):
            await fleet.says("kiln", (2, HOUR + 60_000, 31))
        assert [one.occurred for one in await heard(fleet, "kiln", 1)] == [HOUR + 60_000]
        async with fleet.gateway.away("devices.alerting", killed=True):
            await fleet.says("kiln", (3, HOUR + 61_000, 31))
        await fleet.rests()
        assert len(await heard(fleet, "kiln", 1)) == 1


@asynccontextmanager
async def talking(fleet: Fleet, device: str) -> AsyncIterator[None]:
    """Inside the block ``device`` is heard again and again."""

    async def talk() -> None:
        for n in count():
            await fleet.says(device, (n, HOUR + n, 1))
            await asyncio.sleep(0.05)  # what it says between two looks is enough

    task = asyncio.create_task(talk(), name=f"{device} talks")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def whats(fleet: Fleet, device: str, count: int) -> list[tuple[str, str]]:
    return [(one.what, one.reason) for one in await heard(fleet, device, count)]


async def test_each_silent_device_of_a_fleet_rule_is_told_and_comes_back(fleet: Fleet) -> None:
    await fleet.says("quiet-1", (1, HOUR, 1))
    await fleet.gateway.publish("devices/quiet-2/registered", {"state": "active"})  # it never said a word
    async with talking(fleet, "loud-1"), ruled(fleet, "silence", kind="silent", devices="quiet-*", after=0.2):
        assert await whats(fleet, "quiet-1", 1) == [("firing", "")]
        assert await whats(fleet, "quiet-2", 1) == [("firing", "")]
        await fleet.says("quiet-1", (2, HOUR, 1))
        assert (await whats(fleet, "quiet-1", 2))[:2] == [("firing", ""), ("resolved", "")]
        await fleet.gateway.publish("devices/quiet-2/registered", {"state": "suspended"})
        assert await whats(fleet, "quiet-2", 2) == [("firing", ""), ("resolved", "device suspended")]
    await fleet.rests()
    assert await heard(fleet, "loud-1", 0) == []


@pytest.mark.parametrize("state", ["suspended", "deleted"])
async def test_who_may_not_come_in_is_neither_silent_nor_anything_else(fleet: Fleet, state: str) -> None:
    """Something of it may still be on its way; it would fire for ever."""
    out, other = f"out-{state}", f"beside-{state}"
    async with (
        ruled(fleet, f"gone-{state}", kind="silent", devices=f"{out}*", after=0.2),
        ruled(fleet, f"hot-{state}", kind="above", devices=out, metric="temp", threshold=30),
        ruled(fleet, f"told-{state}", kind="silent", devices=other, after=0.2),
    ):
        await fleet.gateway.publish(f"devices/{out}/registered", {"state": "active"})
        await fleet.gateway.publish(f"devices/{out}/registered", {"state": state})
        await fleet.says(out, (1, HOUR, 31))
        await fleet.says(other, (1, HOUR, 1))
        await fleet.rests()
        async with talking(fleet, "loud-2"):
            await heard(fleet, other, 1)  # so the looks did see who is silent
        assert await heard(fleet, out, 0) == []
        await fleet.gateway.publish(f"devices/{out}/registered", {"state": "active"})
        await fleet.says(out, (2, HOUR + 1, 31))
        assert (await heard(fleet, out, 1))[0].what == "firing"


async def test_a_kill_leaves_alerts_as_they_were_and_each_ends_once(fleet: Fleet) -> None:
    rule = {"kind": "above", "metric": "temp", "threshold": 30}
    async with (
        talking(fleet, "loud-3"),
        ruled(fleet, "stays", devices="stays-hot", **rule),
        ruled(fleet, "mute", kind="silent", devices="mute-*", after=0.5),
    ):
        await fleet.says("stays-hot", (1, HOUR, 31))
        await fleet.says("mute-1", (1, HOUR, 1))
        for name, device in (("stays", "stays-hot"), ("mute", "mute-1")):
            await heard(fleet, device, 1)
            path = f"/devices/alerting/alerts/{name}/{device}/acknowledge"
            await fleet.done("POST", path, {"comment": "on my way"})
        async with fleet.gateway.away("devices.alerting", killed=True):
            await fleet.says("stays-hot", (2, HOUR + 1, 32))
            await fleet.says("mute-2", (1, HOUR, 1))
        await heard(fleet, "mute-2", 1)  # so it looked again who is silent
        await fleet.rests()
        standing = {one["device"]: one for name in ("stays", "mute") for one in await firing(fleet, name)}
        assert standing["stays-hot"]["at"] == HOUR + 1
        for device in ("stays-hot", "mute-1"):
            assert (standing[device]["acknowledged"], standing[device]["comment"]) == ("operator:root", "on my way")
            assert await whats(fleet, device, 1) == [("firing", "")]
        # Patient from now on: who speaks once more is not silent again. Killed with an end in hand, and before one.
        quiet = {"kind": "silent", "devices": "mute-*", "after": 3600}
        await fleet.done("PUT", "/devices/alerting/rules/mute", quiet)
        await fleet.says("stays-hot", (3, HOUR + 2, 20))
        async with fleet.gateway.away("devices.alerting", killed=True):
            await fleet.says("mute-1", (2, HOUR, 1))
        for device in ("stays-hot", "mute-1"):
            await heard(fleet, device, 2)
        await fleet.rests()
        for device in ("stays-hot", "mute-1"):
            assert await whats(fleet, device, 2) == [("firing", ""), ("resolved", "")]


async def test_where_nothing_at_all_is_heard_one_alert_says_so(fleet: Fleet) -> None:
    names = [f"cut-{n}" for n in range(3)]
    async with ruled(fleet, "cut", kind="silent", devices="cut-*", after=3.0):
        async with talking(fleet, "cut-0"):
            await asyncio.gather(*(fleet.says(name, (10_000, HOUR, 1)) for name in names))
        alert = (await of_all(fleet, 1))[0]  # the bridge is away, for all that is known
        assert (alert.device, alert.what) == ("*", "firing")
        assert "*" in [row["device"] for row in await firing(fleet, "cut")]
        async with talking(fleet, "cut-0"):
            assert (await of_all(fleet, 2))[1].what == "resolved"
            await asyncio.gather(*(fleet.says(name, (10_001, HOUR, 1)) for name in names))
            # Whoever does not come back is told of, each, and not before.
            for name in names[1:]:
                assert (await heard(fleet, name, 1))[0].what == "firing"
        resolved = (await fleet.gateway.events("devices/*/alerts/cut", 2))[1].meta.ts
        for name in names[1:]:
            told = await fleet.gateway.events(f"devices/{name}/alerts/cut", 1)
            assert told[0].meta.ts > resolved


async def test_where_no_device_is_left_nobody_is_unheard(fleet: Fleet) -> None:
    async with fleet.gateway.database("devices.alerting") as db:
        devices = list(await db.scalars(FLEET.select().where(FLEET.c.active.is_(True))))
    async with ruled(fleet, "left", kind="silent", devices="left-*", after=0.2):
        await fleet.says("left-1", (1, HOUR, 1))
        assert (await fleet.gateway.events("devices/*/alerts/left", 1, within=WITHIN))[0].json(Alert).what == "firing"
        for device in {*devices, "left-1"}:
            await fleet.gateway.publish(f"devices/{device}/registered", {"state": "deleted"})
        told = await fleet.gateway.events("devices/*/alerts/left", 2, within=WITHIN)
        assert told[1].json(Alert).what == "resolved"


async def of_all(fleet: Fleet, count: int) -> list[Alert]:
    """What was told of the fleet as one by the rule `cut`; the others of this file may tell of it too."""
    return [one.json(Alert) for one in await fleet.gateway.events("devices/*/alerts/cut", count, within=WITHIN)]


async def test_what_came_while_it_was_away_is_no_silence(fleet: Fleet) -> None:
    """The question stands behind the readings that came before it, however late both are handled."""
    async with ruled(fleet, "away", kind="silent", devices="away-1", after=3600):
        await fleet.says("away-1", (1, HOUR, 1))
        await fleet.rests()
        async with fleet.gateway.database("devices.alerting") as db:
            version = await db.scalar(RULES.select().with_only_columns(RULES.c.version).where(RULES.c.rule == "away"))
            seen = await db.scalar(FLEET.select().with_only_columns(FLEET.c.seen).where(FLEET.c.device == "away-1"))
            await db.execute(FLEET.update().where(FLEET.c.device == "away-1").values(seen=seen - 7_200_000))
        question = Silent("away", version, seen, seen - 3_600_000)
        async with fleet.gateway.away("devices.alerting"):
            await fleet.says("away-1", (2, HOUR, 1))
            await fleet.gateway.publish("devices/alerting/devices/away-1/silent", question)
        await fleet.rests()
        assert await heard(fleet, "away-1", 0) == []
        # The same question, where it had sent nothing.
        await fleet.gateway.publish("devices/alerting/devices/away-1/silent", Silent("away", version, seen, 2**62))
        assert [one.what for one in await heard(fleet, "away-1", 1)] == ["firing"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"devices": "nar-other*"}, "rule changed"),
        ({"metric": "rpm"}, "rule changed"),
        ({"kind": "below", "threshold": 99}, "rule changed"),
        (None, "rule removed"),
    ],
    ids=["devices", "metric", "kind", "removed"],
)
async def test_a_rule_that_is_about_less_leaves_nothing_firing(fleet: Fleet, change: Any, reason: str) -> None:
    name = "nar-" + (next(iter(change)) if change else "removed")
    rule = {"kind": "above", "devices": "nar-*", "metric": "temp", "threshold": 30}
    path = f"/devices/alerting/rules/{name}"
    await fleet.done("PUT", path, rule)
    devices = [f"nar-{n}" for n in range(3)]
    for device in devices:
        await fleet.says(device, (1, HOUR, 31), boot=name)
    await fleet.rests()
    assert len(await firing(fleet, name)) == 3
    # Higher now: it still fires, until the next reading.
    await fleet.done("PUT", path, {**rule, "threshold": 50, "severity": "info"})
    await fleet.rests()
    assert len(await firing(fleet, name)) == 3
    if change is None:
        await fleet.done("DELETE", path)
    else:
        await fleet.done("PUT", path, {**rule, **change})
    assert await firing(fleet, name) == []
    for device in devices:
        told = await fleet.gateway.events(f"devices/{device}/alerts/{name}", 2, within=WITHIN)
        assert [(one.json(Alert).what, one.json(Alert).reason) for one in told] == [
            ("firing", ""),
            ("resolved", reason),
        ]
    await fleet.rests()
    if change is not None:
        await fleet.done("DELETE", path)


async def test_what_a_changed_rule_left_ends_with_the_next_reading_too(fleet: Fleet) -> None:
    """Whoever comes first, the reading or the service's own event: it ends once."""
    rule = {"kind": "above", "devices": "turn", "metric": "temp", "threshold": 30}
    await fleet.done("PUT", "/devices/alerting/rules/turn", rule)
    await fleet.says("turn", (1, HOUR, 31))
    await fleet.rests()
    async with fleet.gateway.database("devices.alerting") as db:
        await db.execute(ALERTS.update().where(ALERTS.c.device == "turn").values(state="ending"))
    await fleet.says("turn", (2, HOUR - 1, 40))  # before what the old one saw last
    await fleet.rests()
    told = await fleet.gateway.events("devices/turn/alerts/turn", 3, within=WITHIN)
    assert [(one.json(Alert).what, one.json(Alert).reason) for one in told] == [
        ("firing", ""), ("resolved", "rule changed"), ("firing", ""),
    ]  # fmt: skip
    await fleet.done("DELETE", "/devices/alerting/rules/turn")


async def test_mail_and_webhook_hear_of_it_also_when_they_were_away(fleet: Fleet, channels: Path) -> None:
    """Whoever was away or died, each of them hears of each transition by one id, once or again."""
    mails, receiver = Mails(), Receiver()
    async with mails.serving(), receiver.serving():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEVICES_SMTP", f"smtp://127.0.0.1:{mails.port}")
            hook = {"url": f"http://127.0.0.1:{receiver.port}/alerts", "secret_file": str(channels / "secret")}
            named(channels, ops={"mail": "ops@example.org"}, pager=hook)
            mails.refuse, receiver.refuse = "451 later", 503
            rule = {"kind": "above", "metric": "temp", "threshold": 30, "channels": ["ops", "pager"]}
            async with ruled(fleet, "loud", devices="told", **rule):
                await fleet.says("told", (1, HOUR, 31))
                await eventually(lambda: mails.refused > 0 and receiver.refused > 0, within=WITHIN)
                async with fleet.gateway.away("devices.alerting", killed=True):
                    mails.refused = receiver.refused = 0
                await eventually(lambda: mails.refused > 0 and receiver.refused > 0, within=WITHIN)
                mails.refuse, receiver.refuse = "", 0
                receiver.answers.clear()  # it dies after this heard of it, and before it knows
                await eventually(lambda: bool(mails.got and receiver.got), within=WITHIN)
                async with fleet.gateway.away("devices.alerting", killed=True):
                    receiver.answers.set()
                await fleet.rests()
                await fleet.says("told", (2, HOUR + 1, 20))
                await eventually(lambda: min(len(posted(receiver)), len(sent(mails))) > 1, within=WITHIN)
                await fleet.rests()
    assert len(receiver.got) > 2
    for (id, (body,)), (mail_id, (subject,)), what in zip(
        posted(receiver).items(), sent(mails).items(), ("firing", "resolved"), strict=True
    ):
        assert f'"what":"{what}"'.encode() in body
        assert subject == f"[warning] loud {what}: told"
        assert id in mail_id.replace("-ops@", "-pager@")
    for headers, body in receiver.got:
        at = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature(SECRET, headers["webhook-id"], at, body)


def posted(receiver: Receiver) -> dict[str, set[bytes]]:
    """What came by each id, in the order in which these came first."""
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    return {id: {body for headers, body in receiver.got if headers["webhook-id"] == id} for id in ids}


def sent(mails: Mails) -> dict[str, set[str]]:
    ids = [str(mail["Message-ID"]) for mail in mails.got]
    return {id: {str(mail["Subject"]) for mail in mails.got if mail["Message-ID"] == id} for id in ids}


async def test_a_private_target_is_a_dead_letter(fleet: Fleet, channels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICES_WEBHOOK_PRIVATE", "")
    named(channels, inward={"url": "https://127.0.0.1:1/x", "secret_file": str(channels / "secret")})
    rule = {"kind": "above", "metric": "temp", "threshold": 30, "channels": ["inward"]}
    async with ruled(fleet, "inward", devices="inward", **rule):
        await fleet.says("inward", (1, HOUR, 31))
        await heard(fleet, "inward", 1)
        await fleet.rests()
    letters = [one for one in await fleet.gateway.dead_letters() if one.topic.endswith("-inward/notify")]
    assert {one.error for one in letters} == {"the URL leads into a private network"}


@pytest.mark.parametrize(
    ("name", "rule", "status"),
    [
        ("ok", {"kind": "above", "metric": "temp"}, 422),
        ("ok", {"kind": "above", "metric": "temp", "threshold": 1, "channels": ["nobody"]}, 422),
        ("NO", HOT, 422),
        ("ok", {"kind": "sideways"}, 422),
        ("ok", {**HOT, "more": 1}, 422),
    ],
)
async def test_a_bad_rule_is_refused(fleet: Fleet, name: str, rule: Any, status: int) -> None:
    assert (await fleet.ask("PUT", f"/devices/alerting/rules/{name}", rule)).status_code == status


async def test_rules_are_listed_and_are_operators_to_change(fleet: Fleet) -> None:
    async with ruled(fleet, "listed", **HOT):
        assert (await fleet.get("/devices/alerting/rules/listed", by="viewer:ann"))["for"] == 60
        assert "listed" in [one["rule"] for one in await fleet.get("/devices/alerting/rules", by="viewer:ann")]
        for method, path in (("PUT", "rules/listed"), ("DELETE", "rules/listed"), ("POST", "alerts/x/y/acknowledge")):
            assert (await fleet.ask(method, f"/devices/alerting/{path}", HOT, by="viewer:ann")).status_code == 403
            assert (await fleet.ask(method, f"/devices/alerting/{path}", HOT, by="")).status_code == 401
    assert (await fleet.ask("GET", "/devices/alerting/rules/listed")).status_code == 404


async def test_alerts_come_in_pages(fleet: Fleet) -> None:
    async with ruled(fleet, "paged", kind="above", metric="temp", threshold=30, devices="paged-*"):
        await asyncio.gather(*(fleet.says(f"paged-{n}", (1, HOUR, 31)) for n in range(5)))
        await fleet.rests()
        listed = await fleet.pages("/devices/alerting/alerts?limit=2")
        found = [one["device"] for one in listed if one["rule"] == "paged"]
    assert found == [f"paged-{n}" for n in range(5)]

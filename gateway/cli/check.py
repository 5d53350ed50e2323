"""``gateway check``: whether what is configured can be honoured."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway import limits
from gateway.adapters.http_service import check as check_routes
from gateway.adapters.log.inspection import Inspection
from gateway.adapters.mqtt import MqttClient
from gateway.adapters.tokens import load_secret
from gateway.bridge.process import lease_name
from gateway.cli.bridge import client_id, options
from gateway.cli.configuration import Config, Configuration, Json, gather, warnings
from gateway.errors import GatewayError, Unavailable
from gateway.settings import ServiceTable, Settings, redacted
from gateway.up import running


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; ``error`` is empty where it is well."""

    checked: str
    found: str
    error: str = ""


def run(
    connect: Annotated[bool, typer.Option("--connect", help="Also reach the log server and the broker.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check gateway.toml and the environment. Changes nothing. Exit code 1 where something is wrong."""
    found = gather(config)
    findings = [_declarations(found), *_devices(found), *_services(found), _secret(found)]
    if connect:
        findings += asyncio.run(_reached(found))
    for finding in findings:
        if finding.checked == "warning" and not json:
            print(f"warning: {finding.found}")
            continue
        state = f"error: {finding.error}" if finding.error else "ok"
        print(msgspec.json.encode(finding).decode() if json else f"{finding.checked}: {finding.found}: {state}")
    if any(finding.error for finding in findings):
        raise typer.Exit(1)


def _declarations(found: Configuration) -> Finding:
    topics, maps = len(found.declared.topics), len(found.topic_map.rules)
    apps = ", ".join(log.app for log in found.logs) or "none"
    return Finding(str(found.path or "no file"), f"{topics} topics of {apps}; {maps} mapped from MQTT")


def _devices(found: Configuration) -> list[Finding]:
    return [Finding("warning", text) for text in warnings(found)]


def _services(found: Configuration) -> list[Finding]:
    """What each service has beside its handlers, and where."""
    findings: list[Finding] = []
    for group, service in found.services.items():
        table = found.settings.services.get(group) or ServiceTable()
        said = [f"database {redacted(table.database)}"] if table.database else []
        if service.routes:
            where = f"at {table.url}" if table.url else "that no edge forwards to outside of `gateway up`: no url"
            said.append(f"{len(service.routes)} routes {where}")
        elif table.url:
            said.append(f"a url, {table.url}, and no routes")
        if service.asks:
            known = found.settings.gateway.origin or "no gateway.origin outside of `gateway up`"
            said.append(f"asks {', '.join(service.asks)} at {known}")
            findings += [
                Finding("warning", f"service {group!r} asks {one!r}, which no application here has")
                for one in service.asks
                if one not in (*found.services, "api")
            ]
        try:
            check_routes(service, group)
        except GatewayError as error:
            findings.append(Finding(group, "; ".join(said), str(error)))
        else:
            findings += [Finding(group, "; ".join(said))] if said else []
    return findings


def _secret(found: Configuration) -> Finding:
    path = found.settings.secret_file
    if not found.settings.tokens.hs256_secret_file and not path.exists():
        return Finding("secret", f"{path} is made when first used")
    try:
        load_secret(path)
    except GatewayError as error:
        return Finding("secret", str(path), str(error))
    return Finding("secret", str(path))


async def _reached(found: Configuration) -> list[Finding]:
    try:
        log = await _log(found)
    except GatewayError as error:
        log = Finding("log", "none", str(error))
    return [log, await reached_broker(found)]


async def reached_broker(found: Configuration) -> Finding:
    """Return whether the broker lets our account in; where a bridge of ours serves it, that is the answer."""
    settings = found.settings
    if not settings.mqtt.url and (up := running(settings)) is not None:
        # The broker that `gateway up` started, by the account that it gave the bridge.
        password = str(Path(settings.gateway.data) / "mqtt" / "gateway.password")
        ours = msgspec.structs.replace(settings.mqtt, url=up.mqtt, username="gateway", password_file=password)
        settings = msgspec.structs.replace(settings, mqtt=ours)
    if not settings.mqtt.url:
        return Finding("broker", "none is named; `gateway up` starts one")
    if settings.mqtt.username:
        # A broker with use_username_as_clientid, as ours, takes a second client of the account for the first one come
        # back, whatever id it gives: asking would throw the running bridge out (MQTT-3.1.4-3).
        try:
            inspection = await Inspection.open(found.log_url, settings.gateway.name)
            try:
                holder = (await inspection.bridge(lease_name(client_id(settings)))).holder
            finally:
                await inspection.close()
        except GatewayError:
            return Finding("broker", f"{redacted(settings.mqtt.url)}: not asked, for a bridge may serve it")
        if holder:
            return Finding("broker", f"{redacted(settings.mqtt.url)}: not asked, for {holder} serves it")
    return await _broker(settings)


async def _log(found: Configuration) -> Finding:
    url = found.log_url
    try:
        inspection = await Inspection.open(url, found.settings.gateway.name)
        try:
            await inspection.promised(found.logs)
        finally:
            await inspection.close()
    except GatewayError as error:
        return Finding("log", redacted(url), str(error))
    return Finding("log", redacted(url))


async def _broker(settings: Settings) -> Finding:
    why: list[GatewayError] = []
    try:
        # An id of its own: with the bridge's, the broker would throw the running bridge out (MQTT-3.1.4-3).
        mine = f"gateway-check-{os.getpid()}-{secrets.token_hex(4)}"
        asked = msgspec.structs.replace(options(settings), client_id=mine, session_expiry=0)
        async with asyncio.timeout(limits.CHECK_WITHIN):
            async with MqttClient(asked, [mine], lambda _: None, on_disconnected=why.append):
                pass
    except GatewayError as error:
        return Finding("broker", redacted(settings.mqtt.url), str(error))
    except TimeoutError:
        last = why[-1] if why else Unavailable("the broker did not answer", "is it running?")
        return Finding("broker", redacted(settings.mqtt.url), str(last))
    return Finding("broker", redacted(settings.mqtt.url))

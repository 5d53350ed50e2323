"""``gateway doctor``: what is wrong with the gateway that runs, and what to do."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import msgspec
import typer

from gateway import limits
from gateway.bridge.process import lease_name
from gateway.cli.bridge import client_id
from gateway.cli.check import reached_broker
from gateway.cli.configuration import Config, Configuration, Json, gather
from gateway.cli.migrate import url_of
from gateway.cli.shown import printable
from gateway.doctor import Finding, Patient, examine
from gateway.up import running


def run(
    everything: Annotated[
        bool, typer.Option("--all", help="Read every entry and letter, and not only the newest 2,000 of a partition.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Look at the gateway that runs: log server, partitions, services, broker, databases. Changes nothing.

    Each line says ok, warn or bad, and what to do. Exit code 1 where something is bad or worth a warning.
    """
    found = gather(config)
    # What it finds it says itself.
    logging.getLogger("gateway").setLevel(logging.CRITICAL)
    if not asyncio.run(_examined(found, everything, json)):
        raise typer.Exit(1)


async def _examined(found: Configuration, everything: bool, json: bool) -> bool:
    settings, well = found.settings, True
    bridged = bool(settings.mqtt.url or running(settings)) and any(topic.mqtt for topic in found.declared)
    patient = Patient(
        found.log_url,
        settings.gateway.name,
        settings.gateway.partitions,
        found.logs,
        found.services,
        {group: url_of(found, group) for group, one in found.services.items() if one.database is not None},
        lease_name(client_id(settings)) if bridged else "",
        2**63 if everything else limits.DOCTOR_ENTRIES,
    )
    async for finding in examine(patient):
        well = _told(finding, json) and well
    broker = await reached_broker(found)
    state = (
        Finding("broker", "bad", broker.found, broker.error) if broker.error else Finding("broker", "ok", broker.found)
    )
    return _told(state, json) and well


def _told(finding: Finding, json: bool) -> bool:
    if json:
        print(msgspec.json.encode(finding).decode())
    else:
        print(f"{finding.state:4}  {finding.checked}: {printable(finding.found, limits.DOCTOR_CHARACTERS)}")
        if finding.remedy:
            print(f"      → {finding.remedy}")
    return finding.state == "ok"

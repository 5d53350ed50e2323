"""``gateway bridge``: the process that carries MQTT into the log, and out of it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from gateway.adapters.mqtt import Options
from gateway.bridge import Bridge
from gateway.cli.configuration import Config, Configuration, gather, password
from gateway.cli.process import LogFormat, LogLevel, Probe, Waiting, address, open_log, probed, serve
from gateway.cli.reloading import Reload
from gateway.errors import Misconfigured
from gateway.settings import Settings

Health = Annotated[
    str, typer.Option("--health", envvar="GATEWAY_HEALTH", help="HOST:PORT of /livez, /readyz and /metrics.")
]


def run(
    config: Config = None,
    health: Health = "127.0.0.1:8081",
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run the bridge of a broker; a second one stands by. What it acknowledges to the broker is in the log."""
    found = gather(config)
    host, port = address(health)
    asked = options(found.settings)
    reload = Reload(found, config)
    serve(lambda stop: _bridge(found, asked, (host, port), reload, stop), log_format, log_level, reload.asked)


def options(settings: Settings) -> Options:
    """Return how the bridge comes to its broker; raises :class:`Misconfigured` where none is named."""
    mqtt = settings.mqtt
    if not mqtt.url:
        raise Misconfigured("no broker is named", "set mqtt.url, or run everything with `gateway up`")
    return Options(
        url=mqtt.url,
        client_id=client_id(settings),
        username=mqtt.username or None,
        password=password("mqtt.password_file", mqtt.password_file) if mqtt.password_file else None,
        receive_maximum=mqtt.receive_maximum,
        session_expiry=int(mqtt.session_expiry),
    )


def client_id(settings: Settings) -> str:
    """Return the client id that all bridges of the broker share."""
    return settings.mqtt.client_id or f"{settings.gateway.name}-bridge"


async def _bridge(
    found: Configuration, asked: Options, at: tuple[str, int], reload: Reload, stop: asyncio.Event
) -> None:
    waiting = Waiting()
    probe = Probe(waiting)
    async with probed(probe, *at):
        log = await open_log(found, stop, waiting)
        if log is None:
            return
        try:
            bridge = Bridge(
                log,
                found.declared,
                asked,
                topic_map=found.topic_map,
                decoders=found.decoders,
                gateway=found.settings.gateway.name,
            )
            reload.export(bridge.metrics)
            probe.become(bridge.unready, bridge.metrics.render, lambda: reload.standing(bridge.standing))
            async with reload.watching(log, lambda new: bridge.redeclare(new.declared, new.topic_map)):
                await bridge.run(stop)
        finally:
            await log.close()

"""What a command works with: settings, applications and declarations, from gateway.toml and the environment."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
import typer

from gateway import App, Service
from gateway.adapters.decoders import BUILT_IN
from gateway.adapters.device_rights import unreadable, unwritable
from gateway.adapters.http_operation import operations as routed
from gateway.adapters.http_problem import Problem
from gateway.adapters.log import AppLog
from gateway.app import declare, decoders, mapping, participants, promises, services, trusting
from gateway.core.asyncapi import AsyncApi
from gateway.core.declared import Declared
from gateway.core.ingest import Decode
from gateway.core.mapping import TopicMap
from gateway.core.openapi import OpenApi
from gateway.edge.operations import operations
from gateway.errors import GatewayError, Misconfigured
from gateway.settings import LogTable, Settings, load
from gateway.tables import nearest
from gateway.up import running

#: Variables of commands, beside those of the settings.
VARIABLES = (
    "GATEWAY_CONFIG",
    "GATEWAY_DATABASE_URL",
    "GATEWAY_TOKEN",
    "GATEWAY_URL",
    "GATEWAY_HEALTH",
    "GATEWAY_LOG_FORMAT",
    "GATEWAY_LOG_LEVEL",
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="GATEWAY_CONFIG", help="Settings; ./gateway.toml if there.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line (NDJSON), for programs.")]


def alone(context: typer.Context) -> bool:
    """Say whether a group was called by itself; raises where a command follows its options, which would be dropped."""
    if (command := context.invoked_subcommand) is None:
        return True
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"write it behind {command}", param_hint=f"--{name.replace('_', '-')}")
    return False


class Configuration(msgspec.Struct, frozen=True):
    """Everything that was declared, checked as a whole."""

    settings: Settings
    declared: Declared
    topic_map: TopicMap
    decoders: dict[str, Decode]
    logs: tuple[AppLog, ...]
    #: Group, such as ``ecommerce.inventory`` → its service.
    services: dict[str, Service]
    #: Application → its own commands.
    commands: dict[str, tuple[Callable[..., None], ...]]
    #: The file it came from; None without one.
    path: Path | None

    @property
    def keys(self) -> dict[str, str]:
        """Topic filter -> key template, for the log to compare."""
        return {topic.filter: topic.key for topic in self.declared if topic.key}

    @property
    def asyncapi(self) -> AsyncApi:
        """What it offers, for its edges and for ``gateway topics --asyncapi``."""
        return AsyncApi(
            self.declared,
            title=self.settings.gateway.name,
            version=version("topic-gateway"),
            participants=participants(self.services),
            durability={log.app: log.durability for log in self.logs},
            mqtt=self.settings.mqtt.url,
            anonymous=self.settings.edge.anonymous,
        )

    def openapi(self, groups: Iterable[str]) -> OpenApi:
        """What its edges' HTTP routes are, and those of the services ``groups``, which they forward to."""
        own = operations(anonymous=self.settings.edge.anonymous)
        behind = [one for group in sorted(groups) for one in routed(group, self.services[group])]
        return OpenApi((*own, *behind), Problem, title=self.settings.gateway.name, version=version("topic-gateway"))

    @property
    def log_url(self) -> str:
        """The log server: of the settings, else of a running ``gateway up``; raises :class:`Misconfigured`."""
        if self.settings.log.url:
            return _with_account(self.settings.log)
        found = running(self.settings)
        if found is None:
            raise Misconfigured("no log server is named and none runs here", "set log.url, or run `gateway up`")
        return found.log


def password(key: str, file: str) -> str:
    """Return what ``file`` holds, but for the end of its line; raises :class:`Misconfigured`, which names ``key``."""
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{key} {file} cannot be read: {error}", "name a file with it") from None


def _with_account(log: LogTable) -> str:
    if not log.password_file:
        return log.url
    account = f"{quote(log.username, safe='')}:{quote(password('log.password_file', log.password_file), safe='')}"
    parts = urlsplit(log.url)
    return urlunsplit(parts._replace(netloc=f"{account}@{parts.netloc}"))


def gather(config: Path | None, environment: Mapping[str, str] | None = None) -> Configuration:
    """Read everything, by default in the environment of now; raises :class:`Misconfigured` with all that is wrong."""
    path = config
    if path is None and Path("gateway.toml").is_file():
        path = Path("gateway.toml")
    env = {n: value for n, value in (environment or os.environ).items() if n not in VARIABLES}
    settings = load(str(path) if path is not None else None, env)
    apps = [_app(name, path.parent if path is not None else Path()) for name in settings.gateway.apps]
    settings, declared = trusting(settings, apps), declare(settings, apps)
    return Configuration(
        settings=settings,
        declared=declared,
        topic_map=mapping(settings, declared),
        decoders={**BUILT_IN, **decoders(apps)},
        logs=tuple(AppLog(p.app, p.durability, p.retention, p.keep) for p in promises(settings, declared, apps)),
        services=services(declared, apps),
        commands={app.name: tuple(app.commands) for app in apps if app.commands},
        path=path,
    )


def warnings(found: Configuration) -> list[str]:
    """Return what is allowed and yet hardly meant."""
    if found.settings.mqtt.url:
        return []  # who may write there is that broker's own business
    return [
        f'topic {pattern!r} has mqtt = "in", but no device may write it: add "device" or "device:{{name}}" to its write'
        for pattern in unwritable(found.declared, found.topic_map)
    ] + [
        f'topic {pattern!r} has mqtt = "out", but no device may read it: add "device" or "device:{{name}}" to its read'
        for pattern in unreadable(found.declared)
    ]


def _app(name: str, folder: Path) -> App:
    module, _, attribute = name.partition(":")
    # Applications run from the checkout, beside their gateway.toml.
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except GatewayError:
        raise
    except Exception as error:  # others' code; and a running process, which reads it again, must not end by it
        raise Misconfigured(f"gateway.apps: {name} cannot be imported: {error}", "write module:attribute") from error
    if not isinstance(found, App):
        raise Misconfigured(f"gateway.apps: {name} is no App", "name an attribute that is a gateway.App")
    return found


def known_service(found: Configuration, group: str) -> Service:
    """Return the service ``APP.SERVICE``; raises :class:`Misconfigured` where no application has it."""
    if group not in found.services:
        known = nearest(group, sorted(found.services)) if found.services else "no application has services"
        raise Misconfigured(f"there is no service {group!r}", known)
    return found.services[group]

"""What docker-compose.yml and the Dockerfile say, read as Compose and Docker would read it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"

#: What .env holds where these tests run: whoever runs them.
VARIABLES = {"GATEWAY_UID": "10001", "GATEWAY_GID": "10001"}

#: ``$$``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` of the Compose specification.
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+)(?:(:[-?])([^}]*))?\}|([A-Z_]+))")


class Mount(msgspec.Struct, frozen=True):
    """A file or folder of the host, and where the container sees it."""

    source: str
    target: str
    read_only: bool


class Container(msgspec.Struct, frozen=True):
    """One service as a process: what it runs, with which variables, and how somebody knows that it is well."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    health: tuple[str, ...]
    mounts: tuple[Mount, ...]
    #: Folders in memory.
    scratch: tuple[str, ...]
    needs: tuple[str, ...]
    #: Seconds from SIGTERM to SIGKILL.
    grace: float
    #: Seconds from the start in which a failing health check is no fault.
    start_period: float


def document(file: Path = COMPOSE) -> dict[str, Any]:
    """The file with its anchors followed, its merges made and its variables filled in."""
    read: dict[str, Any] = YAML(typ="safe").load(file)
    filled: dict[str, Any] = _filled(read)
    return filled


def containers(read: Mapping[str, Any]) -> dict[str, Container]:
    """Every service, by name."""
    return {name: _container(name, service, read["secrets"]) for name, service in read["services"].items()}


def instructions(file: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile's last stage: ``[("COPY", "gateway.toml ./"), ...]``."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", file.read_text()))
    said = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]
    last = max(number for number, (word, _) in enumerate(said) if word == "FROM")
    return said[last:]


def entrypoint() -> tuple[str, ...]:
    return tuple(json.loads(dict(instructions())["ENTRYPOINT"]))


def seconds(text: str) -> float:
    """A duration of Compose: 300s, 2m."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]  # the schema has checked it
    return float(number) * {"s": 1, "m": 60}[unit]


def _container(name: str, service: Mapping[str, Any], secrets: Mapping[str, Any]) -> Container:
    test = service["healthcheck"]["test"]
    health = ("/bin/sh", "-c", test[1]) if test[0] == "CMD-SHELL" else tuple(test[1:])
    mounts = [_mount(text) for text in service.get("volumes", ())]
    mounts += [Mount(secrets[secret]["file"], f"/run/secrets/{secret}", True) for secret in service.get("secrets", ())]
    start = entrypoint() if "build" in service else ()
    command = service["command"]
    return Container(
        name,
        (*start, *(shlex.split(command) if isinstance(command, str) else command)),
        {key: str(value) for key, value in service.get("environment", {}).items()},
        health,
        tuple(mounts),
        tuple(service.get("tmpfs", ())),
        tuple(service.get("depends_on", ())),
        seconds(service["stop_grace_period"]),
        seconds(service["healthcheck"]["start_period"]),
    )


def _mount(text: str) -> Mount:
    source, target, *mode = text.split(":")
    return Mount(source, target, mode == ["ro"])


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one) for one in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(found: re.Match[str]) -> str:
    dollar, name, how, rest, bare = found.groups()
    if dollar:
        return "$"
    if (name or bare) in VARIABLES:
        return VARIABLES[name or bare]
    if how == ":-":
        return str(rest)
    raise ValueError(f"nothing sets {name or bare}")

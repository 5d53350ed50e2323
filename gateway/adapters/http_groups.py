"""Services over HTTP, for operators: how far each is, paused and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.adapters.http import Guarded, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_problem import as_json
from gateway.adapters.log import GroupState


class Standing(msgspec.Struct, frozen=True):
    """Every service that has begun, partition by partition."""

    groups: Sequence[GroupState]


class Paused(msgspec.Struct, frozen=True):
    """A service, and whether its workers rest now."""

    group: str
    paused: bool
    partitions: Sequence[str]


class Operators(Guarded, Protocol):
    """What an operator may do with services; every method raises ``errors`` only."""

    async def states(self, token: str, whence: str) -> Sequence[GroupState]:
        """Return how far each service is."""

    async def pause(self, token: str, whence: str, group: str, *, paused: bool) -> Sequence[str]:
        """Let a service rest, or go on; return the partitions where it has begun."""


def routes(operators: Operators) -> list[Route]:
    async def listed(request: Request) -> Response:
        check_origin(request, operators)
        return as_json(Standing(await operators.states(bearer(request), _whence(request))), 200)

    async def change(request: Request) -> Response:
        check_origin(request, operators)
        group, paused = request.path_params["group"], request.url.path.endswith("/pause")
        where = await operators.pause(bearer(request), _whence(request), group, paused=paused)
        return as_json(Paused(group, paused, where), 200)

    return [
        Route("/groups", typed(listed, operators), methods=["GET"]),
        Route("/groups/{group}/pause", typed(change, operators), methods=["POST"]),
        Route("/groups/{group}/resume", typed(change, operators), methods=["POST"]),
    ]


def _whence(request: Request) -> str:
    return f"http {request.client.host if request.client else 'of nowhere'}"

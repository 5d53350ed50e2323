"""Connections over HTTP, for operators: who is there, on every edge."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.adapters.http import Guarded, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_page import query
from gateway.adapters.http_problem import as_json
from gateway.core.connected import Connected, Wanted


class Operators(Guarded, Protocol):
    """What an operator may ask about connections; every method raises ``errors`` only."""

    def check(self, token: str, whence: str) -> None:
        """Raise :class:`BadToken` or :class:`Denied` where the bearer of ``token`` is no operator."""

    async def connected(self, wanted: Wanted) -> Connected:
        """Return those that are ``wanted``, of every edge."""


def routes(operators: Operators) -> list[Route]:
    async def listed(request: Request) -> Response:
        check_origin(request, operators)
        operators.check(bearer(request), f"http {request.client.host if request.client else 'of nowhere'}")
        return as_json(await operators.connected(query(request, Wanted)), 200)

    return [Route("/connections", typed(listed, operators), methods=["GET"])]

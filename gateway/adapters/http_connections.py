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
from gateway.core.access import Grant
from gateway.core.connected import Connected, Wanted


class Operators(Guarded, Protocol):
    """What an operator may ask about connections; every method raises ``errors`` only."""

    def check(self, token: str, whence: str) -> Grant:
        """Return what let the operator in; raises :class:`BadToken` and :class:`Denied`."""

    async def connected(self, grant: Grant, wanted: Wanted) -> Connected:
        """Return those that are ``wanted``, of every edge; raises also where ``grant`` ended meanwhile."""


def routes(operators: Operators) -> list[Route]:
    async def listed(request: Request) -> Response:
        check_origin(request, operators)
        whence = f"http {request.client.host if request.client else 'of nowhere'}"
        grant = operators.check(bearer(request), whence)
        return as_json(await operators.connected(grant, query(request, Wanted)), 200)

    return [Route("/connections", typed(listed, operators), methods=["GET"])]

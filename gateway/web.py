"""The door of routes: what a service's own HTTP routes need beside Starlette."""

from gateway.adapters.http_asking import NotLetIn, WrongAnswer, ask, origin
from gateway.adapters.http_operation import answer, body, operation, principal
from gateway.adapters.http_page import Listing, Page, query
from gateway.adapters.http_service import publish
from gateway.app import Issuer
from gateway.core.access import Principal
from gateway.errors import Denied, NotAvailable, Refused, TurnedDown, Unavailable

__all__ = [
    "Denied",
    "Issuer",
    "Listing",
    "NotAvailable",
    "NotLetIn",
    "Page",
    "Principal",
    "Refused",
    "TurnedDown",
    "Unavailable",
    "WrongAnswer",
    "answer",
    "ask",
    "body",
    "operation",
    "origin",
    "principal",
    "publish",
    "query",
]

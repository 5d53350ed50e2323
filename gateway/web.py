"""The door of routes: what a service's own HTTP routes need beside Starlette."""

from gateway.adapters.http_operation import answer, body, operation, principal
from gateway.adapters.http_page import Listing, Page, query
from gateway.adapters.http_service import publish
from gateway.core.access import Principal
from gateway.errors import Denied, NotAvailable, Refused, Unavailable

__all__ = [
    "Denied",
    "Listing",
    "NotAvailable",
    "Page",
    "Principal",
    "Refused",
    "Unavailable",
    "answer",
    "body",
    "operation",
    "principal",
    "publish",
    "query",
]

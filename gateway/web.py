"""The door of routes: what a service's own HTTP routes need beside Starlette."""

from gateway.adapters.http_service import answer, body, principal, publish
from gateway.core.access import Principal
from gateway.errors import Denied, NotAvailable, Refused, Unavailable

__all__ = ["Denied", "NotAvailable", "Principal", "Refused", "Unavailable", "answer", "body", "principal", "publish"]

"""The door: everything an application may import from the gateway."""

from gateway.app import App
from gateway.core.declared import Topic
from gateway.core.delivery import Later, Rejected, Retry
from gateway.core.event import Event
from gateway.errors import GatewayError
from gateway.service import Context, Service

__all__ = ["App", "Context", "Event", "GatewayError", "Later", "Rejected", "Retry", "Service", "Topic"]

"""The door: everything an application may import from the gateway."""

from gateway.app import App
from gateway.core.declared import Topic
from gateway.core.event import Event
from gateway.errors import GatewayError

__all__ = ["App", "Event", "GatewayError", "Topic"]

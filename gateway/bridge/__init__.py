"""The bridge process: one broker and the log, in both directions, each message acknowledged where it is safe."""

from gateway.bridge.inbound import Inbound
from gateway.bridge.outbound import Outbound
from gateway.bridge.process import Bridge

__all__ = ["Bridge", "Inbound", "Outbound"]

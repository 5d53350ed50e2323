"""The door of tests: an application on real servers in this process, and waiting for facts instead of sleeping."""

from gateway.testing.running import Gateway, Seen, running
from gateway.testing.told import DidNotHappen

__all__ = ["DidNotHappen", "Gateway", "Seen", "running"]

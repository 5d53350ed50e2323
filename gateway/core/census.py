"""Who is here: an edge's connections and subscriptions by transport and SDK, and what its clients say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway import limits

#: How the Centrifugal protocol's SDKs name themselves in their connect command; any other name is a client's own
#: words, and must not become a label.
SDKS: Final = frozenset({"js", "go", "dart", "swift", "java", "python", "csharp"})
OTHER: Final = "other"


class Kind:
    """The clients of one transport and one SDK."""

    __slots__ = ("connections", "sdk", "subscriptions", "transport")

    def __init__(self, transport: str, sdk: str) -> None:
        self.transport, self.sdk = transport, sdk
        self.connections = self.subscriptions = 0


class Census:
    """Counted when a client comes, says something or goes; nothing here is done for an event."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._names: dict[str, str] = {}
        #: Messages of clients, with their bytes.
        self.received = self.received_bytes = 0
        #: Messages for one client alone, with their bytes: replies, pings, what it missed.
        self.told = self.told_bytes = 0
        for transport in ("sse", "websocket"):
            self.kind(transport, "")

    def kind(self, transport: str, client: str) -> Kind:
        """Return the kind of a ``client`` that calls itself so: its SDK's name, then perhaps a version."""
        name = client.partition(" ")[0]
        sdk = name if name in SDKS else OTHER
        return self._kinds.setdefault((transport, sdk), Kind(transport, sdk))

    def name(self, client: str) -> str:
        """Return what a ``client`` calls itself: one string for all that call themselves so."""
        if len(self._names) >= limits.SDK_NAMES:
            return self._names.get(client, client)
        return self._names.setdefault(client, client)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

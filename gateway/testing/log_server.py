"""The log server of tests: one in this process, with a database for each gateway."""

from __future__ import annotations

import atexit
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway import limits
from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.adapters.log.link import Link
from gateway.adapters.log.servers import Servers
from gateway.errors import LimitReached


class LogServer:
    """The one Valkey of this process: started by the first test that needs it, ended with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # tests may run in threads, each with a loop of its own
        self._server: Server | None = None
        self._lent: set[int] = set()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Lend an empty database, by its url; raises :class:`ServerMissing`, :class:`LimitReached`."""
        server = self.server()  # blocks, once for the time of a start
        with self._lock:
            number = next((n for n in range(limits.TEST_GATEWAYS) if n not in self._lent), None)
            if number is None:
                raise LimitReached(f"{limits.TEST_GATEWAYS} gateways run in this process", "end some first")
            self._lent.add(number)
        try:
            url = f"{server.url}?db={number}"
            link = Link((await Servers.find(url)).place(""))
            try:
                await link.ask("FLUSHDB")
            finally:
                await link.close()
            yield url
        finally:
            self._lent.discard(number)

    @property
    def lent(self) -> int:
        """Databases that gateways have now."""
        return len(self._lent)

    def server(self) -> Server:
        """Return the running server, started again where it died."""
        with self._lock:
            if self._server is None:
                folder = tempfile.TemporaryDirectory(prefix="gateway-test-log-")
                self._server = embedded.valkey(Path(folder.name), extra=[f"databases {limits.TEST_GATEWAYS}"])
                atexit.register(folder.cleanup)
                atexit.register(self._server.stop)  # the last that is registered is the first that is called
            self._server.start()
            return self._server


SERVER: Final = LogServer()

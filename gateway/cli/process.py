"""A process of the gateway: its event loop, its signals, its log server that may come late, its health."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated, Literal

import typer
import uvloop

from gateway import limits, logs
from gateway.adapters import http
from gateway.adapters.http_service import Hosted
from gateway.adapters.listening import listen
from gateway.adapters.log import Log
from gateway.cli.configuration import Configuration
from gateway.errors import GatewayError, Misconfigured, Unavailable

_logger = logging.getLogger("gateway.process")

LogFormat = Annotated[
    Literal["text", "json"], typer.Option("--log-format", envvar="GATEWAY_LOG_FORMAT", help="A log line's form.")
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", envvar="GATEWAY_LOG_LEVEL", help="The least that is logged."),
]


class Waiting:
    """A process before its log server answers: alive, and not ready."""

    def __init__(self) -> None:
        self.why = "not connected yet"

    def unready(self) -> list[str]:
        return [f"log: {self.why}"]

    def metrics(self) -> tuple[bytes, str]:
        return b"", "text/plain; version=0.0.4"


def _ok() -> str:
    return "ok"


class Probe:
    """What a process without clients tells about itself; before its log server answers, that it waits."""

    def __init__(self, waiting: Waiting) -> None:
        self.unready: Callable[[], list[str]] = waiting.unready
        self.metrics: Callable[[], tuple[bytes, str]] = waiting.metrics
        self._stands: Callable[[], str] = _ok

    @property
    def standing(self) -> str:
        """What it says of itself when it is ready."""
        return self._stands()

    def become(
        self,
        unready: Callable[[], list[str]],
        metrics: Callable[[], tuple[bytes, str]],
        standing: Callable[[], str] | None = None,
    ) -> None:
        """It waits no more."""
        self.unready, self.metrics, self._stands = unready, metrics, standing or _ok


def serve(
    work: Callable[[asyncio.Event], Awaitable[None]],
    form: Literal["text", "json"],
    level: str,
    hangup: asyncio.Event | None = None,
) -> None:
    """Run ``work`` until it ends; SIGTERM and SIGINT set its event, SIGHUP sets ``hangup``, where one is given.

    What it raises comes out as one error.
    """
    logs.configure(form, level)

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, hangup.set)
        await work(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_signal())
    except BaseExceptionGroup as group:
        known = next((error for error in _leaves(group) if isinstance(error, GatewayError | OSError)), None)
        if known is None:
            raise
        raise _typed(known) from None
    except OSError as error:
        raise _typed(error) from None


@contextmanager
def naming(host: str, port: int) -> Iterator[None]:
    """Make an address that is taken, or not ours, a :class:`Misconfigured` that names it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {error.strerror}"
        raise Misconfigured(f"{at} {why}", "end the process that has it, or choose another address") from None


@asynccontextmanager
async def probed(process: http.Probed, host: str, port: int, hosted: Hosted | None = None) -> AsyncIterator[None]:
    """Serve ``/livez``, ``/readyz`` and ``/metrics`` of ``process`` meanwhile, and the routes of ``hosted``."""
    with naming(host, port):
        sock = listen(host, port)
    server = http.server(http.health(process, *(hosted.routes if hosted is not None else ())), drain=1.0)
    serving = asyncio.create_task(server.serve([sock]), name="health")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        sock.close()


async def open_log(found: Configuration, stop: asyncio.Event, waiting: Waiting) -> Log | None:
    """Return the log, however long its server takes to come; None when ``stop`` came first.

    Raises :class:`Misconfigured` for what no waiting mends.
    """
    url, settings = found.log_url, found.settings
    while not stop.is_set():
        try:
            return await Log.open(
                url, found.logs, gateway=settings.gateway.name, partitions=settings.gateway.partitions, keys=found.keys
            )
        except Unavailable as error:
            if waiting.why != str(error):
                _logger.warning("waiting for the log server: %s", error)
            waiting.why = str(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), limits.LOG_BACKOFF[1])
    return None


def address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; raises :class:`typer.BadParameter`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise typer.BadParameter(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _typed(error: GatewayError | OSError) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if error.errno == errno.EADDRINUSE:
        return Misconfigured(f"an address is taken: {error.strerror}", "end the process that has it, or set edge.port")
    return Misconfigured(str(error), "see the settings of this process")

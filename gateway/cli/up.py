"""``gateway up``: everything on this machine, with what to try next and a live view of what happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec
import typer

from gateway import limits
from gateway.adapters.log import DeadLetter
from gateway.adapters.tokens import issue, secret
from gateway.cli.configuration import Config, Configuration, gather, warnings
from gateway.cli.pace import Pace
from gateway.cli.process import Waiting, open_log, serve
from gateway.cli.reloading import Reload
from gateway.cli.shown import Closed, printable, put
from gateway.cli.tail import events
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.errors import GatewayError, Misconfigured, Unavailable
from gateway.secret_file import write_secret
from gateway.settings import loopback
from gateway.up import Running, Up

#: What a person publishes by hand is always shown; a first event must not seem to vanish.
_BY_HAND = ("try/", "rooms/")
#: What examples/demo.py asks.
_SHOWN = {"devices.registry", "devices.alerting", "ecommerce.catalog", "ecommerce.inventory"}


class Help(msgspec.Struct, frozen=True):
    """What to type next: the program as it is called here, with its ``--config`` where one is needed."""

    program: str
    option: str
    running: Running
    data: Path

    def commands(self, found: Configuration, demo: bool) -> list[str]:
        """Return three commands that work as they stand."""
        say, option, edge = self.program, self.option, self.running.edge
        if not demo:
            first = next((topic.filter for topic in found.declared), "#")
            return [
                f"{say} topics{option}",
                f"{say} sub{option} {_quoted(first)}",
                f"{say} tail{option} --from earliest --no-follow",
            ]
        publish = f"{say} pub{option} try/hello 'hello, world'"
        if self.running.broker == "mosquitto" and shutil.which("mosquitto_pub"):
            port = self.running.mqtt.rpartition(":")[2]
            publish = f"mosquitto_pub -p {port} -q 1 -t try/hello -m 'hello, world'"
        # A fleet is not for users, whose token a command takes by itself.
        token = _quoted(str(self.data / "viewer.token"))
        stream = f"{edge}/topics/{quote('devices/+/telemetry', safe='')}/events"
        return [
            f"{say} sub{option} --token-file {token} 'devices/+/telemetry'",
            publish,
            f"curl -N -H \"Authorization: Bearer $(cat {token})\" '{stream}'",
            f"{say} dead ls{option}",
        ]


def run(
    demo: Annotated[
        bool, typer.Option("--demo", help="With the demo's applications, a stocked shop and a fleet of devices.")
    ] = False,
    config: Config = None,
) -> None:
    """Run everything on this machine: log server, broker, edge, bridge and services. Ctrl-C stops all of it.

    A server that log.url or mqtt.url names is used instead of one of our own. Data and secrets are kept in .gateway.
    SIGHUP, or `gateway reload`: the topics of gateway.toml are read again.
    """
    program = _demo() if demo else None
    if program is not None and config is None and not Path("gateway.toml").is_file():
        config = _relative(program.parent.parent / "gateway.toml")
    found = gather(config)
    if program is not None and (missing := _SHOWN - found.services.keys()):
        raise Misconfigured(
            f"the demo shows services that are not here: {', '.join(sorted(missing))}",
            "leave --demo out, or name the demo's applications in gateway.apps",
        )
    for warning in warnings(found):
        _say(f"warning: {warning}")
    reload = Reload(found, config)
    # As ever, except under nohup.
    ends = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    serve(lambda stop: _up(reload, program, ends, stop), "text", "warning", reload.asked)


async def _up(reload: Reload, demo: Path | None, ends: bool, stop: asyncio.Event) -> None:
    found = reload.found
    asking = [group for group, service in found.services.items() if service.asks]
    up = Up(found.settings, found.declared, found.topic_map, found.path, _say, tuple(found.services), asking, demo)
    try:
        starting = asyncio.create_task(up.start(), name="start")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await asyncio.wait([starting])
            return
        _welcome(found, starting.result(), _tokens(found, up.data), demo is not None)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(up.keep(), name="keep")
            reading = group.create_task(_read_again(up, reload, ends, stop), name="reload")
            showing = group.create_task(_show(found, stop), name="live tail")
            burying = group.create_task(_show_refused(found, stop), name="refused messages")
            await stopping
            for task in (keeping, reading, showing, burying):
                task.cancel()
    finally:
        began = up.began
        await up.stop()
        if began:
            _say("everything is stopped")


async def _read_again(up: Up, reload: Reload, ends: bool, stop: asyncio.Event) -> None:
    """Take SIGHUP for what it is, and pass it on; where it ``ends``, that of a terminal which closed does."""
    while True:
        await reload.asked.wait()
        reload.asked.clear()
        if ends and not _has_terminal():
            stop.set()
            return
        try:
            new = reload.read()
            up.redeclare(new.declared, new.topic_map)
        except GatewayError as error:
            reload.refuse(error)
            _say(f"what is declared was read again and refused; the old one is in force:\n{error}")
        else:
            reload.take(new)
            _say(f"what is declared was read again: {len(new.declared.topics)} topics")


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _show(found: Configuration, stop: asyncio.Event) -> None:
    places = sorted({place for log in found.logs for place in log.partitions(found.settings.gateway.partitions)})
    log = await open_log(found, stop, Waiting())
    if log is None:
        return
    pace = Pace(time.monotonic())
    try:
        async with aclosing(events(log, places, None, follow=True)) as coming:
            async for event in coming:
                if own(found.declared, event.topic):
                    continue
                now = time.monotonic()
                if event.topic.startswith(_BY_HAND) or pace.admit(now):
                    _say(event.line())
                if count := pace.left_out(now):
                    _say(f"          ... and {count} more events that are not shown; gateway tail shows all")
    finally:
        await log.close()


def own(declared: Declared, topic: str) -> bool:
    """Say whether ``topic`` is what a service tells itself, such as its timers: nobody may read or publish it."""
    try:
        one = declared.find(topic).topic
    except GatewayError:
        return False  # of before a reload
    return not (one.read or one.write)


async def _show_refused(found: Configuration, stop: asyncio.Event) -> None:
    """Say what became a dead letter since now: one line each time it is looked, the rest counted."""
    log = await open_log(found, stop, Waiting())
    if log is None:
        return
    # Letters are numbered by the clock of the log server, which is this machine's or keeps time.
    seen = dict.fromkeys((*log.partitions(), f"{found.settings.gateway.name}.0"), f"{int(time.time() * 1000)}-0")
    try:
        while True:
            await asyncio.sleep(limits.REFUSED_EVERY)
            new: list[DeadLetter] = []
            for place, after in seen.items():
                try:
                    page = await log.dead(place, after, limits.LOG_PAGE)
                except Unavailable:
                    break  # told elsewhere; they stay where they are
                for seen[place], letter in page:
                    new.append(letter)
            if new:
                _say(_refused(new))
    finally:
        await log.close()


def _refused(new: Sequence[DeadLetter]) -> str:
    letter = new[-1]
    what = f"given up by {letter.group}" if letter.group else "refused"
    why = letter.error.partition("; ")[0]  # without the remedy: that is for the sender
    more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
    return f"{printable(letter.topic)} {what}: {printable(why)}{more}; see gateway dead ls"


def _welcome(found: Configuration, running: Running, data: Path, demo: bool) -> None:
    program, option = _program(), ""
    if found.path is not None and found.path != Path("gateway.toml"):
        option = f" --config {_quoted(str(found.path))}"
    commands = Help(program, option, running, data).commands(found, demo)
    of = f" with {found.path}" if found.path is not None else ""
    role, others = ("viewer", "a user's") if demo else ("user", "a viewer's")
    _say(f"Topic Gateway {version('topic-gateway')} runs{of}. Ctrl-C stops all of it.")
    _say("")
    _say(f"  pages      {front(running.edge, data / 'operator.token', sys.stdout.isatty())}")
    _say(f"  HTTP, SSE  {running.edge}")
    _say(f"  WebSocket  ws{running.edge.removeprefix('http')}/connection/websocket")
    _say(f"  MQTT       {running.mqtt}  ({running.broker})")
    if running.broker != "yours":
        _say(f"             accounts by hand are in {data / 'mqtt' / 'devices.json'}")
    for name, at in running.health.items():
        if name not in found.services:
            _say(f"  health     {name}: {at}/readyz")
    if found.services:
        _say(
            f"  services   {len(found.services)} are starting; until one is ready it answers 503, which says: try again"
        )
    _say(f"  {role:<9}  {(data / f'{role}.token').read_text().strip()}")
    _say(f"             kept in {data / f'{role}.token'}; beside it {others} and an operator's")
    _say("")
    _say("Try next, in another terminal:")
    for command in commands:
        _say(f"  {command}")
    _say("")


def front(edge: str, token: Path, terminal: bool) -> str:
    """Return what opens the pages: with the operator's ``token`` where a person of this machine alone reads it.

    Behind ``#`` it is sent to nobody, and the page takes it out of the address; a log file gets no operator's token.
    """
    alone = terminal and loopback(urlsplit(edge).hostname or "")
    return f"{edge}/#token={token.read_text().strip()}" if alone else f"{edge}/"


def _tokens(found: Configuration, data: Path) -> Path:
    """Keep a token of each role; return the folder, from here."""
    settings, now = found.settings, time.time()
    for role in ("operator", "viewer", "user"):
        tokens = settings.tokens
        made = issue(
            secret(settings),
            Principal(role, "me"),
            limits.UP_TOKEN_LIFE,
            now,
            audience=tokens.audience,
            issuer=tokens.issuer,
        )
        write_secret(data / f"{role}.token", made + "\n")
    return _relative(data)


def _demo() -> Path:
    path = Path(__file__).parents[2] / "examples" / "demo.py"
    if not path.is_file():
        raise Misconfigured(f"the demo is not at {path}", "run it from a checkout of the repository")
    return path


def _program() -> str:
    called = Path(sys.argv[0]).absolute()
    if called.name == "__main__.py":
        return f"{_quoted(str(_relative(Path(sys.executable))))} -m gateway.cli"
    found = shutil.which("gateway")
    return "gateway" if found and Path(found).absolute() == called else _quoted(str(_relative(called)))


def _relative(path: Path) -> Path:
    """Return ``path`` from here where that is below here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _quoted(text: str) -> str:
    return text if text and not set(text) - _PLAIN else "'" + text.replace("'", "'\\''") + "'"


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%")


def _say(text: str) -> None:
    try:
        put(text)
    except Closed:
        with suppress(OSError):  # under 2>&1 that is closed too
            print("nobody reads what `gateway up` says; it goes on, and Ctrl-C stops it", file=sys.stderr)

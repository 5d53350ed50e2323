"""An event as one line: for people, never able to move their cursor; or as JSON, for programs."""

from __future__ import annotations

import base64
import os
import sys
import time

import msgspec

from gateway import limits


class Closed(Exception):
    """Nobody reads our standard output any more, as under ``| head``. No `OSError`: it is not the network's."""


def put(line: str) -> None:
    """Print ``line`` at once; raises :class:`Closed`, and then and later writes go nowhere."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # The interpreter writes out what is left when it ends, and would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise Closed from None


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event as ``--json`` prints it. ``data`` is JSON where it was, else text, else base64 in ``base64``."""

    topic: str
    id: str
    #: Milliseconds since 1970.
    ts: int = 0
    data: msgspec.Raw | str | None = None
    base64: str = ""
    type: str = ""
    offset: int = 0
    epoch: int = 0
    partition: str = ""

    def json(self) -> str:
        return msgspec.json.encode(self).decode()

    def line(self) -> str:
        """Return time, topic and payload on one line; what is not printable is escaped."""
        at = time.strftime("%H:%M:%S", time.localtime(self.ts / 1000)) if self.ts else "--:--:--"
        if self.base64:
            text = f"<{len(base64.b64decode(self.base64))} bytes> {self.base64}"
        else:
            text = bytes(self.data).decode() if isinstance(self.data, msgspec.Raw) else self.data or ""
        return f"{at}  {printable(self.topic)}  {printable(text)}"


def shown(
    topic: str, id: str, ts: int, data: bytes, type: str, *, offset: int = 0, epoch: int = 0, partition: str = ""
) -> Shown:
    """Return an event for showing; ``type`` is empty where ``data`` is JSON."""
    text: msgspec.Raw | str | None = None
    coded = ""
    if not type:
        text = msgspec.Raw(data)
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            coded = base64.b64encode(data).decode()
    return Shown(topic, id, ts, text, coded, type, offset, epoch, partition)


def printable(text: str, most: int = limits.SHOWN_CHARACTERS) -> str:
    """Return ``text`` short, and harmless to a terminal: control characters are escaped."""
    if len(text) > most:
        text = f"{text[:most]} …"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

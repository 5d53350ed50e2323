"""The broker's file of passwords: a projection of the registry, which leaves other accounts alone."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from devices import limits
from gateway.web import Unavailable

#: What the broker's process is called.
_BROKER: Final = "mosquitto"


def password() -> str:
    return secrets.token_urlsafe(limits.PASSWORD_BYTES)


def hashed(word: str) -> str:
    """Return what Mosquitto's password file has behind the name: ``$7$``, PBKDF2-HMAC-SHA512 (mosquitto_passwd(1)).

    Few rounds, for nobody guesses a password of `password`.
    """
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, 101, 64)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def projected(text: str, accounts: Mapping[str, str | None]) -> str:
    """Return the file ``text`` with the hashes of ``accounts``; those without one are not in it."""
    kept = [line for line in text.splitlines() if line and line.partition(":")[0] not in accounts]
    return "".join(f"{line}\n" for line in [*kept, *(f"{name}:{word}" for name, word in accounts.items() if word)])


@asynccontextmanager
async def held(folder: str) -> AsyncIterator[None]:
    """Alone with the broker's files, as `gateway device-credentials` is: two who write would undo each other.

    What is written is read inside: whoever read before it may bring back what somebody else changed meanwhile.
    Raises :class:`Unavailable`: ask again.
    """
    descriptor = -1
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        give_up = time.monotonic() + limits.LOCK_WITHIN
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(limits.LOCK_LOOK)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise Unavailable(f"the broker's files: {error}", "mend DEVICES_BROKER_FOLDER") from None
    try:
        yield
    finally:
        os.close(descriptor)


def project(folder: str, accounts: Mapping[str, str | None]) -> bool:
    """Bring the file up to date, whole or not at all; say whether it had to be. Only while it is `held`.

    The rights of devices need no change: they are patterns of their names. Raises :class:`Unavailable`: ask again.
    """
    path = Path(folder, "passwords")
    try:
        old = path.read_text() if path.exists() else ""
        if (new := projected(old, accounts)) != old:
            _write(path, new)
    except OSError as error:
        raise Unavailable(f"the broker's file: {error}", "mend DEVICES_BROKER_FOLDER") from None
    return new != old


def tell(pid_file: str) -> str:
    """Have the broker read its file: it cuts off whom it then refuses. Return why that was not to be; empty: it was.

    A file of a process id outlives its process, and the number may be somebody else's by now.
    """
    try:
        pid = int(Path(pid_file).read_text())
        about = Path(f"/proc/{pid}/comm")
        name = about.read_text().strip() if Path("/proc/self").exists() else _BROKER
        if pid <= 0 or name != _BROKER:
            return f"process {pid} of {pid_file} is {name!r} and no broker"
        os.kill(pid, signal.SIGHUP)
    except FileNotFoundError as error:
        return f"no broker runs by {pid_file}: there is no {error.filename}"
    except (OSError, ValueError) as error:
        return f"no broker runs by {pid_file}: {error}"
    return ""


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        if os.geteuid() == 0:
            # A broker that root started is another user by now, the one whom the folder belongs to.
            about = path.parent.stat()
            os.fchown(file.fileno(), about.st_uid, about.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)

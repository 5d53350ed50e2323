"""The broker's file of passwords: a projection of the registry, which leaves other accounts alone."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devices import limits
from gateway.web import Unavailable


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


def project(folder: str, pid_file: str, accounts: Mapping[str, str | None], *, tell: bool) -> None:
    """Bring the file up to date, whole or not at all, and have the broker read it: it cuts off whom it then refuses.

    ``tell``: also where nothing changed, for somebody may have died between the two. The rights of devices need no
    change: they are patterns of their names. Raises :class:`Unavailable`: ask again.
    """
    path = Path(folder, "passwords")
    try:
        with _locked(Path(folder)):
            old = path.read_text() if path.exists() else ""
            if (new := projected(old, accounts)) != old:
                _write(path, new)
        if pid_file and (tell or new != old):
            os.kill(int(Path(pid_file).read_text()), signal.SIGHUP)
    except ProcessLookupError:
        pass  # it reads the file when it starts
    except (OSError, ValueError) as error:
        raise Unavailable(f"the broker was not told: {error}", "mend DEVICES_BROKER_FOLDER and …_PID_FILE") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """As `gateway device-credentials` does: two who write would undo each other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        give_up = time.monotonic() + limits.LOCK_WITHIN
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(limits.LOCK_LOOK)
        yield
    finally:
        os.close(descriptor)


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

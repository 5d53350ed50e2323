"""API keys of servers: 256 random bits each, kept as SHA-256 in a file that is read again when it changes.

A password needs a slow hash because it can be guessed; nobody guesses 256 random bits, however fast the hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway import limits
from gateway.adapters.tokens.secret import read_file
from gateway.core.access import Grant, Principal
from gateway.errors import BadToken, Misconfigured, Refused

PREFIX: Final = "gwk_"
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_LINE: Final = re.compile(r"([a-z][a-z0-9._-]{0,63}) ([0-9a-f]{64})")


class ApiKeys:
    """The keys of one file, lines of ``NAME SHA-256``; several of one name are all good, so that one can be rotated."""

    def __init__(self, text: str = "", where: str = "") -> None:
        """Raises :class:`Misconfigured` for a line that is none."""
        self._known: dict[str, tuple[bytes, Grant]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise Misconfigured(f"{where}:{number} is no API key", "write NAME, a space, and its SHA-256 in hex")
            id = f"api:{match[1]}.{match[2][:8]}"
            self._known[match[2]] = (bytes.fromhex(match[2]), Grant(Principal("service", match[1]), key=id))
        if len(self._known) > limits.API_KEYS:
            raise Misconfigured(f"{where} has more than {limits.API_KEYS} API keys", "remove those of nobody")

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(grant.key for _, grant in self._known.values())

    def verify(self, key: str) -> Grant:
        """Return whose ``key`` it is; raises :class:`BadToken`."""
        digest, found = _digest(key), None
        for known, grant in self._known.values():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = grant
        if found is None:
            raise BadToken("the API key is unknown", "make one with `gateway token --api-key NAME`")
        return found


def load_api_keys(path: Path) -> ApiKeys:
    """Return the keys of the file at ``path``, none where there is no file; raises :class:`Misconfigured`."""
    if not path.exists():
        return ApiKeys()
    data = read_file(path, limits.API_KEYS_BYTES, "API key file", private=True)
    if len(data) > limits.API_KEYS_BYTES:
        raise Misconfigured(f"{path} has more than {limits.API_KEYS_BYTES} bytes", "is it the right file?")
    return ApiKeys(data.decode(errors="replace"), str(path))


def add_api_key(path: Path, name: str) -> str:
    """Return a new key for ``service:NAME``; the file at ``path`` keeps its hash, nothing keeps the key."""
    if not _NAME.fullmatch(name):
        raise Refused(f"{name[:40]!r} is no service's name", "use a-z, 0-9, -, _ and ., at most 64, a letter first")
    key = PREFIX + secrets.token_urlsafe(32)
    _rewrite(path, lambda lines: [*lines, f"{name} {_digest(key).hex()}"])
    return key


def load_api_key(path: Path) -> str:
    """Return the API key that is all of the file at ``path``; raises :class:`Misconfigured`."""
    key = read_file(path, limits.KEY_BYTES, "API key", private=True).decode(errors="replace").strip()
    if not key.startswith(PREFIX) or not key.isprintable() or " " in key:
        raise Misconfigured(f"{path} holds no API key", "make one with `gateway token --api-key NAME`")
    return key


def keep_api_key(keys: Path, name: str, path: Path) -> None:
    """See that the file at ``path`` holds a key of ``service:NAME`` that is among ``keys``; else make one."""
    try:
        load_api_keys(keys).verify(load_api_key(path))
    except (BadToken, Misconfigured):
        text = add_api_key(keys, name) + "\n"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)


def drop_api_keys(path: Path, name: str) -> int:
    """Forget every key of ``service:NAME``; return how many there were."""
    before = after = 0

    def without(lines: list[str]) -> list[str]:
        nonlocal before, after
        kept = [line for line in lines if line.partition(" ")[0] != name]
        before, after = len(lines), len(kept)
        return kept

    _rewrite(path, without)
    return before - after


def _rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two commands at once: the second waits, or it would write over what the first added.
        with open(os.open(path.with_name(f".{path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            load_api_keys(path)  # a file that is no such file is not written over
            lines = path.read_text().splitlines() if path.exists() else []
            text = "".join(f"{line}\n" for line in change(lines))
            ApiKeys(text, str(path))
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
    except OSError as e:
        raise Misconfigured(f"{path} cannot be written: {e.strerror}", "set tokens.api_keys_file") from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()

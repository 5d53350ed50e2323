"""The development secret and other small files of ours: read by their owner alone, made on a first run."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

import jwt

from gateway import limits
from gateway.errors import Misconfigured
from gateway.settings import Settings

#: What PyJWT overlooks: a PEM file that lost a dash, and a JWK.
_PUBLIC: Final = (b"BEGIN ", b"PUBLIC KEY", b"CERTIFICATE", b'"kty"')


def secret(settings: Settings) -> bytes:
    """Return the HS256 secret: of the configured file, else of one in the data folder that a first run makes."""
    if not settings.tokens.development:
        raise Misconfigured("there is no development key", "let the issuer of tokens.keys make a token")
    path = settings.secret_file
    return load_secret(path) if settings.tokens.hs256_secret_file else load_or_create_secret(path)


def load_or_create_secret(path: Path) -> bytes:
    """Return the secret in ``path``, made with mode 600 where there is none; two processes at once agree on one."""
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                # A link appears whole or not at all, and never in place of another's.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
    except OSError as e:
        raise Misconfigured(f"the secret {path} cannot be made: {e.strerror}", "set gateway.data to a folder") from None
    return load_secret(path)


def load_secret(path: Path) -> bytes:
    """Return the secret in ``path`` without a last line break; raises :class:`Misconfigured` where it is none."""
    least, most = limits.SECRET_BYTES
    value = read_file(path, most, "secret", private=True).rstrip(b"\r\n")
    if not least <= len(value) <= most:
        raise Misconfigured(
            f"the secret {path} has {len(value)} bytes", f"use {least} to {most} random ones: openssl rand -hex 32"
        )
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(value)
        public = any(word in value for word in _PUBLIC)
    except jwt.InvalidKeyError:
        public = True
    if public:
        # Who verifies with a public key as if it were a secret lets everybody sign.
        raise Misconfigured(f"the secret {path} is a public key or a certificate", "use random bytes")
    return value


def read_file(path: Path, most: int, noun: str, *, private: bool) -> bytes:
    """Return at most ``most`` bytes of ``path``, and one more where it has more.

    Raises :class:`Misconfigured` where it is no file, and a ``private`` one where others can read it.
    """
    try:
        # Not blocking: a FIFO would otherwise wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise Misconfigured(f"the {noun} {path} is no file", "name a regular file")
            if private and about.st_mode & 0o077:
                raise Misconfigured(f"the {noun} {path} can be read by others", f"run: chmod 600 {path}")
            return file.read(most + 1)
    except OSError as e:
        raise Misconfigured(f"the {noun} {path} cannot be read: {e.strerror}", "name a file that is ours") from None

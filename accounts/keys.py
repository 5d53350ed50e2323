"""The keys that sign access tokens: Ed25519, a file each; the newest signs, and all of them are published."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from accounts.settings import Settings
from gateway.web import Unavailable

_FIRST: Final = "1.pem"


class Key(msgspec.Struct, frozen=True):
    """One key; ``kid`` is its thumbprint (RFC 7638), so that no two keys share one."""

    kid: str
    private: Ed25519PrivateKey
    public: str

    def jwk(self) -> dict[str, str]:
        """Return what may be known of it (RFC 8037)."""
        return {"kty": "OKP", "crv": "Ed25519", "x": self.public, "kid": self.kid, "alg": "EdDSA", "use": "sig"}


def keys(folder: Path) -> list[Key]:
    """Return the keys in ``folder``, in the order of their files' names; the first time one is made.

    Read at each use: a key that was added or removed counts at once, in every process.
    """
    _make(folder)
    return [_read(path) for path in sorted(folder.glob("*.pem"))]


def access_token(settings: Settings, user: str, role: str, principal: str, now: float, life: int) -> str:
    """Return a token for ``user``, ``principal`` to the gateway, that ends ``life`` seconds after ``now``."""
    key = keys(settings.keys)[-1]
    claims: dict[str, Any] = {"iss": settings.issuer, "aud": settings.audience, "sub": user, "role": principal}
    claims |= {"is": role, "iat": int(now), "exp": int(now) + life, "jti": str(uuid.uuid4())}
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"kid": key.kid})


def _read(path: Path) -> Key:
    private = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(private, Ed25519PrivateKey):
        raise Unavailable(f"{path.name} is no Ed25519 key", "take it out of the folder of keys")
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = _text(raw)
    thumb = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'.encode()).digest()
    return Key(_text(thumb), private, public)


def _make(folder: Path) -> None:
    if any(folder.glob("*.pem")):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = folder / f".{uuid.uuid4()}"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made)
    try:
        os.link(draft, folder / _FIRST)  # whole or not at all, and the first of two processes has it
    except FileExistsError:
        pass
    draft.unlink()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

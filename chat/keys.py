"""The key that signs subscription tokens: Ed25519, in one file, its public half for the gateway."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from chat.settings import signing_file
from gateway.web import Unavailable

#: What the gateway expects of the tokens: see `app`.
ISSUER: Final = "chat"
AUDIENCE: Final = "topic-gateway"


def subscription_token(user: str, channel: str, now: float, life: int) -> str:
    """Return a token by which ``user`` may watch ``channel`` until ``life`` seconds after ``now``."""
    key = _private(signing_file())
    claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "channel": channel}
    claims |= {"iat": int(now), "exp": int(now) + life, "jti": str(uuid.uuid4())}
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": public_jwk()["kid"]})


def public_jwk() -> dict[str, str]:
    """Return what may be known of the key (RFC 8037); its ``kid`` is its thumbprint (RFC 7638)."""
    raw = _private(signing_file()).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = _text(raw)
    kid = _text(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}


def _private(path: Path) -> Ed25519PrivateKey:
    """Read at each use: another key counts at once, in every process."""
    if not path.exists():
        _make(path)
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Unavailable(f"{path.name} is no Ed25519 key", "take it away, and one is made")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{uuid.uuid4()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made)
    try:
        os.link(draft, path)  # whole or not at all, and the first of two processes has it
    except FileExistsError:
        pass
    draft.unlink()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

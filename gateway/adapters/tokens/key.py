"""One key that tokens are verified with: what it is, which algorithm is its own, and for whom it may vouch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway import limits
from gateway.adapters.tokens.secret import load_secret, read_file
from gateway.core.payload import check_json
from gateway.errors import BadPayload, Misconfigured

Algorithm: TypeAlias = Literal["EdDSA", "ES256", "RS256", "HS256"]

#: Algorithm -> `kty` of a JWK (RFC 7518, 6.1; RFC 8037, 2).
KTY: Final = {"EdDSA": "OKP", "ES256": "EC", "RS256": "RSA"}


class Vouches(msgspec.Struct, frozen=True):
    """What the operator lets a key say."""

    issuer: str = ""
    audience: str = ""
    required: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("user",)
    #: Filters of the topics that its subscription tokens open.
    opens: tuple[str, ...] = ()


class Key(msgspec.Struct, frozen=True):
    """A key and its one algorithm: what a token names as ``alg`` chooses nothing, it must agree."""

    id: str
    algorithm: Algorithm
    #: A public key of `cryptography`, or the bytes of a secret.
    material: Any
    vouches: Vouches

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.algorithm!r})"  # never the secret

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Say whether this key made ``signature`` of ``data``."""
        verified: bool = jwt.get_algorithm_by_name(self.algorithm).verify(data, self.material, signature)
        return verified


def load_key(path: Path, algorithm: Algorithm) -> Any:
    """Return the key in ``path``: PEM or JWK, or for HS256 a secret; raises :class:`Misconfigured` where it is none."""
    if algorithm == "HS256":
        return load_secret(path)
    data = read_file(path, limits.KEY_BYTES, "key", private=False)
    if len(data) > limits.KEY_BYTES:
        raise Misconfigured(f"the key {path} has more than {limits.KEY_BYTES} bytes", "is it the right file?")
    try:
        if data.lstrip().startswith(b"{"):
            return public_key(msgspec.json.decode(check_json(data)), algorithm)
        return _suits(load_pem_public_key(data), algorithm)
    except (ValueError, BadPayload, UnsupportedAlgorithm) as e:
        # What `cryptography` says quotes the file; a private key by mistake must not reach a log.
        why = f": {e}" if isinstance(e, WrongKey) else ""
        raise Misconfigured(
            f"the key {path} is no public key for {algorithm}{why}", "name a PEM file (BEGIN PUBLIC KEY) or a JWK"
        ) from None


def public_key(jwk: dict[str, Any], algorithm: Algorithm) -> Any:
    """Return the public key of ``jwk`` (RFC 7517); raises :class:`WrongKey`, or ValueError, where it is none."""
    if jwk.get("kty") != KTY.get(algorithm):
        raise WrongKey("it is of another kind")
    if "d" in jwk or "k" in jwk:
        # Who can verify would also be able to sign.
        raise WrongKey("it is a private key, which belongs to the issuer alone")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        raise WrongKey("it is for another use")
    try:
        return _suits(jwt.get_algorithm_by_name(algorithm).from_jwk(jwk), algorithm)
    except (jwt.PyJWTError, TypeError, AttributeError) as e:
        raise WrongKey("it is damaged") from e


class WrongKey(ValueError):
    """A key that is not what its entry says; the text says no more than its kind."""


def _suits(key: object, algorithm: Algorithm) -> object:
    match algorithm:
        case "EdDSA" if isinstance(key, Ed25519PublicKey):
            return key
        case "ES256" if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            return key
        case "RS256" if isinstance(key, RSAPublicKey):
            least, most = limits.RSA_BITS
            if not least <= key.key_size <= most:
                raise WrongKey(f"it has {key.key_size} bits, and {least} to {most} are good")
            return key
    raise WrongKey("it is of another kind")

"""The form of a token (RFC 7515): three parts, a header without rules of its own, claims that stand there once.

PyJWT would also accept a claim that stands there twice, an ``exp`` in quotes, an empty ``sub`` or a megabyte, so it
checks signatures here and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from gateway import limits
from gateway.core.payload import check_json
from gateway.errors import BadPayload, BadToken

REMEDY: Final = "get a new one, for development by `gateway token`"
#: The form of a key's id. A kid is compared and never opened, so a path in it is a mistake or worse.
KEY_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
#: All that may stand in a header. `jku`, `jwk` and `x5u` would let a token bring its own key, `crit` its own rules.
_HEADER: Final = {"alg", "typ", "kid"}


class Form(msgspec.Struct, frozen=True):
    """A token taken apart; nothing of it is believed yet."""

    algorithm: str
    #: Empty where it names no key.
    kid: str
    #: What was signed, and the signature.
    signed: bytes
    signature: bytes
    _claims: str

    def claims(self) -> dict[str, Any]:
        """Return the claims; to be asked when the signature is good. Raises :class:`BadToken`."""
        return _read(self._claims, "claims")


def take_apart(token: str) -> Form:
    """Return the parts of ``token``; raises :class:`BadToken` with what is wrong, never with the token."""
    match = _PARTS.fullmatch(token) if len(token) <= limits.TOKEN_BYTES else None
    if match is None:
        text = "is too long" if len(token) > limits.TOKEN_BYTES else "is not three parts of base64url"
        raise BadToken(f"the token {text}", REMEDY)
    header = _read(match[1], "header")
    algorithm = header.get("alg")
    if unknown := sorted(header.keys() - _HEADER):
        raise BadToken(f"the token's header has {unknown[0][:40]!r}", "leave it out: the key is ours to choose")
    if not isinstance(header.get("typ", "JWT"), str) or header.get("typ", "JWT").upper() not in ("JWT", "AT+JWT"):
        raise BadToken("the token's typ is not JWT", REMEDY)
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and KEY_ID.fullmatch(kid)):
        raise BadToken("the token's kid is no key id", "use letters, digits, -, _ and ., at most 128")
    # What is no text is no algorithm of any key.
    named = algorithm if isinstance(algorithm, str) else ""
    return Form(named, kid or "", f"{match[1]}.{match[2]}".encode(), _bytes(match[3], "signature"), match[2])


def _bytes(part: str, noun: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as e:
        raise BadToken(f"the token cannot be read: its {noun} cannot be read: {e}", REMEDY) from None


def _read(part: str, noun: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(check_json(_bytes(part, noun)))
    except BadPayload as e:
        # Without the remedy of a payload: nobody writes a token by hand.
        raise BadToken(f"the token cannot be read: its {noun} cannot be read: {e.detail}", REMEDY) from None
    if not isinstance(value, dict):
        raise BadToken(f"the token's {noun} is no JSON object", REMEDY)
    return value

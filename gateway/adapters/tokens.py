"""Who a token says its bearer is: HS256 JSON Web Tokens, made for development and read strictly.

PyJWT checks the signature and nothing else. It would also accept a claim that stands there twice, an ``exp`` in quotes,
an empty ``sub`` or a megabyte, so the form of a token and its claims are checked here (RFC 7515, RFC 7519).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec

from gateway import limits
from gateway.core.access import Principal
from gateway.core.payload import check_json
from gateway.errors import BadPayload, BadToken, Misconfigured, Refused, TokenExpired
from gateway.settings import Settings

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
#: All that may stand in a header. `jku`, `jwk` and `x5u` would let a token bring its own key, `crit` its own rules.
_HEADER: Final = {"alg", "typ", "kid"}
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ROLES: Final = ("user", "operator")
#: The last second of the year 9999: what lies beyond is no date but a mistake of unit.
_LAST: Final = 253_402_300_799
_REMEDY: Final = "get a new one, for development by `gateway token`"


class Grant(msgspec.Struct, frozen=True):
    """Who a connection acts as, and until when."""

    principal: Principal
    #: Seconds since 1970; None never ends (nobody's token: a connection without one).
    expires: int | None = None


class Verifier:
    """Reads tokens against the one secret, audience and issuer of the settings; raises :class:`Misconfigured`."""

    def __init__(self, settings: Settings) -> None:
        self._secret = secret(settings)
        self._audience = settings.tokens.audience
        self._issuer = settings.tokens.issuer
        self._signature = jwt.PyJWS(algorithms=["HS256"])

    def verify(self, token: str, now: float) -> Grant:
        """Return whom ``token`` names; raises :class:`BadToken`, or :class:`TokenExpired` from ``exp`` on.

        Required are ``sub`` and ``exp``; ``role`` is ``user`` unless it says ``operator``. Every other claim that is
        not named by RFC 7519 is ignored.
        """
        match = _PARTS.fullmatch(token) if len(token) <= limits.TOKEN_BYTES else None
        if match is None:
            text = "is too long" if len(token) > limits.TOKEN_BYTES else "is not three parts of base64url"
            raise BadToken(f"the token {text}", _REMEDY)
        _check_header(_read(match[1], "header"))
        try:
            self._signature.decode(token, self._secret, algorithms=["HS256"])
        except jwt.PyJWTError:
            raise BadToken("the token was not signed with our secret", _REMEDY) from None
        claims = _read(match[2], "claims")
        self._check_audience(claims)
        return _grant(claims, now)

    def _check_audience(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud", [])
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
            raise BadToken("the token's aud is neither a text nor a list of texts", _REMEDY)
        if self._audience and self._audience not in audiences:
            raise BadToken(f"the token is not for {self._audience!r}", "ask its issuer for that aud")
        if audiences and not self._audience:
            # RFC 7519, 4.1.3: who finds an aud and is not in it must reject. Unset, nobody here is in any.
            raise BadToken("the token has an aud and this gateway has none", "set tokens.audience, or leave aud out")
        if self._issuer and claims.get("iss") != self._issuer:
            raise BadToken(f"the token is not from {self._issuer!r}", _REMEDY)


def issue(
    secret: bytes, principal: Principal, seconds: int, now: float, *, audience: str = "", issuer: str = ""
) -> str:
    """Return a token for a user or an operator that ends ``seconds`` after ``now``.

    Raises :class:`Refused` for any other principal, and for a life that is not 1 to ``limits.TOKEN_LIFE`` seconds.
    """
    if principal.kind not in _ROLES:
        raise Refused(f"{principal} gets no token here", "tokens name a user or an operator")
    if not 0 < seconds <= limits.TOKEN_LIFE:
        raise Refused(f"a token cannot last {seconds} seconds", f"use 1 to {limits.TOKEN_LIFE}")
    if fault := _subject_fault(principal.name):
        raise Refused(f"the name {principal.name[:40]!r} {fault}", "choose another name")
    claims: dict[str, object] = {"sub": principal.name, "role": principal.kind}
    claims |= {"iat": int(now), "exp": int(now) + seconds}
    claims |= {name: value for name, value in (("aud", audience), ("iss", issuer)) if value}
    return jwt.encode(claims, secret, algorithm="HS256")


def secret(settings: Settings) -> bytes:
    """Return the HS256 secret: of the configured file, else of one in the data folder that a first run makes."""
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
    try:
        # Not blocking: a FIFO would otherwise wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise Misconfigured(f"the secret {path} is no file", "name a file with at least 32 random bytes")
            if about.st_mode & 0o077:
                raise Misconfigured(f"the secret {path} can be read by others", f"run: chmod 600 {path}")
            value = file.read(most + 1).rstrip(b"\r\n")
    except OSError as e:
        raise Misconfigured(f"the secret {path} cannot be read: {e.strerror}", "name a file that is ours") from None
    if not least <= len(value) <= most:
        raise Misconfigured(
            f"the secret {path} has {len(value)} bytes", f"use {least} to {most} random ones: openssl rand -hex 32"
        )
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(value)
    except jwt.InvalidKeyError:
        # Who verifies with a public key as if it were a secret lets everybody sign.
        raise Misconfigured(f"the secret {path} is a public key or a certificate", "use random bytes") from None
    return value


def _read(part: str, noun: str) -> dict[str, Any]:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = msgspec.json.decode(check_json(data))
    except (binascii.Error, BadPayload) as e:
        # Without the remedy of a payload: nobody writes a token by hand.
        why = e.detail if isinstance(e, BadPayload) else str(e)
        raise BadToken(f"the token cannot be read: its {noun} cannot be read: {why}", _REMEDY) from None
    if not isinstance(value, dict):
        raise BadToken(f"the token's {noun} is no JSON object", _REMEDY)
    return value


def _check_header(header: dict[str, Any]) -> None:
    if header.get("alg") != "HS256":
        raise BadToken("the token's alg is not HS256", "sign it with HS256 and the gateway's secret")
    if unknown := sorted(header.keys() - _HEADER):
        raise BadToken(f"the token's header has {unknown[0][:40]!r}", "leave it out: the key is ours to choose")
    if not isinstance(header.get("typ", "JWT"), str) or header.get("typ", "JWT").upper() not in ("JWT", "AT+JWT"):
        raise BadToken("the token's typ is not JWT", _REMEDY)
    kid = header.get("kid", "x")
    if not isinstance(kid, str) or not _KEY_ID.fullmatch(kid):
        raise BadToken("the token's kid is no key id", "use letters, digits, - and _, at most 64")


def _grant(claims: dict[str, Any], now: float) -> Grant:
    subject, role = claims.get("sub"), claims.get("role", "user")
    if not isinstance(subject, str):
        raise BadToken("the token's sub is absent or no text", "name the user in sub, as a text")
    if fault := _subject_fault(subject):
        raise BadToken(f"the token's sub {fault}", "choose another sub")
    if role not in _ROLES:
        raise BadToken("the token's role is unknown", "use user or operator, or leave it out")
    expires = _date(claims, "exp")
    if expires is None:
        raise BadToken("the token has no exp", "tokens here end: set exp")
    for name in ("nbf", "iat"):
        date = _date(claims, name)
        if date is not None and date > now + limits.CLOCK_LEEWAY:
            raise BadToken(f"the token's {name} lies in the future", "set the clock of its issuer, or ours")
    if expires <= now:
        raise TokenExpired("the token's time is over", _REMEDY)
    return Grant(Principal(role, subject), expires)


def _date(claims: dict[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    # A bool is an int to Python: `exp: true` would be the year 1970, `nbf: true` always past.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        raise BadToken(f"the token's {name} is no time in seconds since 1970", "write it as a number")
    return int(value)


def _subject_fault(subject: str) -> str:
    """Say what keeps ``subject`` from being a principal's name, a topic level and part of a log's key, if anything."""
    if not subject or subject != subject.strip():
        return "is empty, or begins or ends with a space"
    try:
        size = len(subject.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate"
    if size > limits.SUBJECT_BYTES:
        return f"is longer than {limits.SUBJECT_BYTES} bytes"
    if not subject.isprintable():
        return "has a control character"
    if not {"/", "+", "#"}.isdisjoint(subject):
        return "has / or + or #, which no topic level can hold"
    return ""

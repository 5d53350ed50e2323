"""Fuzz targets of all that says who somebody is: tokens, their claims and headers, keys, API keys, tickets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.requests import Request

from gateway import limits
from gateway.adapters.http_credentials import bearer, ticket
from gateway.adapters.log.tickets import Ticket, read_ticket
from gateway.adapters.tokens import Grant, Verifier, issue
from gateway.adapters.tokens.api_keys import ApiKeys
from gateway.adapters.tokens.claims import subject_fault
from gateway.adapters.tokens.form import KEY_ID
from gateway.adapters.tokens.jwks import KeySet
from gateway.adapters.tokens.key import Algorithm, Vouches, load_key
from gateway.core.access import Principal
from gateway.errors import BadToken, Misconfigured, Unavailable
from gateway.settings import KeyTable, Settings, TokensTable
from tests.fuzz.target import Broken, Target

NOW = 1_800_000_000
ALICE = Principal("user", "alice")
CHANNEL = "rooms/1/messages"
_SECRET = b"a secret of the fuzz targets, long enough"


def _verifier() -> Verifier:
    """Of a development key, of a key that vouches for devices, and of one that opens topics."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secret"
        file.touch(mode=0o600)
        file.write_bytes(_SECRET)
        more: dict[str, Any] = {"algorithm": "HS256", "file": str(file)}
        keys = (KeyTable(id="fleet", roles=("device",), **more), KeyTable(id="rooms", opens=("rooms/#",), **more))
        found = Verifier(Settings(tokens=TokensTable(hs256_secret_file=str(file), keys=keys)))
    found.ring.look = lambda: None  # type: ignore[method-assign]  # the file of the secret is gone again
    return found


_VERIFIER = _verifier()


def _signed(header: bytes, claims: bytes) -> str:
    """A token of any header and any claims, which our key did sign."""
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims))
    signature = base64.urlsafe_b64encode(hmac.digest(_SECRET, parts, hashlib.sha256)).rstrip(b"=")
    return (parts + b"." + signature).decode()


def _as_connection(token: str) -> Grant | None:
    try:
        return _VERIFIER.verify(token, NOW)
    except BadToken:
        return None


def _tampered(data: bytes) -> None:
    text = data.decode("latin-1")
    if (came := _as_connection(text)) is not None and came.principal != ALICE:
        raise Broken(f"a token that nobody signed is {came.principal}")
    permit = _VERIFIER.verify_subscription(text, NOW)
    if (permit.grant.principal, permit.channel) != (ALICE, CHANNEL):
        raise Broken(f"a token that nobody signed is {permit}")
    if came is not None:
        raise Broken("one token for a connection and for a subscription")


def _claims(data: bytes) -> None:
    """Whatever a trusted issuer writes into a token by mistake."""
    for kid, roles in (("fleet", ("device",)), ("rooms", ("user",))):
        token = _signed(b'{"alg":"HS256","kid":"%s"}' % kid.encode(), data)
        came = _as_connection(token)
        try:
            permit = _VERIFIER.verify_subscription(token, NOW)
        except BadToken:
            permit = None
        if came is not None and permit is not None:
            raise Broken("one token for a connection and for a subscription")
        grant = came or (permit.grant if permit is not None else None)
        if grant is None:
            continue
        said = json.loads(data)
        if grant.principal != Principal(said.get("role", "user"), said["sub"]) or grant.principal.kind not in roles:
            raise Broken(f"{said} is {grant}")
        if subject_fault(grant.principal.name) or grant.expires is None or grant.expires <= NOW:
            raise Broken(f"{said} is {grant}")
        if permit is not None and permit.opens and not (kid == "rooms" and permit.channel.startswith("rooms")):
            raise Broken(f"{said} opens {permit.channel}")


def _headers(data: bytes) -> None:
    token = _signed(data, b'{"sub":"alice","exp":1900000000}')
    if _VERIFIER.verify(token, NOW).principal == ALICE and json.loads(data)["alg"] != "HS256":
        raise Broken("an algorithm that no key of ours is for")


def _key_files(data: bytes) -> None:
    wrong = None
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for algorithm in get_args(Algorithm):
            try:
                key = load_key(Path(file.name), algorithm)
            except Misconfigured as error:
                wrong = error
                continue
            if hasattr(key, "private_bytes"):
                raise Broken("who can verify can also sign")
            if isinstance(key, bytes) and (b"BEGIN PUBLIC" in key or b'"kty"' in key):
                raise Broken("a public key is taken for a secret")
    if wrong is not None:
        # What it quotes of the file may be a secret.
        if any(len(line) > 8 and line.decode(errors="replace") in str(wrong) for line in data.split(b"\n")):
            raise Broken("the error has a line of the file")
        raise wrong


def _key_sets(data: bytes) -> None:
    if len(data) > limits.JWKS_BYTES:
        raise Unavailable("too long")  # as the fetch says
    for algorithm in ("EdDSA", "ES256", "RS256"):
        found = KeySet("idp", "https://id.example.org/keys", algorithm, Vouches())._read(data)
        for id, key in found.items():
            if not KEY_ID.fullmatch(id) or key.algorithm != algorithm or hasattr(key.material, "private_bytes"):
                raise Broken(f"{id!r} is a key of the set")
            if key.signed(b"data", b"signature"):
                raise Broken("any signature is good")


def _api_keys(data: bytes) -> None:
    text = data.decode(errors="replace")
    found = ApiKeys(text, "keys")
    for line in found.ids:
        if not line.startswith("api:"):
            raise Broken(f"{line} is a key")
    found.verify(text)
    raise Broken("a file of hashes opens itself")


def _tickets(data: bytes) -> None:
    found = read_ticket(data)
    if not isinstance(found.grant.principal.kind, str):
        raise Broken(f"a ticket of {found.grant}")


def _requests(data: bytes) -> None:
    query, _, rest = data.partition(b"\n")
    rows = [line.partition(b":") for line in rest.split(b"\n")]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in rows]
    request = Request({"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": headers})
    found = bearer(request)
    if found and len([name for name, _ in headers if name in (b"authorization", b"x-api-key")]) != 1:
        raise Broken("who it is from is said twice, or nowhere")
    if "ticket" in request.query_params and (ticket(request), found)[1]:
        raise Broken("a ticket and a token")


def _public(private: Any) -> bytes:
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


_ED, _EC = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
_JWKS = [
    OKPAlgorithm.to_jwk(_ED.public_key(), as_dict=True),
    ECAlgorithm.to_jwk(_EC.public_key(), as_dict=True),
    RSAAlgorithm.to_jwk(_RSA.public_key(), as_dict=True),
]
_PRIVATE = OKPAlgorithm.to_jwk(_ED, as_dict=True)


def _encoded(*parts: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(part).encode() for part in parts)


_PERMIT = issue(_SECRET, ALICE, 3600, NOW, channel=CHANNEL)
_CONNECTION = issue(_SECRET, ALICE, 3600, NOW)

DOORS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "subscription tokens": (_tampered, (_PERMIT.encode(), _CONNECTION.encode())),
    "claims": (
        _claims,
        _encoded(
            {"sub": "alice", "exp": 1_900_000_000, "jti": "1", "iat": NOW, "channel": CHANNEL},
            {"sub": "pump-7", "role": "device", "exp": 1_800_000_100, "nbf": NOW},
            {"sub": "alice", "exp": "1900000000", "aud": ["a", 1], "channel": ["rooms/1"]},
            {"sub": "user:\ud800", "exp": 1e400, "channel": "rooms/+"},
        ),
    ),
    "token headers": (
        _headers,
        _encoded({"alg": "HS256", "typ": "JWT"}, {"alg": "none"}, {"alg": ["HS256"], "kid": "rooms"}, {"alg": "RS256"}),
    ),
    "key files": (
        _key_files,
        (
            _public(_ED),
            _public(_EC),
            _public(_RSA),
            _ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            *_encoded(*_JWKS, _PRIVATE),
        ),
    ),
    "key sets": (
        _key_sets,
        _encoded(
            {"keys": [{"kid": "1", **_JWKS[0]}, {"kid": "2", **_JWKS[1]}, {"kid": "3", **_JWKS[2]}]},
            {"keys": [_JWKS[1]]},
            {"keys": [{"kid": "4", **_PRIVATE}, {"kid": 5, "kty": "OKP", "crv": "Ed25519", "x": 7}, None]},
            {"keys": [{"kid": "6", "kty": "RSA", "n": "AQ", "e": "AQAB"}, {"kid": "7", "kty": "EC", "crv": "P-521"}]},
        ),
    ),
    "API keys": (_api_keys, (b"orders " + b"0" * 64, b"# nobody\norders %s\n" % (b"a" * 64), b"gwk_" + b"x" * 43)),
    "tickets": (_tickets, (msgspec.msgpack.encode(Ticket("rooms/#", Grant(ALICE, 9), "a.0:1-2")), b"\x91\x81\xc1")),
    "credentials": (
        _requests,
        (
            b"ticket=abc\nHost: localhost",
            b"\nAuthorization: Bearer a.b.c\nX-API-Key: gwk_x",
            b"a=1&ticket=%00&ticket=b\nauthorization: apikey gwk_y",
        ),
    ),
}
TARGETS = {name: Target(door, seeds) for name, (door, seeds) in DOORS.items()}

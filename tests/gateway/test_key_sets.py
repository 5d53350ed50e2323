"""The key set of an issuer: fetched, kept while it is away, and never asked for more often than we say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway import limits
from gateway.adapters.tokens import Verifier
from gateway.errors import BadToken, Unavailable
from tests.gateway.test_key_ring import NOW, PRIVATE, jwk, row, settings, sign
from tests.servers import eventually


class Issuer:
    """An HTTP server that answers what it is told, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.status, self.body, self.headers = 200, b'{"keys":[]}', b""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def publish(self, *rows: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": rows}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n"
            writer.write(head % (self.status, len(self.body), self.headers) + self.body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    one = Issuer()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def keeping(verifier: Verifier) -> AsyncIterator[None]:
    task = asyncio.create_task(verifier.run(), name="keys")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def of_set(folder: Path, url: str, algorithm: Any = "EdDSA") -> Verifier:
    return Verifier(settings(folder, row("idp", algorithm, jwks=url)))


async def test_a_new_key_of_the_issuer_is_looked_up_at_a_bounded_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = ed25519.Ed25519PrivateKey.generate()
    async with issuer() as idp:
        idp.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="one"), jwk(PRIVATE["RS256"], "RS256", kid="rsa"), {"kty": "X"})
        verifier = of_set(tmp_path, idp.url)
        with pytest.raises(Unavailable):  # nothing was fetched yet: that is not the bearer's fault
            verifier.verify(sign("EdDSA", kid="one"), NOW)
        async with keeping(verifier):
            await eventually(lambda: _takes(verifier, sign("EdDSA", kid="one")))
            asked = idp.asked
            idp.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="one"), jwk(fresh, "EdDSA", kid="two"))
            for n in range(100):
                with pytest.raises(BadToken, match="names no key of ours"):
                    verifier.verify(sign("EdDSA", kid=f"made-up-{n}"), NOW)
            assert idp.asked == asked
            monkeypatch.setattr(limits, "JWKS_PAUSE", 0.0)
            with pytest.raises(Unavailable, match="looked up"):
                verifier.verify(sign("EdDSA", kid="two", key=fresh), NOW)
            await eventually(lambda: _takes(verifier, sign("EdDSA", kid="two", key=fresh)))
            assert idp.asked == asked + 1


def _takes(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token, NOW)
    except (BadToken, Unavailable):
        return False
    return True


@pytest.mark.parametrize("wrong", ["500", "redirect", "too large", "no JSON", "no set", "keys twice", "too many"])
async def test_what_was_known_stays_while_the_issuer_says_nothing_good(wrong: str, tmp_path: Path) -> None:
    async with issuer() as idp, issuer() as elsewhere:
        idp.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="one"))
        elsewhere.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="theirs"))
        verifier = of_set(tmp_path, idp.url)
        (keys,) = verifier.ring.sets
        await keys.fetch()
        assert _takes(verifier, sign("EdDSA", kid="one"))
        many = b",".join([b'{"kid":"x"}'] * (limits.JWKS_KEYS + 1))
        status, headers, body = {
            "500": (500, b"", b""),
            "redirect": (302, b"location: %s\r\n" % elsewhere.url.encode(), b""),
            "too large": (200, b"", b" " * (limits.JWKS_BYTES + 1)),
            "no JSON": (200, b"", b"<html>"),
            "no set": (200, b"", b"[]"),
            "keys twice": (200, b"", b'{"keys":[],"keys":[]}'),
            "too many": (200, b"", b'{"keys":[%s]}' % many),
        }[wrong]
        idp.status, idp.headers, idp.body = status, headers, body
        await keys.fetch()
        assert _takes(verifier, sign("EdDSA", kid="one"))
        assert elsewhere.asked == 0
        # What is good again takes its place: the old key is gone.
        idp.status, idp.headers = 200, b""
        idp.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="two"))
        await keys.fetch()
        assert _takes(verifier, sign("EdDSA", kid="two"))
        assert not _takes(verifier, sign("EdDSA", kid="one"))
    await keys.fetch()  # nobody listens there any more
    assert _takes(verifier, sign("EdDSA", kid="two"))


async def test_a_private_key_in_a_set_is_left_out(tmp_path: Path) -> None:
    async with issuer() as idp:
        idp.publish(jwk(PRIVATE["EdDSA"], "EdDSA", kid="one", d="AAAA"), jwk(PRIVATE["EdDSA"], "EdDSA", kid="../x"))
        verifier = of_set(tmp_path, idp.url)
        await verifier.ring.sets[0].fetch()
        assert list(verifier.ring) == []

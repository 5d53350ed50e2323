"""A key set that its issuer publishes (RFC 7517, 5): fetched, kept, and looked at again for a key that is new."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import httpx
import msgspec

from gateway import limits
from gateway.adapters.tokens.form import KEY_ID
from gateway.adapters.tokens.key import Algorithm, Key, Vouches, public_key
from gateway.core.payload import check_json
from gateway.errors import BadPayload, Unavailable

_log = logging.getLogger("gateway.keys")


class KeySet:
    """The keys of one URL. What was fetched once is kept while the issuer does not answer."""

    def __init__(self, id: str, url: str, algorithm: Algorithm, vouches: Vouches) -> None:
        self.id = id
        self.algorithm = algorithm
        self._url = url
        self._vouches = vouches
        self.keys: dict[str, Key] = {}
        self.changes = 0
        #: Whether it was ever fetched.
        self.known = False
        self._why = ""
        self._tried = float("-inf")
        self._fetching = False
        self._wanted = asyncio.Event()

    def want(self) -> bool:
        """Ask for another look, where the last is not too near; return whether one is under way or due.

        Strangers choose what a token names as its key: they must not choose how often we ask its issuer.
        """
        if time.monotonic() - self._tried >= limits.JWKS_PAUSE:
            self._wanted.set()
        return self._fetching or self._wanted.is_set() or not self.known

    async def run(self) -> None:
        """Fetch, then again from time to time and when a key is wanted: until cancelled."""
        first = limits.JWKS_FIRST_PAUSE
        while True:
            await self.fetch()
            pause = limits.JWKS_EVERY if not self._why else limits.JWKS_PAUSE
            if not self.known:
                pause, first = min(first, pause), first * 2
            try:
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def fetch(self) -> None:
        """Ask once; what goes wrong is logged once a reason, and what was known stays."""
        self._fetching, self._tried = True, time.monotonic()
        self._wanted.clear()
        try:
            found = self._read(await self._asked())
            self.changes += found.keys() != self.keys.keys()
            self.keys = found
        except Unavailable as e:
            if self._why != e.detail:
                _log.warning("keys of %s: %s", self.id, e)
            self._why = e.detail
        else:
            if self._why or not self.known:
                _log.info("keys of %s: %d", self.id, len(self.keys))
            self.known, self._why = True, ""
        finally:
            self._fetching = False

    async def _asked(self) -> bytes:
        data = bytearray()
        try:
            # No redirect, no proxy of the environment: the answer is believed because of the address that was set.
            async with (
                asyncio.timeout(limits.JWKS_WITHIN),
                httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=limits.JWKS_WITHIN) as http,
                http.stream("GET", self._url, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    raise Unavailable(f"the answer was {answer.status_code}", "name the URL that answers 200 itself")
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > limits.JWKS_BYTES:
                        raise Unavailable(f"the answer has more than {limits.JWKS_BYTES} bytes", "is it a key set?")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as e:
            raise Unavailable(f"no answer: {type(e).__name__}", "is the issuer up?") from None
        return bytes(data)

    def _read(self, data: bytes) -> dict[str, Key]:
        try:
            found: Any = msgspec.json.decode(check_json(data))
        except BadPayload:
            found = None
        rows = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(rows, list) or len(rows) > limits.JWKS_KEYS:
            raise Unavailable("the answer is no key set", f"a JWK set of at most {limits.JWKS_KEYS} keys is wanted")
        keys: dict[str, Key] = {}
        for row in rows:
            kid = row.get("kid", self.id if len(rows) == 1 else None) if isinstance(row, dict) else None
            # Others are no mistake: a set holds keys for other uses too (RFC 7517, 5).
            if isinstance(kid, str) and KEY_ID.fullmatch(kid) and kid not in keys:
                try:
                    keys[kid] = Key(kid, self.algorithm, public_key(row, self.algorithm), self._vouches)
                except ValueError:
                    continue
        return keys

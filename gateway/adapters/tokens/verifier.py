"""Who may come in: the bearer of a token that a key of the ring signed, or of an API key."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.adapters.tokens.api_keys import PREFIX
from gateway.adapters.tokens.claims import Permit, granted, permitted
from gateway.adapters.tokens.form import REMEDY, take_apart
from gateway.adapters.tokens.key import Key
from gateway.adapters.tokens.ring import DEVELOPMENT, KeyRing
from gateway.core.access import Grant
from gateway.errors import BadToken
from gateway.settings import Settings


class Verifier:
    """Reads tokens and API keys against the key ring of the settings; raises :class:`Misconfigured`."""

    def __init__(self, settings: Settings) -> None:
        self.ring = KeyRing(settings)

    def verify(self, token: str, now: float) -> Grant:
        """Return whom ``token`` names; raises :class:`BadToken`, or :class:`TokenExpired` from ``exp`` on.

        Raises :class:`Unavailable` while the issuer of a key set is asked for a key that is new.
        """
        self.ring.look()
        if token.startswith(PREFIX):
            return self.ring.api_keys.verify(token)
        claims, key = self._signed(token)
        return granted(claims, key.vouches, key.id, now)

    def verify_subscription(self, token: str, now: float) -> Permit:
        """Return what a subscription token permits; raises as :meth:`verify`."""
        self.ring.look()
        claims, key = self._signed(token)
        return permitted(claims, key.vouches, key.id, now)

    def _signed(self, token: str) -> tuple[dict[str, Any], Key]:
        form = take_apart(token)
        key = self.ring.find(form)
        if not key.signed(form.signed, form.signature):
            whose = "our secret" if key.id == DEVELOPMENT else "the key that it names"
            raise BadToken(f"the token was not signed with {whose}", REMEDY)
        return form.claims(), key

    async def run(self) -> None:
        """Keep the key sets of issuers up to date: until cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self.ring.sets:
                group.create_task(one.run(), name=f"keys of {one.id}")

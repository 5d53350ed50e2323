"""How a service asks another over HTTP: with the shop's API key, by the gateway's address."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache

import httpx
import msgspec

from ecommerce import limits
from ecommerce.settings import settings
from gateway.web import Unavailable


async def ask(method: str, path: str, body: object = None) -> httpx.Response:
    """Return the answer, whatever it says; :class:`Unavailable` where there is none, or none yet: ask again later."""
    content = b"" if body is None else msgspec.json.encode(body)
    return await send(method, path, content, {"authorization": f"Bearer {settings().key}"})


async def send(method: str, path: str, content: bytes, headers: Mapping[str, str]) -> httpx.Response:
    """As :func:`ask`, without the shop's key."""
    try:
        # No proxy of the environment: what is sent is for this address alone.
        async with httpx.AsyncClient(timeout=limits.ASK_WITHIN, trust_env=False, verify=_trusted()) as http:
            answer = await http.request(method, settings().origin + path, content=content, headers=headers)
    except httpx.HTTPError as error:
        raise Unavailable(f"{path}: {type(error).__name__}", "is it up?") from None
    if answer.status_code >= 500 or answer.status_code in (401, 403, 408, 429):
        # Also where the key is not good: that is the operator's to mend, and nothing is lost until then.
        raise Unavailable(f"{path} answered {answer.status_code}", "see what it says")
    return answer


@cache
def _trusted() -> ssl.SSLContext:
    # Made once: it takes longer than asking.
    return ssl.create_default_context()

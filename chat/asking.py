"""How chat asks the gateway's server API: with its own API key."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpx

from chat import limits
from chat.settings import settings
from gateway.web import Unavailable


async def ask(method: str, **params: str) -> dict[str, Any]:
    """Return the ``result``; raises :class:`Unavailable` where there is none, or none yet: ask again later."""
    known = settings()
    headers = {"authorization": f"Bearer {known.api_key}"}
    try:
        # No proxy of the environment: what is sent is for this address alone.
        async with httpx.AsyncClient(timeout=limits.ASK_WITHIN, trust_env=False, verify=_trusted()) as http:
            answer = await http.post(f"{known.origin}/api/{method}", json=params, headers=headers)
    except httpx.HTTPError as error:
        raise Unavailable(f"{method}: {type(error).__name__}", "is the gateway up?") from None
    said = answer.json() if answer.status_code == httpx.codes.OK else {}
    if "result" not in said:
        # Also where the key is not good: that is the operator's to mend, and nothing is lost until then.
        raise Unavailable(f"{method} answered {answer.status_code} {said.get('error', '')}", "see what it says")
    result: dict[str, Any] = said["result"]
    return result


@cache
def _trusted() -> ssl.SSLContext:
    # Made once: it takes longer than asking.
    return ssl.create_default_context()

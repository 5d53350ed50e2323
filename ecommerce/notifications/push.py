"""Short messages and other channels, by apprise: whatever it knows a URL for."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from urllib.parse import quote

import apprise

from ecommerce.notifications.rules import Outcome
from gateway.web import Unavailable


def urls(file: str) -> list[str]:
    """Return the apprise URLs of a file, a line each; they hold secrets, so a file it is."""
    if not file:
        return []
    return [line for line in Path(file).read_text().splitlines() if line.strip() and not line.startswith("#")]


async def push(to: list[str], title: str, text: str, phone: str = "") -> Outcome:
    """Tell all of ``to``, ``{phone}`` in each filled in; raises :class:`Unavailable` where one did not take it."""
    if not to:
        return "unset"
    # In a thread: apprise imports a hundred plug-ins when it is first asked, and most of them wait for their server.
    fault = await asyncio.to_thread(_notify, [url.replace("{phone}", quote(phone)) for url in to], title, text)
    if fault:
        raise Unavailable(fault, "try the URLs of ECOMMERCE_APPRISE_FILE, ECOMMERCE_SMS_FILE by hand: apprise -v URL")
    return "sent"


def _notify(to: list[str], title: str, text: str) -> str:
    # They write numbers and URLs, which hold secrets, into their logs; urllib3 is what apprise speaks HTTP with.
    for name in ("apprise", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    told = apprise.Apprise()
    if not all([told.add(url) for url in to]):
        return "an apprise URL is not understood"
    return "" if told.notify(title=title, body=text) else "a channel of apprise did not take it"

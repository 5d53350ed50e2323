"""A signed message to somebody's URL, which may not lead where only we can go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
from typing import Final

import httpx

from devices import limits
from devices.settings import Channel
from gateway import Rejected

#: IPv4 in IPv6 (RFC 6052): what it leads to is in its last four bytes.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Undelivered(Exception):
    """It did not arrive; it may at another try."""


def open_to_us(address: str) -> bool:
    """Say whether ``address`` is a public one: not this machine, its networks, or a way around saying so."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not inner.is_global:
            return False
    return ip.is_global and not ip.is_multicast


def signature(secret: bytes, id: str, at: int, body: bytes) -> str:
    """Sign as Standard Webhooks do: over id, time in seconds, and body."""
    made = hmac.new(secret, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


async def post(channel: Channel, private: bool, id: str, at: int, body: bytes) -> None:
    """POST ``body``; raises :class:`Undelivered` to try again, and `Rejected` where that would change nothing."""
    try:
        url = httpx.URL(channel.url)
    except httpx.InvalidURL:
        raise Rejected("the URL of the channel is none") from None
    if url.scheme != "https" and not (private and url.scheme == "http"):
        raise Rejected("the URL of the channel is not https")
    port = (443 if url.scheme == "https" else 80) if url.port is None else url.port
    if not 0 < port < 65536:
        raise Rejected(f"the URL of the channel has the port {port}")
    # As it goes over the wire: Python's own reading of other letters is an older one (IDNA 2003), of another name.
    host = url.raw_host.decode()
    try:
        secret = channel.secret
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Undelivered(f"{type(error).__name__}: {error.strerror}") from None
    except UnicodeError:
        raise Rejected("the URL of the channel names no host") from None
    addresses = [str(one[4][0]) for one in found]
    if not secret or not (private or all(open_to_us(one) for one in addresses)):
        raise Rejected("the channel has no secret" if not secret else "the URL leads into a private network")
    headers = {
        "host": url.netloc.decode(),
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(secret, id, at, body),
    }
    # To the address that was judged: a name that leads elsewhere when it is asked again is not asked again.
    to, more = url.copy_with(host=addresses[0]), {"sni_hostname": host}
    try:
        async with httpx.AsyncClient(timeout=limits.ASK_WITHIN, trust_env=False) as http:
            answer = await http.post(to, content=body, headers=headers, extensions=more)
    except httpx.HTTPError as error:
        raise Undelivered(type(error).__name__) from None
    if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
        raise Undelivered(f"it answered {answer.status_code}")
    if not answer.is_success:
        raise Rejected(f"it answered {answer.status_code}")

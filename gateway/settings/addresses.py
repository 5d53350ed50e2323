"""Addresses as an operator writes them: whole, bare, on loopback, and shown without their passwords."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit, urlunsplit

_CREDENTIALS = re.compile(r"://[^/@\s'\"]*@")


def redacted(text: str) -> str:
    """Return ``text`` with the user and password of every URL in it hidden: for logs, messages and tables."""
    return _CREDENTIALS.sub("://***@", text)


def loopback(host: str) -> bool:
    """Say whether a server that binds ``host`` can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bare(url: str) -> bool:
    """Say whether ``url`` names a server and nothing else: no user, no path, no query."""
    parts = urlsplit(url)
    return parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)


def each(url: str) -> list[str]:
    """Return a URL for each of the servers that ``url`` names, with commas between; raises :class:`ValueError`."""
    parts = urlsplit(url)
    account, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{account}{at}{host}")) for host in hosts.split(",")]


def whole(url: str, schemes: tuple[str, ...]) -> bool:
    """Say whether ``url`` has one of ``schemes``, and what that scheme needs."""
    try:
        parts = urlsplit(url)
        port = parts.port  # raises where it is no number
    except ValueError:
        return False
    if parts.scheme == "sqlite":
        # Without a path it would be a database in memory, of one process and one run.
        return "sqlite" in schemes and not parts.netloc and len(parts.path) > 1
    place = parts.path if parts.scheme == "unix" else parts.hostname
    return parts.scheme in schemes and bool(place) and port != 0

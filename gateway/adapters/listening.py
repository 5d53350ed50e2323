"""A listening socket: alone at its address, or one of several processes that share it."""

from __future__ import annotations

import socket
import sys

from gateway import limits
from gateway.errors import Misconfigured


def listen(host: str, port: int, *, share: bool = False) -> socket.socket:
    """Return a listening socket. Its send buffer, which every accepted one inherits, is bounded.

    With ``share``, processes of one user listen there side by side, and the kernel gives each new connection to one of
    them, by a hash of its addresses (socket(7), SO_REUSEPORT). Raises :class:`OSError` where the address is taken, and
    :class:`Misconfigured` where the kernel does not divide connections, or no port is named to share.
    """
    if share and not sys.platform.startswith("linux"):
        # Elsewhere the option exists too, and the last process gets every connection.
        raise Misconfigured("processes share a port on Linux alone", "run one edge, or give each a port")
    if share and not port:
        raise Misconfigured("edge.port = 0 is another port for each process", "name the port that they share")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, for asyncio sets TCP_NODELAY only where it is; without it a small answer takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.SOCKET_SEND_BYTES)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen(4096)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock

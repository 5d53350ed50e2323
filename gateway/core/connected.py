"""Who is connected: what an edge says of one client, who is asked for, and what all edges said as one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from gateway import limits


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose connections: those that meet every field."""

    user: Annotated[
        str,
        msgspec.Meta(max_length=2 * limits.ID_BYTES, description="`user:alice` or `alice`, `device:7`, `anonymous`."),
    ] = ""
    client: Annotated[str, msgspec.Meta(max_length=limits.ID_BYTES, description="The id of one of them.")] = ""
    topic: Annotated[
        str,
        msgspec.Meta(max_length=limits.TOPIC_BYTES, description="They hear this topic; or have this very filter."),
    ] = ""
    slow: Annotated[bool, msgspec.Meta(description="Something waits for them to read it.")] = False
    limit: Annotated[
        int, msgspec.Meta(ge=1, le=limits.CONNECTIONS_MOST, description="The others are counted in `left_out`.")
    ] = limits.CONNECTIONS


class Connection(msgspec.Struct, frozen=True):
    """One client, as its edge sees it. No address, no token, nothing of what it was sent."""

    client: str
    #: ``user:alice``, or ``anonymous``.
    user: str
    #: The edge's name, as ``info`` of the server API has it.
    edge: str
    transport: Literal["websocket", "sse"]
    codec: str
    #: What the client calls itself, and its version; empty where it said nothing.
    sdk: str
    #: Milliseconds since 1970.
    since: int
    subscriptions: int
    #: The first ``limits.CONNECTION_FILTERS`` of them.
    filters: list[str]
    #: Bytes that it has not read yet, beside those in the kernel.
    waiting: int
    #: Milliseconds that it took to answer the last ping; null before that, and for SSE.
    round_trip: int | None = None


class Said(msgspec.Struct, frozen=True):
    """What one edge answers: the first of its connections, and how many there are."""

    connections: list[Connection]
    count: int


class Connected(msgspec.Struct, frozen=True):
    """Who is connected, on every edge that answered: most bytes waiting first, then the oldest."""

    connections: list[Connection]
    #: How many more there are.
    left_out: int
    #: Edges that answered, by name.
    edges: list[str]
    #: Edges that live, or did a moment ago, and said nothing in time: their clients are not here.
    missing: list[str]


def order(waiting: int, client: str) -> tuple[int, str]:
    """Return what connections are sorted by: a client's id begins with the time at which it came."""
    return -waiting, client


def since(client: str) -> int:
    """Return when the client with this id (UUIDv7) came, in milliseconds since 1970."""
    return int(client[:8] + client[9:13], 16)


def first(filters: Iterable[str]) -> list[str]:
    """Return those of a connection's filters that are told."""
    return sorted(filters)[: limits.CONNECTION_FILTERS]


def together(said: Mapping[str, Said | None], limit: int) -> Connected:
    """Return what edges ``said``, by their names, as one answer of ``limit`` connections; None: nothing."""
    heard = {edge: one for edge, one in said.items() if one is not None}
    rows = sorted(
        (row for one in heard.values() for row in one.connections), key=lambda row: order(row.waiting, row.client)
    )[:limit]
    left_out = sum(one.count for one in heard.values()) - len(rows)
    return Connected(rows, left_out, sorted(heard), sorted(said.keys() - heard.keys()))

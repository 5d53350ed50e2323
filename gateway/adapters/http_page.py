"""Lists over HTTP, a page at a time: ``?after=CURSOR&limit=N`` asks, ``items`` and ``next`` answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from starlette.requests import Request

from gateway import limits
from gateway.errors import Refused

T = TypeVar("T")
Q = TypeVar("Q", bound=msgspec.Struct)


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of a list is asked for. A struct of yours that inherits it adds what else the query may say."""

    after: Annotated[str, msgspec.Meta(max_length=limits.CURSOR, description="`next` of the page before.")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_MOST, description="Items of a page.")] = limits.PAGE


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some of a list, in its order."""

    items: list[T]
    next: Annotated[str | None, msgspec.Meta(description="To be given as `after`; null at the end.")]

    @classmethod
    def of(cls, found: Sequence[T], asked: Listing, after: Callable[[T], str]) -> Page[T]:
        """Return what was ``asked`` for of ``found``: one more than that was looked for, to know whether it ends here.

        ``after`` makes the cursor behind an item: what a list is ordered by, and unlike every other item's.
        """
        items = list(found[: asked.limit])
        return cls(items, after(items[-1]) if len(found) > len(items) else None)


def query(request: Request, type: type[Q]) -> Q:
    """Return the request's query as ``type``; raises :class:`Refused` (400), also for a name that is there twice."""
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise Refused(f"the query has {name[:40]!r} twice", "say it once")
        if "\0" in value:  # no text to PostgreSQL, and to nobody else of use
            raise Refused(f"the query has a NUL in {name[:40]!r}", "leave it out")
        given[name] = value
    try:
        found = msgspec.convert(given, type, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(f"the query is not what this route takes: {error}", "see /openapi.json") from None
    if any(isinstance(value, float) and not math.isfinite(value) for value in msgspec.structs.astuple(found)):
        raise Refused("the query has a number that is none", "write digits")  # NaN lies within every bound
    return found

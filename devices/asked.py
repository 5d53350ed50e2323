"""What a request asks for: its query as a value, and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from devices.paging import BadCursor, after, cursor
from gateway.web import Refused

T = TypeVar("T")


class BadQuery(Refused):
    """A query that this route does not understand."""

    code, status = "bad_query", 422


def asked(request: Request, kind: type[T]) -> T:
    """Return the query as ``kind``; raises :class:`BadQuery`."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadQuery(f"the query is not what this route takes: {error}", "mend it") from None


def position(text: str, kind: type[T]) -> T:
    """Return the key behind ``?after=``; raises :class:`BadQuery`."""
    try:
        return after(text, kind)
    except BadCursor as error:
        raise BadQuery(f"after: {error}", "leave it out to begin anew") from None


def page(rows: Sequence[Any], limit: int, key: Callable[[Any], Sequence[object]]) -> str | None:
    """Return the cursor of the page behind these, of which there is one where one row more than ``limit`` came."""
    return cursor(key(rows[limit - 1])) if len(rows) > limit else None

"""Where the next page begins: the key of the last row of this one, in a form that a URL takes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class BadCursor(Exception):
    """A cursor that no page of ours named."""


def cursor(key: Sequence[Any]) -> str:
    """Return ``key`` as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).decode().rstrip("=")


def after(text: str, kind: type[T]) -> T:
    """Return the key behind a cursor, as ``kind``; raises :class:`BadCursor`."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise BadCursor("it is not the `next` of a page") from None

"""CBOR from devices, as the JSON that the log keeps; MessagePack the gateway knows by itself."""

from __future__ import annotations

import io
import json

import cbor2


def cbor(payload: bytes) -> bytes:
    """Return ``payload`` (RFC 8949) as compact JSON; raises :class:`ValueError` for what JSON cannot say.

    Refused: bytes, dates and other tags, keys that are not text, NaN and infinities, anything behind the first item.
    """
    stream = io.BytesIO(payload)
    try:
        value = cbor2.load(stream)
        _plain(value)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (cbor2.CBORDecodeError, TypeError, RecursionError, UnicodeError) as error:
        raise ValueError(f"not JSON in CBOR: {error}") from error
    if stream.tell() != len(payload):
        raise ValueError("something stands behind the CBOR item")
    return text.encode()


def _plain(value: object) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is not text")
        for inner in value.values():
            _plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner)
    elif not isinstance(value, str | int | float | None):
        raise TypeError(f"{type(value).__name__} has no place in JSON")

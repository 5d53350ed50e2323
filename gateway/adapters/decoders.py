"""MessagePack from devices, as the JSON that the log keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from gateway.core.ingest import Decode


def message_pack(payload: bytes) -> bytes:
    """Return ``payload`` as compact JSON; raises :class:`ValueError` for what JSON cannot say.

    Refused: binary fields, extension types, keys that are not text, a key twice in one map, NaN and infinities,
    trailing bytes. Depth and size are bounded by the payload's own.
    """
    try:
        value = msgpack.unpackb(payload, object_pairs_hook=_no_twins, strict_map_key=True)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, RecursionError, msgpack.UnpackException, UnicodeError) as e:
        raise ValueError(f"not JSON in MessagePack: {e}") from e
    return text.encode()


def _no_twins(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one map")
    if not all(isinstance(key, str) for key in made):
        raise ValueError("a key is not text")
    return made


#: Understood from every device, whatever application its topic belongs to. An application's own decoder goes first.
BUILT_IN: Final[Mapping[str, Decode]] = {
    "application/msgpack": message_pack,
    "application/x-msgpack": message_pack,
    "application/vnd.msgpack": message_pack,
}

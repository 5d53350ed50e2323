"""What the classes generated from client.proto read in a command, held against what ours does."""

from __future__ import annotations

from typing import Any

import msgspec


def agree(ours: Any, theirs: Any) -> None:
    """Every field of ours says what the generated class says."""
    for name in ours.__struct_fields__:
        mine, other = getattr(ours, name), getattr(theirs, name, None)
        if isinstance(mine, msgspec.Struct):
            assert theirs.HasField(name)
            agree(mine, other)
        elif isinstance(mine, msgspec.Raw):
            # What is absent has the default of the JSON form where that has one.
            assert bytes(mine) == (other or b"null" if bytes(mine) == b"null" else _serialized(other)), name
        elif mine is None:
            assert other is None or not theirs.HasField(name), name
        elif name != "type":  # newer than the SDK's schema
            assert mine == other, name


def _serialized(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes(value.SerializeToString())

"""Quantiles of many values in few bytes: a KLL sketch, as datasketches makes it."""

from __future__ import annotations

from collections.abc import Iterable

from datasketches import kll_doubles_sketch

from devices import limits

RANKS = (0.5, 0.9, 0.99)


def with_values(sketch: bytes, values: Iterable[float]) -> bytes:
    """Return ``sketch`` (none where it is empty) with ``values`` in it."""
    made = kll_doubles_sketch.deserialize(sketch) if sketch else kll_doubles_sketch(limits.SKETCH)
    for value in values:
        made.update(value)
    return bytes(made.serialize())


def quantiles(sketch: bytes) -> tuple[float, float, float]:
    """Return the median, and what 90 and 99 of 100 values are not above, each to ±1.33 % of rank."""
    half, most, nearly = (float(one) for one in kll_doubles_sketch.deserialize(sketch).get_quantiles(list(RANKS), True))
    return half, most, nearly

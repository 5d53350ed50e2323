"""What a fuzz target is: a door as a function of bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway import limits
from gateway.errors import GatewayError


class Broken(AssertionError):
    """A door did what it must not."""


class Target(msgspec.Struct, frozen=True):
    """One door: what is asked of it, and inputs near the good ones to begin with."""

    door: Callable[[bytes], None]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        try:
            self.door(data)
        except GatewayError as error:
            # It says what is wrong; to a stranger, without giving all of it back.
            if not str(error) or (error.whose == "caller" and len(str(error)) > limits.PAYLOAD_BYTES):
                raise Broken(f"an error of {len(str(error))} characters") from None

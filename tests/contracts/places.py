"""Topics whose watchers are known, for the tests of presence and of the server API."""

from __future__ import annotations

from gateway.core.declared import Topic

PLACES = (
    Topic(pattern="lobby/{room}", write=("user", "operator"), read=("anyone",), presence=True),
    Topic(pattern="hidden/{room}", write=("user",), read=("user",)),
    Topic(pattern="own/{user}", write=("operator",), read=("user:{user}", "operator"), presence=True),
)

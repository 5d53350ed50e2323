"""The checker of inbox and outbox finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.faults.inbox_checker import Story, complaints

ALL = [(f"{key}-{n}", key, n) for n in (1, 2, 3) for key in ("a", "b")]
GOOD = Story({id for id, _, _ in ALL}, ALL, ALL)


def test_a_good_story_has_no_complaint() -> None:
    assert complaints(GOOD) == set()


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (lambda s: {"taken": s.taken[:-1], "told": s.told[:-1]}, {"lost"}),
        (lambda s: {"taken": [*s.taken, s.taken[0]]}, {"doubled"}),
        (lambda s: {"told": [*s.told, s.told[2]]}, {"doubled"}),
        (lambda s: {"told": s.told[:-1]}, {"untold"}),
        (lambda s: {"told": [*s.told, ("x-1", "x", 1)]}, {"invented"}),
        (lambda s: {"taken": [s.taken[2], s.taken[0], s.taken[1], *s.taken[3:]]}, {"order"}),
        (lambda s: {"waiting": 1}, {"pending"}),
    ],
)
def test_each_planted_fault_is_found(planted: Callable[[Story], dict[str, object]], said: set[str]) -> None:
    assert complaints(msgspec.structs.replace(GOOD, **planted(GOOD))) == said

"""The checker of the bridge finds each fault that is planted, and nothing in a story without one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.faults.bridge_checker import Reading, Story, complaints, doubles, returns

SENT = [(device, seq) for seq in range(6) for device in ("a", "b")]
STORED = [Reading(device, seq, f"{device}{seq}") for device, seq in SENT]
GOOD = Story(SENT, STORED, STORED)

Plant = Callable[[list[Reading]], list[Reading]]
PLANTED: dict[str, tuple[Plant, str]] = {
    "drop in the middle": (lambda all: [*all[:5], *all[6:]], "lost"),
    "drop the tail": (lambda all: all[:-1], "lost"),
    "phantom": (lambda all: [*all, Reading("a", 99, "x")], "phantom"),
    "another device's": (lambda all: [*all, Reading("c", 1, "x")], "phantom"),
    "swap": (lambda all: [*all[:4], all[6], all[5], all[4], *all[7:]], "order"),
    "double under another id": (lambda all: [*all, Reading("a", 0, "x")], "another id"),
    "reuse an id": (lambda all: [*all[:-1], Reading("b", 5, "a0")], "one id for two"),
}


@pytest.mark.parametrize(("plant", "name"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(plant: Plant, name: str) -> None:
    assert name in complaints(msgspec.structs.replace(GOOD, stored=plant(list(STORED)), seen=()))


SEEN: dict[str, tuple[Plant, str]] = {
    "not shown": (lambda all: all[1:], "seen otherwise"),
    "shown and not stored": (lambda all: [*all, Reading("a", 99, "x")], "seen otherwise"),
    "shown in another order": (lambda all: list(reversed(all)), "seen out of order"),
}


@pytest.mark.parametrize(("plant", "name"), SEEN.values(), ids=SEEN)
def test_a_fault_before_the_watcher_is_found(plant: Plant, name: str) -> None:
    assert name in complaints(msgspec.structs.replace(GOOD, seen=plant(list(STORED))))


def test_nothing_is_found_where_nothing_is() -> None:
    assert complaints(GOOD) == set()
    again = [*STORED, STORED[3]]
    assert (complaints(msgspec.structs.replace(GOOD, stored=again)), doubles(again)) == (set(), 1)
    short = msgspec.structs.replace(GOOD, stored=STORED[:-1], seen=(), forgotten=[("b", 5)])
    assert complaints(short) == set()


def test_a_device_that_is_sent_everything_twice_is_found() -> None:
    twice = [one for reading in STORED for one in (reading, reading)]
    assert returns(twice) == {"a": 6, "b": 6}
    assert returns([*STORED[:8], *STORED[4:]]) == {"a": 1, "b": 1}
    assert complaints(msgspec.structs.replace(GOOD, stored=twice, seen=(), returns=1)) == {"sent again and again"}
    assert complaints(msgspec.structs.replace(GOOD, stored=[*STORED[:8], *STORED[4:]], seen=(), returns=1)) == set()

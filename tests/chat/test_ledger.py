"""The checker finds what is planted for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chat.ledger import Acked, Said, faults


class Book:
    """A room after two people talked, one of whom changed a word and came later."""

    def __init__(self) -> None:
        self.acked = [
            Acked("tea", "ann", "a1", "hello", 2),
            Acked("tea", "bob", "b1", "hi", 3),
            Acked("tea", "ann", "a2", "teh end", 4),
        ]
        self.past: list[Said] = [
            {"seq": 1, "kind": "joined", "author": "ann"},
            {"seq": 2, "kind": "message", "author": "ann", "id": "a1", "text": "hello"},
            {"seq": 3, "kind": "message", "author": "bob", "id": "b1", "text": "hi"},
            {"seq": 4, "kind": "message", "author": "ann", "id": "a2", "text": "the end", "edited": 5},
            {"seq": 5, "kind": "edited", "author": "ann", "id": "a3", "of": 4, "text": "the end"},
            {"seq": 6, "kind": "message", "author": "bob", "id": "b2", "text": "was it there?"},
        ]
        self.seen = [dict(entry) for entry in self.past[1:]]
        self.seen[2] = {"seq": 4, "kind": "message", "author": "ann", "id": "a2", "text": "teh end"}

    def faults(self) -> list[str]:
        return faults(self.acked, {"tea": self.past}, {("tea", "bob"): self.seen}, unsure={"b2"})

    def loses(self, n: int) -> None:
        """Nobody has it, and no number is missing: as if it had never been written."""
        for entries in (self.past, self.seen):
            entries[:] = [one for one in entries if one["seq"] != n]
            for one in entries:
                one["seq"] -= one["seq"] > n

    def doubles(self, n: int) -> None:
        for entries in (self.past, self.seen):
            entries.append(dict(self.past[n - 1], seq=7))


def test_a_good_room_is_good() -> None:
    assert Book().faults() == []


PLANTED: dict[str, Callable[[Book], object]] = {
    "'b1' of bob, acknowledged as 3, is there 0 times": lambda b: b.loses(3),
    "'b1' of bob, acknowledged as 3, is there 2 times": lambda b: b.doubles(3),
    "'b2' of bob is there 2 times": lambda b: b.doubles(6),
    "the numbers are 1 to 6, 2 then 4": lambda b: b.past.pop(2),
    "acknowledged as 2, is not at that number": lambda b: b.past[1].update(id="b1", author="bob"),
    "says 'HELLO', and 'hello' was sent": lambda b: b.past[1].update(text="HELLO"),
    "has number 2, and was sent after 4": lambda b: b.acked.insert(0, b.acked.pop()),
    "'zz' of eve is there, and nobody sent it": lambda b: b.past[5].update(author="eve", id="zz"),
    "as bob sees it: the numbers are 2 to 6, 3 then 5": lambda b: b.seen.pop(2),
    "as bob sees it: the numbers are 2 to 6, 3 then 3": lambda b: b.seen.insert(2, b.seen[1]),
    "as bob sees it: the numbers are 3 to 6, 3 then 2": lambda b: b.seen.insert(0, b.seen.pop(1)),
    "as bob sees it: the numbers are 2 to 5, and the room ends at 6": lambda b: b.seen.pop(),
    "as bob sees it: the numbers are none": lambda b: b.seen.clear(),
    "as bob sees it: number 3 says 'ho', and in the history 'hi'": lambda b: b.seen[1].update(text="ho"),
    "as bob sees it: number 3 is ('message', 'eve', 'b1')": lambda b: b.seen[1].update(author="eve"),
}


@pytest.mark.parametrize("told", PLANTED)
def test_what_is_planted_is_found(told: str) -> None:
    book = Book()
    PLANTED[told](book)
    assert any(told in fault for fault in book.faults()), book.faults()

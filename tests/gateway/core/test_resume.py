"""Epochs and positions: who may go on where he stood, and what a client may claim."""

import pytest

from gateway.core.event import Position
from gateway.core.resume import Epochs, parse

#: Epoch 3 began at offset 1; a failover lost what stood from 101 on, another from 151 on.
EPOCHS = Epochs({3: 1, 5: 101, 9: 151})


@pytest.mark.parametrize(
    ("epoch", "offset", "continuous"),
    [
        (3, 0, True),
        (3, 100, True),  # he saw all that was kept
        (3, 101, False),  # he saw what was lost
        (3, 500, False),
        (5, 101, True),
        (5, 150, True),
        (5, 151, False),
        (9, 151, True),
        (9, 10**9, True),
        (4, 50, False),  # an epoch that never was
        (99, 1, False),
        (9, -1, False),
    ],
)
def test_a_reader_may_go_on_if_the_log_agrees_with_what_he_saw(epoch: int, offset: int, continuous: bool) -> None:
    assert EPOCHS.continuous(Position(epoch, offset)) is continuous


def test_the_order_of_the_epochs_in_the_map_does_not_matter() -> None:
    assert not Epochs({9: 151, 3: 1, 5: 101}).continuous(Position(3, 120))


def test_the_newest_epoch_is_the_current_one() -> None:
    assert EPOCHS.current == 9
    assert Epochs({}).current == 0


@pytest.mark.parametrize(
    ("epoch", "offset", "at"),
    [
        ("5", 7, Position(5, 7)),
        ("5", 0, Position(5, 0)),
        ("18446744073709551615", 2**63 - 1, Position(2**64 - 1, 2**63 - 1)),
        ("", 7, None),
        ("-5", 7, None),
        ("5 ", 7, None),
        ("five", 7, None),
        ("٥", 7, None),  # a digit, but not one of ours
        ("²", 7, None),
        ("1" * 21, 7, None),
        ("5", -1, None),
        ("5", 2**63, None),
    ],
)
def test_a_claimed_position_is_ours_or_nothing(epoch: str, offset: int, at: Position | None) -> None:
    assert parse(epoch, offset) == at


def test_an_offset_stands_in_the_epoch_that_gave_it() -> None:
    epochs = Epochs({10: 1, 20: 6})
    assert [epochs.at(offset) for offset in (1, 5, 6, 99)] == [
        Position(10, 1),
        Position(10, 5),
        Position(20, 6),
        Position(20, 99),
    ]
    assert epochs.at(0) == Position(10, 0)
    assert Epochs({}).at(7) == Position(0, 7)

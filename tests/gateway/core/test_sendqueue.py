"""Tests of core/sendqueue: bounded, in order, and never later."""

from __future__ import annotations

import pytest

from gateway import limits
from gateway.core.sendqueue import SendQueue


def test_everything_leaves_as_one_block_in_order() -> None:
    queue = SendQueue()
    assert all(queue.offer(frame) for frame in (b"a", b"bc", b"d"))
    assert (len(queue), queue.size) == (3, 4)
    assert queue.take() == b"abcd"
    assert (len(queue), queue.size, queue.take()) == (0, 0, b"")


def test_one_frame_is_not_copied() -> None:
    queue, frame = SendQueue(), b"shared by a thousand clients"
    queue.offer(frame)
    assert queue.take() is frame


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (limits.SEND_BYTES - 1, 1, True),
        (limits.SEND_BYTES - 1, 2, False),
        (limits.SEND_BYTES, 0, True),
        (limits.SEND_BYTES * 2, 1, False),
    ],
)
def test_bytes_are_bounded(first: int, second: int, taken: bool) -> None:
    queue = SendQueue()
    assert queue.offer(b"x" * first), "an empty queue takes any frame"
    assert queue.offer(b"x" * second) is taken
    assert queue.size == first + second * taken, "a refused frame leaves no trace"


def test_frames_are_bounded() -> None:
    queue = SendQueue()
    assert all(queue.offer(b"x") for _ in range(limits.SEND_FRAMES))
    assert not queue.offer(b"x")
    assert len(queue.take()) == limits.SEND_FRAMES
    assert queue.offer(b"x"), "there is room again"

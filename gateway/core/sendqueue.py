"""What waits to be written to one client: bounded, and everything in it leaves in one write."""

from __future__ import annotations

from gateway import limits


class SendQueue:
    """Frames in order. ``offer`` answers yes or no, never later: a client that cannot keep up is closed as slow."""

    __slots__ = ("_frames", "_size")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    def offer(self, frame: bytes) -> bool:
        """Take ``frame``, or return False at ``limits.SEND_FRAMES`` or ``limits.SEND_BYTES``.

        An empty queue takes any frame: a recovery larger than the bound would otherwise never leave.
        """
        size = self._size + len(frame)
        if self._frames and (size > limits.SEND_BYTES or len(self._frames) >= limits.SEND_FRAMES):
            return False
        self._size = size
        self._frames.append(frame)
        return True

    def take(self) -> bytes:
        """Return everything that waits, as one block, and forget it."""
        frames = self._frames
        block = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        self._size = 0
        return block

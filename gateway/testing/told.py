"""What a failed test is told: what came, what was given up, what handlers raised, and how far each service is."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence

from gateway import limits
from gateway.adapters.log import DeadLetter


class DidNotHappen(AssertionError):
    """What a test waited for did not come in time; says what did, and what may be in the way."""


def listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield ``title`` and the newest of ``lines``, or that there are none."""
    more = f", the last {limits.TEST_LINES} of {len(lines)}" if len(lines) > limits.TEST_LINES else ""
    yield f"{title}{more}:" if lines else f"{title}: nothing"
    yield from (f"  {line}" for line in lines[-limits.TEST_LINES :])


def event_line(topic: str, data: bytes) -> str:
    """Return an event as one line."""
    text = data[: limits.TEST_CHARACTERS * 4].decode(errors="backslashreplace").replace("\n", "\\n")
    return f"{topic} {text if len(text) <= limits.TEST_CHARACTERS else text[: limits.TEST_CHARACTERS] + '…'}"


def letter_line(letter: DeadLetter) -> str:
    """Return a dead letter as one line, with where its error was raised."""
    places = [line.strip() for line in letter.traceback.splitlines() if line.lstrip().startswith('File "')]
    at = f" ({places[-1]})" if places else ""
    who = f"given up by {letter.group}" if letter.group else "refused"
    return f"{event_line(letter.topic, letter.data)}: {who}, {letter.reason}: {letter.error}{at}"


def error_line(error: BaseException) -> str:
    """Return what was raised as one line, with where."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"

"""A secret in a file: nobody else may read it at any moment, and who reads it reads all of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_secret(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def kept(path: Path, make: Callable[[], str]) -> str:
    """Return what is in ``path``; ``make`` it where nothing is."""
    if not path.exists():
        write_secret(path, make())
    return path.read_text()

"""Who types a command, as the audit log names him."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """Return the name of this process's user, or its number: a container's user has often no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}, cli"

"""What an operator sets for chat: variables of the environment, read when they are needed."""

from __future__ import annotations

import os
from pathlib import Path


def signing_file() -> Path:
    """Return where the key is that signs subscription tokens: Ed25519, PEM; made by the first who needs it."""
    data = Path(os.environ.get("GATEWAY_DATA") or ".gateway")
    return Path(os.environ.get("CHAT_SIGNING_FILE") or data / "chat-signing.pem")

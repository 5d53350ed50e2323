"""What an operator sets for chat: variables of the environment, read when they are needed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gateway.web import Unavailable


class Settings(msgspec.Struct, frozen=True):
    """See README.md."""

    #: The gateway's address, as this service reaches it.
    origin: str
    #: File of the API key of ``service:chat``.
    api_key_file: Path
    #: The key that signs subscription tokens: Ed25519, PEM; made by the first who needs it.
    signing_file: Path

    @property
    def api_key(self) -> str:
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            raise Unavailable(f"no API key: {error.strerror}", f"write one to {self.api_key_file}") from None


def settings() -> Settings:
    said, data = os.environ, Path(os.environ.get("GATEWAY_DATA") or ".gateway")
    return Settings(
        said.get("CHAT_ORIGIN") or "http://127.0.0.1:8080",
        Path(said.get("CHAT_API_KEY_FILE") or data / "chat.key"),
        Path(said.get("CHAT_SIGNING_FILE") or data / "chat-signing.pem"),
    )

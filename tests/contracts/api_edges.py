"""What the edges of the server API's tests declare, and who asks them."""

from __future__ import annotations

from pathlib import Path

from gateway.adapters.tokens import add_api_key
from gateway.core.declared import Topic
from gateway.settings import Settings, TokensTable
from tests.contracts.places import PLACES
from tests.gateways import SECRET

LOBBY = "lobby/1"
TOPICS = (
    *(Topic(pattern=t.pattern, write=(*t.write, "service"), read=(*t.read, "service"), presence=t.presence)
      for t in PLACES[:1]),
    Topic(pattern="files/{n}", read=("service",), write=("service",), payload="bytes"),
    Topic(pattern="hidden/{room}", write=("user",), read=("user",)),
    Topic(pattern="passing/{n}", write=("service",), read=("anyone",), ephemeral=True),
)  # fmt: skip


def with_key(tmp_path: Path) -> tuple[Settings, str]:
    """Settings of a gateway, and the API key of its ``service:backend``."""
    secret, keys = tmp_path / "secret", tmp_path / "keys"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    key = add_api_key(keys, "backend")
    return Settings(tokens=TokensTable(hs256_secret_file=str(secret), api_keys_file=str(keys))), key

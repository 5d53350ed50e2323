"""What an operator sets for accounts: variables of the environment, read when they are needed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """See README.md."""

    #: Folder of the signing keys.
    keys: Path
    issuer: str
    audience: str
    #: Memory of one password hash, MiB (RFC 9106: 64, where there is no more).
    hash_mib: int


def settings() -> Settings:
    return Settings(
        Path(os.environ.get("ACCOUNTS_KEYS") or Path(os.environ.get("GATEWAY_DATA") or ".gateway") / "accounts-keys"),
        os.environ.get("ACCOUNTS_ISSUER") or "accounts",
        os.environ.get("ACCOUNTS_AUDIENCE") or "topic-gateway",
        int(os.environ.get("ACCOUNTS_HASH_MIB") or 64),
    )

"""Passwords: argon2id (RFC 9106), so that whoever steals the table still has to guess each of them slowly."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from accounts import limits
from accounts.settings import settings


@cache
def _of(mib: int) -> PasswordHasher:
    # RFC 9106, second recommended option: t=3, m=64 MiB, p=4.
    return PasswordHasher(time_cost=3, memory_cost=mib * 1024, parallelism=4)


def _hasher() -> PasswordHasher:
    return _of(settings().hash_mib)


@cache
def _nobody() -> str:
    """The hash that is asked where there is no such account: a wrong name takes as long as a wrong password."""
    return _hasher().hash("nobody's password")


class Passwords:
    """Hashed in threads, ``limits.HASHES`` at a time."""

    def __init__(self) -> None:
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    async def hash(self, password: str) -> str:
        async with self._turn():
            return await asyncio.to_thread(_hasher().hash, password)

    async def fits(self, password: str, hash: str | None) -> bool:
        """Say whether ``hash`` is that of ``password``; None takes its time, and is not."""
        async with self._turn():
            fits = await asyncio.to_thread(_verify, hash or _nobody(), password)
        return fits and bool(hash)

    def _turn(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if loop not in self._turns:
            self._turns = {loop: asyncio.Semaphore(limits.HASHES)}
        return self._turns[loop]


def _verify(hash: str, password: str) -> bool:
    try:
        return _hasher().verify(hash, password)
    except (VerificationError, InvalidHashError):
        return False


PASSWORDS = Passwords()

"""The key ring: every key that tokens may be signed with, by its id; read again when a file of it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway import limits
from gateway.adapters.tokens.api_keys import ApiKeys, load_api_keys
from gateway.adapters.tokens.form import REMEDY, Form
from gateway.adapters.tokens.issued import ROLES
from gateway.adapters.tokens.jwks import KeySet
from gateway.adapters.tokens.key import Key, Vouches, load_key
from gateway.adapters.tokens.secret import load_secret, secret
from gateway.core.topic import check_filter
from gateway.errors import BadToken, BadTopic, Misconfigured, Unavailable
from gateway.settings import KeyTable, Settings

_log = logging.getLogger("gateway.keys")

DEVELOPMENT: Final = "development"


class KeyRing:
    """Raises :class:`Misconfigured` for a file that holds no such key; later on, the key that was there stays."""

    def __init__(self, settings: Settings) -> None:
        tokens = settings.tokens
        self._changes = 0
        self.api_keys = ApiKeys()
        self.sets: list[KeySet] = []
        self._keys: dict[str, Key] = {}
        self._looked = time.monotonic()
        self._files: dict[Path, tuple[Callable[[], None], object]] = {}
        if tokens.development:
            secret(settings)  # makes it where there is none
            ours = Vouches(tokens.issuer, tokens.audience, (), ROLES, _opens(tokens.opens, "tokens"))
            self._watch(settings.secret_file, lambda: self._put_development(settings.secret_file, ours))
        for table in tokens.keys:
            opens = _opens(table.opens, f"tokens.keys {table.id!r}")
            says = Vouches(table.issuer, table.audience, table.needs, table.roles, opens)
            if table.jwks:
                self.sets.append(KeySet(table.id, table.jwks, table.algorithm, says))
            else:
                self._watch(Path(table.file), _put(self, table, says))
        self._watch(settings.api_keys_file, lambda: self._put_api_keys(settings.api_keys_file))

    def __iter__(self) -> Iterator[Key]:
        yield from self._keys.values()
        for one in self.sets:
            yield from one.keys.values()

    @property
    def generation(self) -> int:
        """Another number after each change, so that whoever admitted somebody looks again."""
        return self._changes + sum(one.changes for one in self.sets)

    def find(self, form: Form) -> Key:
        """Return the key that a token names, else the only one it can mean.

        Raises :class:`BadToken` where there is none, and :class:`Unavailable` while its issuer is asked for it.
        """
        known = {key.algorithm for key in self} | {one.algorithm for one in self.sets}
        if form.algorithm not in known:
            raise BadToken(f"the token's alg is not {' or '.join(sorted(known))}", "sign it with a key of ours")
        key = self._keys.get(form.kid) or next((s.keys[form.kid] for s in self.sets if form.kid in s.keys), None)
        if key is None:
            key = self._meant(form)
        if key.algorithm != form.algorithm:
            # The key decides: or a public key, which everybody has, would be taken for a secret.
            raise BadToken(f"the token's alg is not {key.algorithm}, which its key is for", REMEDY)
        return key

    def _meant(self, form: Form) -> Key:
        if form.algorithm == "HS256" and DEVELOPMENT in self._keys:
            return self._keys[DEVELOPMENT]
        if form.kid:
            if any([one.want() for one in self.sets if one.algorithm == form.algorithm]):
                raise Unavailable("the token's key is being looked up", "try again", retry_after=1.0)
            raise BadToken("the token's kid names no key of ours", REMEDY)
        fitting = [key for key in self if key.algorithm == form.algorithm]
        if len(fitting) != 1:
            raise BadToken("the token has no kid, and several keys or none would do", "name the key in kid")
        return fitting[0]

    def has(self, key: str) -> bool:
        """Say whether what ``key`` vouched for is still vouched for: it has not gone from the ring."""
        return not key or any(one.id == key for one in self) or key in self.api_keys.ids

    def look(self) -> None:
        """Read again what has changed, if the last look is ``limits.KEYS_LOOK_EVERY`` ago."""
        if (now := time.monotonic()) - self._looked < limits.KEYS_LOOK_EVERY:
            return
        self._looked = now
        for path, (load, seen) in self._files.items():
            if (signature := _signature(path)) == seen:
                continue
            self._files[path] = (load, signature)
            try:
                load()
            except Misconfigured as e:
                _log.error("what was known stays: %s", e)
                continue
            self._changes += 1
            _log.info("read again: %s", path)

    def _watch(self, path: Path, load: Callable[[], None]) -> None:
        self._files[path] = (load, _signature(path))  # first: what changes meanwhile is seen by the next look
        load()

    def _put_development(self, path: Path, vouches: Vouches) -> None:
        self._keys[DEVELOPMENT] = Key(DEVELOPMENT, "HS256", load_secret(path), vouches)

    def _put_key(self, table: KeyTable, vouches: Vouches) -> None:
        self._keys[table.id] = Key(table.id, table.algorithm, load_key(Path(table.file), table.algorithm), vouches)

    def _put_api_keys(self, path: Path) -> None:
        self.api_keys = load_api_keys(path)


def _opens(filters: tuple[str, ...], where: str) -> tuple[str, ...]:
    try:
        return tuple(map(check_filter, filters))
    except BadTopic as e:
        raise Misconfigured(f"{where}: opens: {e.detail}", "name topics, or filters of topics") from None


def _put(ring: KeyRing, table: KeyTable, vouches: Vouches) -> Callable[[], None]:
    return lambda: ring._put_key(table, vouches)


def _signature(path: Path) -> object:
    """Return what differs between two versions of a file; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino, about.st_mode

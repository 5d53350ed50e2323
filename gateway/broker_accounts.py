"""The accounts of the broker of ``gateway up``: given by hand or made by a registry, and what each may do there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.adapters.device_rights import acl
from gateway.core.declared import Declared
from gateway.core.mapping import TopicMap
from gateway.errors import Misconfigured
from gateway.secret_file import kept, write_secret

#: The bridge, which is no device.
_BRIDGE = "gateway"


class Accounts:
    """What is in the broker's folder. By hand: ``devices.json``, name → password, read when the broker starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def _known(self) -> Path:
        return self._folder / "by-hand.json"

    @property
    def _passwords(self) -> list[str]:
        file = self._folder / "passwords"
        return file.read_text().splitlines() if file.exists() else []

    def by_hand(self) -> dict[str, str]:
        """Return name → password, the bridge among them; raises :class:`Misconfigured` for what is no such file."""
        password = kept(self._folder / "gateway.password", lambda: secrets.token_urlsafe(24)).strip()
        file = self._folder / "devices.json"
        try:
            known = msgspec.json.decode(kept(file, lambda: "{}"), type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise Misconfigured(f"{file}: {error}", "write names and passwords") from None
        return {**known, _BRIDGE: password}

    def of_a_registry(self, by_hand: Iterable[str]) -> list[str]:
        """Return the lines of the file of passwords that are neither ``by_hand`` nor were at the last start.

        Once that file is written with them, call `settle`: who dies before it finds here again whom a person removed.
        """
        ours = {*json.loads(kept(self._known, lambda: "[]")), *by_hand}
        write_secret(self._known, json.dumps(sorted(ours)))
        return [line for line in self._passwords if line and line.partition(":")[0] not in ours]

    def settle(self, by_hand: Iterable[str]) -> None:
        """The file of passwords has these, and what is a registry's."""
        write_secret(self._known, json.dumps(sorted(by_hand)))

    def grant(self, declared: Declared, topic_map: TopicMap) -> bool:
        """Write what each account may do; return whether it is something else than before.

        Raises :class:`Misconfigured` where the broker cannot have such rights; then nothing is changed.
        """
        file = self._folder / "acl"
        try:
            names = {line.partition(":")[0] for line in self._passwords} - {"", _BRIDGE}
            rights = acl(declared, topic_map, sorted(names))
            if file.read_text() == rights:
                return False
            write_secret(file, rights)
        except OSError as error:
            raise Misconfigured(f"the broker's rights in {self._folder} cannot follow: {error}", "mend it") from None
        return True

    @property
    def changed(self) -> float:
        """When an account came or went, as a time to compare."""
        try:
            return (self._folder / "passwords").stat().st_mtime
        except OSError:
            return 0.0

"""API keys of servers: shown once, kept as a hash, rotated and dropped without a restart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import limits
from gateway.adapters.tokens import Verifier, add_api_key, drop_api_keys
from gateway.core.access import Principal
from gateway.errors import BadToken, Misconfigured, Refused
from tests.gateway.test_key_ring import NOW, settings


def test_an_api_key_names_a_service_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    at = settings(tmp_path, development=True)
    key = add_api_key(at.api_keys_file, "orders")
    assert len(key) == 47
    assert key not in at.api_keys_file.read_text()
    assert at.api_keys_file.stat().st_mode & 0o777 == 0o600
    grant = Verifier(at).verify(key, NOW)
    assert (grant.principal, grant.expires) == (Principal("service", "orders"), None)
    assert grant.key.startswith("api:orders.")
    for wrong in (key[:-1], key + "A", "gwk_", key.swapcase(), "gwk_ü", key + "\n"):
        with pytest.raises(BadToken) as caught:
            Verifier(at).verify(wrong, NOW)
        assert wrong not in str(caught.value)


def test_api_keys_come_and_go_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_LOOK_EVERY", 0.0)
    at = settings(tmp_path, development=True)
    verifier = Verifier(at)
    old = add_api_key(at.api_keys_file, "orders")
    new = add_api_key(at.api_keys_file, "orders")
    grant = verifier.verify(old, NOW)
    assert verifier.verify(new, NOW).principal == grant.principal
    assert verifier.ring.has(grant.key)
    assert drop_api_keys(at.api_keys_file, "orders") == 2
    for key in (old, new):
        with pytest.raises(BadToken, match="unknown"):
            verifier.verify(key, NOW)
    assert not verifier.ring.has(grant.key)


def test_many_commands_at_once_lose_no_key(tmp_path: Path) -> None:
    at = settings(tmp_path, development=True)
    children = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            add_api_key(at.api_keys_file, f"s-{n}")
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(at.api_keys_file.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("orders\n", 0o600, ":1 is no API key"),
        ("# a comment\norders " + "0" * 63 + "\n", 0o600, ":2 is no API key"),
        ("x " + "0" * 64 + "\n", 0o644, "can be read by others"),
        ("".join(f"s{n} {n:064x}\n" for n in range(257)), 0o600, "more than 256 API keys"),
    ],
)
def test_a_careless_file_of_api_keys_is_refused(text: str, mode: int, says: str, tmp_path: Path) -> None:
    at = settings(tmp_path, development=True)
    at.api_keys_file.parent.mkdir(exist_ok=True)
    at.api_keys_file.write_text(text)
    at.api_keys_file.chmod(mode)
    with pytest.raises(Misconfigured, match=says):
        Verifier(at)
    with pytest.raises(Misconfigured, match=says):
        add_api_key(at.api_keys_file, "more")


@pytest.mark.parametrize("name", ["", "Orders", "a b", "a/b", "-", "a\nb", "x" * 65])
def test_a_service_s_name_is_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no service's name"):
        add_api_key(tmp_path / "k", name)

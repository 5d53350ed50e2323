"""Accounts of the broker of `gateway up`: what stays over a restart, and what each may do."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.broker_accounts import Accounts
from gateway.core.declared import Declared, Topic
from gateway.core.mapping import TopicMap
from gateway.errors import Misconfigured

PLANT = Declared([Topic(pattern="plant/#", mqtt="in", write=("device",))])


def lines(folder: Path, *names: str) -> None:
    (folder / "passwords").write_text("".join(f"{name}:$7$101$salt$hash\n" for name in names))


def test_a_registrys_accounts_stay_and_what_is_taken_out_by_hand_goes(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    (tmp_path / "devices.json").write_text('{"hand-1": "a word", "hand-2": "another"}')
    users = accounts.by_hand()
    assert users == {"hand-1": "a word", "hand-2": "another", "gateway": users["gateway"]}
    assert accounts.of_a_registry(users) == []
    lines(tmp_path, "gateway", "hand-1", "hand-2", "pump-1")

    (tmp_path / "devices.json").write_text('{"hand-1": "a word"}')
    users = accounts.by_hand()
    assert users["gateway"] == (tmp_path / "gateway.password").read_text()
    for _ in range(2):  # as often as it is killed before the file of passwords follows
        assert accounts.of_a_registry(users) == ["pump-1:$7$101$salt$hash"]
    lines(tmp_path, "gateway", "hand-1", "pump-1")
    accounts.settle(users)
    lines(tmp_path, "gateway", "hand-1", "pump-1", "hand-2")
    names = [line.partition(":")[0] for line in accounts.of_a_registry(users)]
    assert names == ["pump-1", "hand-2"], "the latter is a registry's now"


def test_what_is_no_list_of_accounts_is_refused(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    (tmp_path / "devices.json").write_text('["hand-1"]')
    with pytest.raises(Misconfigured, match=r"devices\.json.*write names and passwords"):
        accounts.by_hand()


def test_each_account_has_the_rights_of_what_is_declared(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    (tmp_path / "acl").touch()
    lines(tmp_path, "gateway", "hand-1")
    assert accounts.grant(PLANT, TopicMap([]))
    assert not accounts.grant(PLANT, TopicMap([]))
    lines(tmp_path, "gateway", "pump-1", "hand-1")
    assert accounts.grant(PLANT, TopicMap([]))
    text = (tmp_path / "acl").read_text()
    assert text.count("topic write plant/#") == 2
    assert "user pump-1\ntopic write plant/#" in text

    (tmp_path / "acl").unlink()
    with pytest.raises(Misconfigured, match="cannot follow"):
        accounts.grant(PLANT, TopicMap([]))

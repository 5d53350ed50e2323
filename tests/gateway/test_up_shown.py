"""What `gateway up` shows: commands that work with what is installed, and no talk of services to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.configuration import gather
from gateway.cli.up import Help, own
from gateway.core.declared import Declared, Topic
from gateway.up import Running

TOPICS = Declared(
    [
        Topic(pattern="devices/registry/project", kind="command"),
        Topic(pattern="devices/{device}/telemetry", read=("user",)),
        Topic(pattern="rooms/{room}/send", kind="command", write=("user",)),
    ]
)


@pytest.mark.parametrize(
    ("topic", "hidden"),
    [
        ("devices/registry/project", True),
        ("devices/7/telemetry", False),
        ("rooms/7/send", False),  # a person's publish does not vanish
        ("nobody/declared/it", False),
    ],
)
def test_what_services_tell_themselves_is_not_shown(topic: str, hidden: bool) -> None:
    assert own(TOPICS, topic) is hidden


@pytest.mark.parametrize(
    ("broker", "there", "publish"),
    [
        ("mosquitto", True, "mosquitto_pub -p 1884 -q 1 -t try/hello -m 'hello, world'"),
        ("mosquitto", False, "gateway pub -c x.toml try/hello 'hello, world'"),
        # Another lets nobody in without an account.
        ("iotcore", True, "gateway pub -c x.toml try/hello 'hello, world'"),
    ],
)
def test_what_to_publish_with_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str, there: bool, publish: str
) -> None:
    if there:
        (tmp_path / "mosquitto_pub").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    running = Running(1, "http://127.0.0.1:1", "unix:///log", "mqtt://127.0.0.1:1884", broker)
    (tmp_path / "empty.toml").touch()
    found = gather(tmp_path / "empty.toml", {})
    assert Help("gateway", " -c x.toml", running, tmp_path).commands(found, demo=True)[1] == publish

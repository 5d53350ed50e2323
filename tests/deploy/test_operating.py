"""What docs/operating.md tells an operator to type before the first `docker compose up`, typed."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.adapters.tokens.secret import load_secret
from tests.deploy.compose import ROOT, containers, document
from tests.deploy.test_backup import commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the commands were run."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "bin").mkdir()
    program = folder / "bin" / "gateway"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway.cli "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SITE": "gateway.example.org", "HOME": str(folder)}
    asked = ["sh", "-euc", commands("containers")]
    told = subprocess.run(asked, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return folder


def test_all_that_the_compose_file_mounts_is_there_and_ours_alone(made: Path) -> None:
    wanted = {mount.source for one in containers(document()).values() for mount in one.mounts}
    wanted = {source for source in wanted if source.startswith(("./secrets", "./data"))}
    assert [source for source in wanted if not (made / source).exists()] == []
    every = [path for top in ("secrets", "data", ".env") for path in (made / top, *(made / top).rglob("*"))]
    assert len(every) > 12
    assert [path for path in every if path.stat().st_mode & 0o077] == []


def test_each_variable_of_the_compose_file_is_set(made: Path) -> None:
    names = dict(line.split("=", 1) for line in (made / ".env").read_text().splitlines())
    assert names == {
        "GATEWAY_UID": str(os.getuid()),
        "GATEWAY_GID": str(os.getgid()),
        "GATEWAY_SITE": "gateway.example.org",
    }


def test_the_secrets_are_good_ones(made: Path) -> None:
    assert len(load_secret(made / "secrets/token")) == 64
    password = (made / "secrets/postgres").read_text().strip()
    assert (made / "secrets/pgpass").read_text() == f"postgres:5432:gateway:gateway:{password}\n"
    accounts = [line.partition(":")[0] for line in (made / "secrets/mosquitto/passwords").read_text().splitlines()]
    assert accounts == ["gateway", "pump-7"]
    assert "pattern write devices/%u/telemetry/#" in (made / "secrets/mosquitto/acl").read_text()


@pytest.mark.parametrize("name", ["mosquitto", "gateway.example.org"])
def test_the_certificate_is_believed_under_both_names(made: Path, name: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made / "secrets/mosquitto/server.pem", made / "secrets/mosquitto/server.key")
    there, here = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(there, server_side=True) as wrapped:
            wrapped.recv(1)

    serving = threading.Thread(target=serve, name="tls")
    serving.start()
    client = ssl.create_default_context(cafile=made / "secrets/ca.pem")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with client.wrap_socket(here, server_hostname=name) as wrapped:
        wrapped.sendall(b"x")
    serving.join(20)


def test_secrets_are_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/data/", "/.env"} <= set(ignored)

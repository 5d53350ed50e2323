"""Chat as README.md says: named beside accounts, `gateway up`, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from gateway.adapters import embedded
from tests.servers import eventually

ROOT = Path(__file__).parents[2]
ANN = {"mail": "ann@example.org", "password": "the long way home", "name": "Ann"}


def started(env: dict[str, str], out: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "up"], env=env, stdout=said, stderr=said, cwd=out.parent
        )


def test_chat_alone_is_whole(tmp_path: Path) -> None:
    """It asks the gateway and nobody else, and hears of accounts where those are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "CHAT_"))}
    env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": "chat.app:app", "GATEWAY_DATA": str(tmp_path / "data")}
    told = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (told.returncode, "warning" in told.stdout + told.stderr) == (0, False), told.stdout + told.stderr


async def test_people_come_with_accounts_and_chat(tmp_path: Path) -> None:
    port, out = embedded.free_port(), tmp_path / "out"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "CHAT_"))}
    env |= {"GATEWAY_DATA": str(tmp_path / "data"), "GATEWAY_EDGE_PORT": str(port), "GATEWAY_PARTITIONS": "2"}
    env |= {"PYTHONPATH": str(ROOT), "GATEWAY_APPS": "accounts.app:app,chat.app:app", "ACCOUNTS_HASH_MIB": "1"}
    up = started(env, out)

    def ready() -> bool:
        assert up.poll() is None, out.read_text()
        return "services are ready" in out.read_text()

    try:
        await eventually(ready, 100)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:

            async def post(path: str, body: object) -> httpx.Response:
                return await http.post(path, json=body)

            async def is_somebody() -> bool:
                return (await post("/accounts/users/register", ANN)).is_success

            await eventually(is_somebody, 100)
            login = {"mail": ANN["mail"], "password": ANN["password"]}
            given = (await post("/accounts/users/login", login)).json()

            async def knows() -> bool:
                """An edge asks for the keys of an issuer after a token that it does not know."""
                http.headers["authorization"] = f"Bearer {given['access']}"
                return (await http.get("/chat/rooms/")).is_success

            await eventually(knows, 100)
            room = (await post("/chat/rooms/", {"name": "Tea", "key": "1"})).json()["id"]
            # By the server API, with a key that nobody made by hand.
            there = await http.get(f"/chat/rooms/{room}/presence")
            assert (there.status_code, there.json()) == (200, {"users": []}), there.text

            async def is_said() -> bool:
                """The edge asks for those keys by itself; the same id is the same message."""
                sent = await post(f"/topics/chat/rooms/{room}/send?wait=30s", {"id": "1", "text": "hello"})
                return sent.is_success and sent.json()["seq"] == 2

            await eventually(is_said, 100)
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(100)

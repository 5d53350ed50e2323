"""What the audit log hears of the edge: who was denied what, and whom a server sent away. Never what they sent."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.contracts.sockets import command, socket
from tests.gateways import running_edge, token
from tests.letters import audited

INBOX = "users/alice/inbox"
SECRET_WORD = "plum-pudding"


async def test_who_is_denied_a_topic_is_told(log_url: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = {
        "subscribe": command(2, "subscribe", channel=INBOX),
        "history": command(2, "history", channel=INBOX, limit=1),
        "publish": command(2, "publish", channel=INBOX, data=SECRET_WORD),
    }
    async with running_edge(log_url) as edge, httpx.AsyncClient(base_url=edge.http) as http:
        for name, said in asked.items():
            async with socket(edge, connected=False) as one:
                await one.ask({"id": 1, "connect": {"token": token(name)}})
                assert (await one.ask(said))["error"]["code"] == 103
        paths = {"last": "/topics/users%2Falice%2Finbox", "past": "/topics/users%2Falice%2Finbox/history"}
        for name, path in {**paths, "events": "/topics/users%2Falice%2Finbox/events"}.items():
            answer = await http.get(path, headers={"Authorization": f"Bearer {token(name)}"})
            assert answer.status_code == 403, answer.text
        bearer = {"Authorization": f"Bearer {token('post')}"}
        assert (await http.post(f"/topics/{INBOX}", content=json.dumps(SECRET_WORD), headers=bearer)).status_code == 403
    told = audited(caplog)
    for name in ("subscribe", "history", "last", "past", "events"):
        assert sum(line.startswith(f"user:{name} may not read '{INBOX}'") for line in told) == 1, told
    for name in ("publish", "post"):
        assert sum(line.startswith(f"user:{name} may not publish '{INBOX}'") for line in told) == 1, told
    assert SECRET_WORD not in caplog.text


async def test_whom_a_server_sends_away_is_told(log_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.audit")
    async with running_edge(log_url) as edge, socket(edge) as one, httpx.AsyncClient(base_url=edge.http) as http:
        operator = {"Authorization": f"Bearer {token('root', kind='operator')}"}
        answer = await http.post("/api/disconnect", json={"user": "alice"}, headers=operator)
        assert answer.json() == {"result": {}}
        assert await one.ended() == 3503
    assert "operator:root: disconnect user 'alice'" in audited(caplog)

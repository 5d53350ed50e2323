"""Every door of the gateway to one topic or filter, and what each answers whoever asks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from tests.gateways import Client

#: What a door for servers is asked beside the channel.
_API: dict[str, dict[str, Any]] = {
    "publish": {"data": {}},
    "subscribe": {"user": "somebody"},
    "history": {"limit": 10},
    "presence": {},
    "presence_stats": {},
}
#: What every door says to whom it is shut: the protocol's code, and HTTP's.
SHUT = {103, 403}


async def answers(http: httpx.AsyncClient, socket: Client, token: str, filter: str) -> dict[str, int]:
    """Ask at each for ``filter``; return by door HTTP's status, or the code of the protocol's error, where 0 is none.

    ``socket`` is a connection of the bearer of ``token``, without a subscription to that.
    """
    found = dict[str, int]()

    async def asks(door: str, method: str, **more: Any) -> None:
        reply = await socket.ask(method, channel=filter, **more)
        found[door] = reply.get("error", {}).get("code", 0)
        if "subscribe" in reply:
            await socket.ask("unsubscribe", channel=filter)

    async def posts(path: str, body: dict[str, Any]) -> httpx.Response:
        answer = await http.post(path, json=body, headers=headers)
        found[f"POST {path}"] = answer.status_code
        return answer

    headers, path = {"authorization": f"Bearer {token}"}, f"/topics/{quote(filter, safe='')}"
    await asks("recover", "subscribe", recover=True, offset=0, epoch="1")
    await asks("history", "history", limit=10)
    for method in ("subscribe", "presence", "presence_stats"):
        await asks(method, method)
    if not {"+", "#"} & set(filter):
        await asks("publish", "publish", data={})
        found["POST"] = (await http.post(path, json={}, headers=headers)).status_code
    for more in ("", "/history"):
        found[f"GET{more}"] = (await http.get(path + more, headers=headers)).status_code
    ticket = await posts("/tickets", {"filter": filter})
    streams: dict[str, dict[str, Any]] = {"GET/events": {"headers": headers}}
    if ticket.is_success:
        streams["GET/events?ticket"] = {"params": {"ticket": ticket.json()["ticket"]}}
    for door, how in streams.items():
        async with http.stream("GET", f"{path}/events", **how) as stream:
            found[door] = stream.status_code
    for method, body in _API.items():
        await posts(f"/api/{method}", {"channel": filter, **body})
    return found

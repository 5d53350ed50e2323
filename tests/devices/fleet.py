"""A running fleet for tests: every service on real servers, what a device says, and what people ask."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

from devices.app import app
from gateway.testing import Gateway, running

#: The beginning of an hour that is not over yet, or has just begun; readings of it are neither too old nor too new.
HOUR = int(time.time()) // 3600 * 3_600_000 - 3_600_000
#: A hang guard, ten times what the slowest honest step takes on a busy machine.
WITHIN = 60.0


class Fleet:
    """The gateway, and HTTP to it."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self.gateway, self.http = gateway, http

    async def says(self, device: str, *readings: tuple[int, int, float], boot: str = "b", **more: Any) -> None:
        """Publish as ``device`` a message for each (seq, event time, temp)."""
        for seq, ts, temp in readings:
            payload = {"boot": boot, "seq": seq, "ts": ts, "m": {"temp": temp}, **more}
            await self.gateway.publish(f"devices/{device}/telemetry", payload)

    async def ask(self, method: str, path: str, body: object = None, by: str = "operator:root") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.gateway.token(by)}"} if by else {}
        return await self.http.request(method, path, json=body, headers=headers)

    async def get(self, path: str, by: str = "operator:root") -> Any:
        answer = await self.ask("GET", path, by=by)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def done(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def pages(self, path: str, by: str = "operator:root") -> list[dict[str, Any]]:
        """All pages of a list whose ``path`` has a query; each item of them came once."""
        found, after = list[dict[str, Any]](), ""
        while True:
            said = await self.get(path + (f"&after={quote(after)}" if after else ""), by)
            found += said["items"]
            if (after := said["next"]) is None:
                break
        assert len({msgspec.json.encode(one) for one in found}) == len(found)
        return found

    async def rests(self) -> None:
        await self.gateway.at_rest(within=WITHIN)


@asynccontextmanager
async def open_fleet(databases: Mapping[str, str] | None = None) -> AsyncIterator[Fleet]:
    async with (
        running(app, edge=True, databases=databases) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=WITHIN, trust_env=False) as http,
    ):
        yield Fleet(gateway, http)


class Mails:
    """An SMTP server on loopback that keeps what it gets, or refuses it."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.refuse, self.refused, self.port = "", 0, 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            self.refused += 1
            return self.refuse
        content = envelope.original_content or b""
        self.got.append(message_from_bytes(content, EmailMessage, policy=default))
        return "250 kept"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(self, hostname="localhost"), sock=sock)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()


class Receiver:
    """A webhook's other end on loopback that keeps headers and body of what it gets, or refuses it; it ``answers``."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refuse, self.refused, self.port = 0, 0, 0
        self.answers = asyncio.Event()
        self.answers.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        if self.refuse:
            self.refused += 1
        else:
            self.got.append((headers, body))
        await self.answers.wait()
        writer.write(f"HTTP/1.1 {self.refuse or 204} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        with suppress(ConnectionError):  # whoever asked may be dead by now
            await writer.drain()
        writer.close()

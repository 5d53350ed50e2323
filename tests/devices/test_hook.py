"""Where a webhook's post goes, however its URL is spelt and whatever its name answers next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from devices.alerting import hook
from devices.alerting.hook import Undelivered, post
from devices.settings import Channel
from gateway import Rejected


@asynccontextmanager
async def listening(address: str, port: int = 0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Keep what each connection to ``address`` says first, and end it."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(hear, address, port) as server:
        yield server.sockets[0].getsockname()[1], heard


@pytest.fixture
def secret(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text("a secret")
    return str(tmp_path / "secret")


async def posted(url: str, secret: str, *, private: bool = False) -> None:
    await post(Channel(url=url, secret_file=secret), private, "1", 0, b"{}")


INSIDE = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "localhost",
    "public.example@127.0.0.1",
    "127.0.0.1%23@127.0.0.1",
)
#: Names and numbers that a resolver may know or not: they are rejected, or lead nowhere.
PERHAPS = (
    "localhost.",
    "LOCALHOST",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "localhost。",
    "ⅼocalhost",
    "a..b",
    "x" * 64,
    "%31%32%37.1",
    "",
)
#: What is no URL of anything.
NONE = ("[::1", "127.0.0.1:99999", "127.0.0.1:x", "0177.0.0.1", "\x00")


@pytest.mark.parametrize("host", INSIDE)
async def test_no_spelling_of_this_machine_is_posted_to(host: str, secret: str) -> None:
    async with listening("127.0.0.1") as (port, heard):
        with pytest.raises(Rejected, match="leads into a private network"):
            await posted(f"https://{host}:{port}/", secret)
    assert heard == []


@pytest.mark.parametrize("host", PERHAPS)
async def test_what_only_some_resolvers_know_is_not_posted_to(host: str, secret: str) -> None:
    async with listening("127.0.0.1") as (port, heard):
        with pytest.raises((Rejected, Undelivered)):
            await posted(f"https://{host}:{port}/", secret)
    assert heard == []


@pytest.mark.parametrize("host", NONE)
async def test_what_is_no_url_is_rejected(host: str, secret: str) -> None:
    with pytest.raises(Rejected, match=r"of the channel (is none|has the port)"):
        await posted(f"https://{host}/", secret)


async def test_where_private_networks_are_allowed_a_spelling_arrives(secret: str) -> None:
    """The control: nothing but the judgement keeps the others away."""
    async with listening("127.0.0.1") as (port, heard):
        for host in ("2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(Undelivered):  # it hangs up
                await posted(f"http://{host}:{port}/", secret, private=True)
    assert [b"webhook-signature" in one for one in heard] == [True, True]


def answering(patch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have every name answered with the next of ``answers``; 127.0.0.2 counts as public. Return the names asked."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in answers[min(len(asked), len(answers)) - 1]]

    patch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    patch.setattr(hook, "open_to_us", lambda address: address == "127.0.0.2")
    return asked


async def test_a_name_that_is_public_first_and_ours_then_leads_to_the_first(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        port, public = await stack.enter_async_context(listening("127.0.0.2"))
        _, ours = await stack.enter_async_context(listening("127.0.0.1", port))
        asked = answering(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
        with pytest.raises(Undelivered):  # there is no TLS
            await posted(f"https://rebinding.example:{port}/", secret)
        assert ours == []
        assert [b"rebinding.example" in one for one in public] == [True]  # its TLS names what was asked for
        assert asked == ["rebinding.example"]
        with pytest.raises(httpx.HTTPError):  # the control: by its name it would have been ours
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(f"https://rebinding.example:{port}/")
        assert len(ours) == 1


async def test_a_name_with_one_address_of_ours_is_rejected(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    with pytest.raises(Rejected, match="leads into a private network"):
        await posted("https://two.example/", secret)

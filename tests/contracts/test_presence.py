"""Presence over several edges: who is there, who came, who left, and what a death or a return looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import limits
from gateway.adapters.log import Change, Log
from gateway.core.access import Principal
from gateway.core.declared import Declared
from gateway.core.session import SLOW
from gateway.edge.presence import Presence
from tests.contracts.edge_process import edge_process
from tests.contracts.places import PLACES
from tests.contracts.sockets import ROOM, command, socket
from tests.gateways import Client, Running, app_logs, client, running_edge, token
from tests.servers import eventually

LOBBY = "lobby/1"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick steps; only who is killed has a short lease, for a machine that stands still for a moment ends it too."""
    monkeypatch.setattr(limits, "PRESENCE_BEAT", 0.2)
    monkeypatch.setattr(limits, "PRESENCE_LINGER", 0.4)


@pytest.fixture
async def places(log_url: str) -> AsyncIterator[Running]:
    async with running_edge(log_url, PLACES, anonymous=True) as running:
        yield running


@asynccontextmanager
async def there(edge: Running, sub: str, channel: str = LOBBY) -> AsyncIterator[Client]:
    """A client that watches, and hears who moves."""
    async with client(edge.ws, token(sub)) as one:
        reply = await one.ask("subscribe", channel=channel, join_leave=True)
        assert "subscribe" in reply, reply
        yield one


async def users(one: Client, channel: str = LOBBY) -> list[str]:
    reply = await one.ask("presence", channel=channel)
    return sorted(info["user"] for info in reply["presence"]["presence"].values())


async def sees(one: Client, *want: str) -> None:
    async def so() -> bool:
        return await users(one) == sorted(want)

    await eventually(so)


def moves(one: Client) -> list[tuple[str, str]]:
    return [(what, push[what]["info"]["user"]) for push in one.pushes for what in ("join", "leave") if what in push]


async def hears(one: Client, *want: tuple[str, str]) -> None:
    await eventually(lambda: moves(one) == list(want))


# --- the log's side, on both servers ---


@pytest.fixture
async def log(log_server: str) -> AsyncIterator[Log]:
    log = await Log.open(log_server, app_logs(PLACES), gateway="presence")
    yield log
    await log.close()


def change(what: Any, client: str, user: str, topic: str = LOBBY) -> Change:
    return Change(what, topic, client, user)


async def news(log: Log, after: str = "-") -> list[tuple[str, str]]:
    entries: Any = await log._links.own.ask("XRANGE", "{lobby.0}:live", after, "+")
    return [(fields[1].decode(), fields[5].decode()) for _, fields in entries if fields[0] == b"presence"]


async def begin(log: Log) -> None:
    keys: Any = await log._links.own.ask("KEYS", "{lobby.0}:*")
    for key in keys:
        if b"presence" in key or key.endswith(b":live"):
            await log._links.own.ask("DEL", key)


async def test_a_user_comes_once_and_leaves_once(log: Log) -> None:
    await begin(log)
    tell = log.presence.tell
    first = await tell("lobby.0", "e1", [change("enter", "c1", "alice")])
    assert (first.known, first.left) == (False, 1)
    again = await tell("lobby.0", "e1", [change("enter", "c1", "alice"), change("enter", "c2", "alice")])
    assert (again.known, again.left) == (True, 2)
    await tell("lobby.0", "e2", [change("enter", "c3", "alice"), change("enter", "c4", "")])
    assert sorted(await log.presence.there("lobby.0", LOBBY)) == [
        ("c1", "alice"),
        ("c2", "alice"),
        ("c3", "alice"),
        ("c4", ""),
    ]
    assert await log.presence.there("lobby.0", "lobby/") == []
    assert await log.presence.there("lobby.0", "lobby/11") == []
    await tell("lobby.0", "e1", [change("leave", "c1", "alice"), change("leave", "c1", "alice")])
    await tell("lobby.0", "e2", [change("leave", "c3", "alice"), change("leave", "c4", "")])
    await tell("lobby.0", "e2", [change("leave", "c2", "alice")])
    assert (await log.presence.there("lobby.0", LOBBY)) == [("c2", "alice")], "another edge's client"
    await tell("lobby.0", "e1", [change("leave", "c2", "alice")])
    assert await news(log) == [("join", "c1"), ("join", "c4"), ("leave", "c4"), ("leave", "c2")]


async def test_a_dead_edge_is_let_go_a_slice_at_a_time(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(log)
    monkeypatch.setattr(limits, "PRESENCE_SWEEP", 2)
    monkeypatch.setattr(limits, "PRESENCE_LEASE", 0.001)
    # Its lease ends at once; another edge lives.
    crowd = [change("enter", f"c{n}", f"user{n}") for n in range(5)]
    await log.presence.tell("lobby.0", "dead", crowd)
    monkeypatch.setattr(limits, "PRESENCE_LEASE", 30.0)

    async def left() -> bool:
        return (await log.presence.tell("lobby.0", "alive", [])).left == 0

    await eventually(left)
    assert sorted(await news(log)) == sorted(
        [("join", f"c{n}") for n in range(5)] + [("leave", f"c{n}") for n in range(5)]
    )
    known = await log.presence.tell("lobby.0", "dead", [])
    assert not known.known, "it has to tell everybody again"


async def test_a_topic_has_so_many(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(log)
    monkeypatch.setattr(limits, "PRESENCE_MOST", 2)
    crowd = [change("enter", f"c{n}", f"user{n}") for n in range(5)]
    found = await log.presence.tell("lobby.0", "e1", [*crowd, change("enter", "c9", "u", "lobby/2")])
    assert (found.refused, found.left) == (3, 3)
    assert len(await news(log)) == 3


# --- clients ---


async def test_who_is_there(places: Running) -> None:
    async with there(places, "alice") as alice:
        await hears(alice, ("join", "alice"))
        await _two_more(places, alice)


async def _two_more(places: Running, alice: Client) -> None:
    async with there(places, "bob") as bob, there(places, "bob"):
        await sees(alice, "alice", "bob", "bob")
        stats = await bob.ask("presence_stats", channel=LOBBY)
        assert stats["presence_stats"] == {"num_clients": 3, "num_users": 2}
        reply = await alice.ask("presence", channel=LOBBY)
        for id, info in reply["presence"]["presence"].items():
            assert info["client"] == id
        assert (await alice.ask("presence", channel="lobby/2"))["presence"] == {"presence": {}}
        await alice.ask("unsubscribe", channel=LOBBY)
        await sees(alice, "bob", "bob")
        await hears(bob, ("join", "bob"), ("leave", "alice"))


async def test_users_and_others_have_names(places: Running) -> None:
    async with there(places, "alice") as alice:
        async with client(places.ws, token("root", kind="operator")) as root:
            await root.ask("subscribe", channel=LOBBY)
            async with client(places.ws, token("operator:root")) as other:
                await other.ask("subscribe", channel=LOBBY)
                async with client(places.ws, "") as nobody:
                    await nobody.ask("subscribe", channel=LOBBY)
                    await sees(alice, "alice", "operator:root", "user:operator:root", "")


@pytest.mark.parametrize(
    ("channel", "code"), [("hidden/1", 108), ("lobby/+", 108), ("own/bob", 103), ("own/+", 103), ("no", 102)]
)
async def test_who_may_ask(places: Running, channel: str, code: int) -> None:
    async with client(places.ws, token("alice")) as alice:
        for method in ("presence", "presence_stats"):
            assert (await alice.ask(method, channel=channel))["error"]["code"] == code
        joined = await alice.ask("subscribe", channel=channel, join_leave=True)
        assert joined["error"]["code"] == code
        if code == 108:
            assert "subscribe" in await alice.ask("subscribe", channel=channel)
            assert await users(alice) == []


async def test_two_edges_see_the_same(places: Running, log_url: str) -> None:
    async with running_edge(log_url, PLACES) as other, there(places, "alice") as alice:
        await hears(alice, ("join", "alice"))
        async with there(other, "bob") as bob:
            await hears(alice, ("join", "alice"), ("join", "bob"))
            await sees(alice, "alice", "bob")
            await sees(bob, "alice", "bob")
        await sees(alice, "alice")
        await hears(alice, ("join", "alice"), ("join", "bob"), ("leave", "bob"))


async def test_who_comes_back_was_never_away(places: Running, log_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PRESENCE_LINGER", 5.0)
    async with running_edge(log_url, PLACES) as other, there(places, "alice") as alice:
        await hears(alice, ("join", "alice"))
        for edge in (places, other, places):
            async with there(edge, "bob") as bob:
                mine = await bob.ask("presence_stats", channel=LOBBY)

                async def counted(before: int = mine["presence_stats"]["num_clients"]) -> bool:
                    return len(await users(alice)) >= before and "bob" in await users(alice)

                await eventually(counted)
        async with there(other, "carol"):
            await hears(alice, ("join", "alice"), ("join", "bob"), ("join", "carol"))


async def test_a_killed_edge_takes_its_clients_with_it_once(places: Running, log_url: str) -> None:
    async with (
        edge_process(log_url, 4.0, 0.2, 0.4, environment={}) as (process, at),
        there(places, "alice") as alice,
        client(at, token("bob")) as bob,
        client(at, token("carol")) as carol,
    ):
        await bob.ask("subscribe", channel=LOBBY)
        await hears(alice, ("join", "alice"), ("join", "bob"))
        await carol.ask("subscribe", channel=LOBBY)
        await sees(alice, "alice", "bob", "carol")
        process.kill()
        async with there(places, "carol"):  # she was quick
            await sees(alice, "alice", "carol")
            await hears(alice, ("join", "alice"), ("join", "bob"), ("join", "carol"), ("leave", "bob"))


async def test_a_log_server_without_memory_is_told_again(places: Running) -> None:
    async with there(places, "alice") as alice:
        await sees(alice, "alice")
        partition = places.edge.declared.find(LOBBY).partition
        for name in ("", ":users", ":held", ":due"):
            await places.log._links.own.ask("DEL", f"{{{partition}}}:presence{name}")
        await sees(alice, "alice")


async def test_more_than_a_topic_takes_watch_unlisted(
    places: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "PRESENCE_MOST", 1)
    async with there(places, "alice") as alice:
        await sees(alice, "alice")
        async with there(places, "bob") as bob:
            await bob.ask("publish", channel=LOBBY, data="still served")
            await eventually(lambda: any("pub" in push for push in bob.pushes))
            assert await users(alice) == ["alice"]
            await eventually(lambda: "are not listed" in caplog.text)


async def test_a_line_that_is_cut_loses_nobody(places: Running) -> None:
    async with there(places, "alice") as alice:
        for sub in ("bob", "carol", "dave"):
            async with there(places, sub):
                for link in places.log._links.writing:
                    (await link.wire()).abort()
                await sees(alice, "alice", sub)
            await sees(alice, "alice")
        want = [(what, sub) for sub in ("bob", "carol", "dave") for what in ("join", "leave")]
        await hears(alice, ("join", "alice"), *want)


async def test_what_cannot_be_told_is_kept(log_url: str) -> None:
    log = await Log.open(log_url, app_logs(PLACES), gateway="presence")
    declared = Declared(PLACES)
    presence = Presence(log.presence, declared, lambda count: None)
    presence.enter(declared.meeting(LOBBY), LOBBY, "c1", Principal("user", "alice"))
    presence.leave(LOBBY, "unknown", lost=True)
    await log.close()
    await presence.end()
    (place,) = presence._places.values()
    assert place.untold == [Change("enter", LOBBY, "c1", "alice")]


async def test_a_watcher_that_does_not_read_is_closed(places: Running) -> None:
    count = places.edge.metrics_of.registry.get_sample_value
    partition = places.edge.declared.find(LOBBY).partition
    crowd = [(f"c{n}", f"{n}".ljust(1_000, "x")) for n in range(100)]
    async with there(places, "alice") as alice, socket(places, max_queue=1) as deaf:
        assert "subscribe" in await deaf.ask(command(2, "subscribe", channel=LOBBY, join_leave=True))
        heard = len(moves(alice))
        for n in range(50):
            # Notices of 100 KB at once, as of an edge with a crowd; alice reads them.
            what = ("enter", "leave")[n % 2]
            await places.log.presence.tell(partition, "another", [change(what, *one) for one in crowd])
            heard += len(crowd)
            await alice.until(heard)
            if count("gateway_slow_closes_total"):
                break
        assert await deaf.ended() == SLOW.code
    assert count("gateway_slow_closes_total") == 1


async def test_a_socket_hears_what_it_did_not_ask_for_never(places: Running) -> None:
    async with client(places.ws, token("quiet")) as quiet, there(places, "alice") as alice:
        await quiet.ask("subscribe", channel=LOBBY)
        await hears(alice, ("join", "alice"), ("join", "quiet"))
        await alice.ask("publish", channel=LOBBY, data=1)
        await quiet.until(1)
        assert moves(quiet) == []


async def test_presence_is_off_by_default(edge: Running) -> None:
    async with socket(edge) as one:
        await one.ask(command(2, "subscribe", channel=ROOM))
        assert (await one.ask(command(3, "presence", channel=ROOM)))["error"]["code"] == 108
        assert (await one.ask(command(4, "presence_stats", channel=ROOM)))["error"]["code"] == 108

"""Where the log's keys are: on one server, or on the nodes of a Redis or Valkey cluster, which may change."""

from __future__ import annotations

import asyncio
import ssl
from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from typing import Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import msgspec

from gateway import limits
from gateway.adapters.log.resp import Lost, Reply, Wire, pack, refusal
from gateway.errors import GatewayError, Misconfigured, Unavailable
from gateway.settings.addresses import each

#: Of every cluster: a key is in the slot that the hash of its tag names (Redis Cluster specification, Key distribution
#: model).
SLOTS: Final = 16_384


class Address(msgspec.Struct, frozen=True):
    """Where a log server listens, and as whom we come."""

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False

    @property
    def place(self) -> str:
        """For messages: never with the password."""
        return self.path or f"{self.host}:{self.port}"


def addresses(url: str) -> list[Address]:
    """Read ``redis://``, ``rediss://`` (TLS) or ``unix://``; of a cluster, several ``host:port`` with commas between.

    Raises `Misconfigured`, without the password in it.
    """
    try:
        found = [_address(one) for one in each(url)]
    except ValueError as error:
        raise Misconfigured("the log server's url cannot be read", "write redis://host:port/0") from error
    return found


def _address(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"} or (parts.scheme == "unix" and not parts.path):
        raise Misconfigured(f"the log server's url begins with {parts.scheme!r}", "write redis://host:port/0")
    unix = parts.scheme == "unix"
    database = parse_qs(parts.query).get("db", ["0"])[0] if unix else parts.path.strip("/")
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        path=unquote(parts.path) if unix else "",
        database=int(database or 0),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=parts.scheme == "rediss",
    )


def slot_of(tag: str) -> int:
    """Return the slot of every key with ``{tag}`` in its name."""
    return crc_hqx(tag.encode(), 0) % SLOTS


class Place:
    """Where the keys of one tag are: asked before each dial."""

    def __init__(self, servers: Servers, slot: int) -> None:
        self._servers, self._slot = servers, slot

    async def find(self) -> Address:
        """Return who has them now; raises `Unavailable` where nobody has, or nobody says."""
        return await self._servers.owner(self._slot)

    def left(self, at: Address, word: str = "") -> None:
        """``at``, who had them, does not answer, or says in a ``word`` where they are: ask there, or anew."""
        match word.split(" "):
            case ["MOVED", slot, to]:
                self._servers.point(int(slot), to, at)
            case _:
                self._servers.look_again()


class Servers:
    """The one server of a url, or the cluster that it belongs to; `find` them.

    A cluster's nodes say who has which slot. They are asked once, and again whenever a node is away or has no such
    slot any more, at most every `limits.CLUSTER_AGAIN`: once for all who dial then.
    """

    def __init__(self, seeds: Sequence[Address]) -> None:
        """Use `find`."""
        self._seeds = seeds
        #: First and last slot of a range, and who has it; in order. Empty where it is one server.
        self._nodes: list[tuple[int, int, Address]] = []
        self.clustered = False
        #: Slot → who has it, as who had it says: others may not have heard of it yet.
        self._pointed: dict[int, Address] = {}
        self._stale = False
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    @classmethod
    async def find(cls, url: str) -> Servers:
        """Ask what is at ``url``. Raises `Misconfigured`, and `Unavailable` where it cannot be reached (call again)."""
        servers = cls(addresses(url))
        await servers._ask()
        if servers.clustered and servers._seeds[0].database:
            raise Misconfigured("the log server is a cluster, which has database 0 alone", "take it out of the url")
        if not servers.clustered and len(servers._seeds) > 1:
            raise Misconfigured("several log servers are named, and they are no cluster", "name one")
        return servers

    def place(self, tag: str) -> Place:
        """Return where the keys with ``{tag}`` are."""
        return Place(self, slot_of(tag))

    def places(self) -> list[Place]:
        """Return a place on each server that has slots, as far as is known."""
        if not self.clustered:
            return [Place(self, 0)]
        first: dict[Address, int] = {}
        for begin, _, node in self._nodes:
            first.setdefault(node, begin)
        return [Place(self, begin) for begin in first.values()]

    async def owner(self, slot: int) -> Address:
        if not self.clustered:
            return self._seeds[0]
        if self._stale:
            await asyncio.shield(self._asked())  # whoever gives up leaves the others their answer
        if slot in self._pointed:
            return self._pointed[slot]
        for begin, end, node in self._nodes:
            if begin <= slot <= end:
                return node
        self.look_again()
        raise Unavailable(f"no node of the cluster has slot {slot}", "see CLUSTER INFO", retry_after=1.0)

    def point(self, slot: int, to: str, by: Address) -> None:
        """Take it from the node ``by`` that ``slot`` is now at ``to``, HOST:PORT."""
        host, _, port = to.rpartition(":")
        if self.clustered and port.isdigit():
            self._pointed[slot] = _beside(by, host.strip("[]"), int(port))

    def look_again(self) -> None:
        if self.clustered and asyncio.get_running_loop().time() - self._asked_at > limits.CLUSTER_AGAIN:
            self._stale = True

    def _asked(self) -> asyncio.Task[None]:
        """Return the asking under way; one that failed just now failed for those who come now, too."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at > limits.CLUSTER_AGAIN):
            self._asking = asyncio.create_task(self._ask(), name="who has which slot")
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may have given up
        return self._asking

    async def _ask(self) -> None:
        """Ask all nodes at once, those that are known and those of the url.

        The first that sees a whole cluster is believed; a node that was cut off, or lost another, where no better one
        speaks within `limits.LOG_CONNECT_WITHIN` of it. Raises why nobody says.
        """
        known = dict.fromkeys((*(node for _, _, node in self._nodes), *self._seeds))
        asked = [asyncio.create_task(_said(node), name=f"slots by {node.place}") for node in known]
        why: list[GatewayError] = []
        found: _Said | None = None
        try:
            waiting = set(asked)
            while waiting and not (found is not None and (found.whole or not found.clustered)):
                patience = None if found is None else limits.LOG_CONNECT_WITHIN
                done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    said = task.result()
                    if isinstance(said, GatewayError):
                        why.append(said)
                    elif said.clustered or not self.clustered:  # one that is alone now was taken out of the cluster
                        found = said if found is None or said.whole else found
        finally:
            for task in asked:
                task.cancel()
            self._asked_at = asyncio.get_running_loop().time()
        if found is None:
            # At the start what no waiting mends comes first; later one node's mistake must not end what others serve.
            why.sort(key=lambda error: isinstance(error, Misconfigured) is self.clustered)
            raise why[0] if why else Unavailable("no node of the cluster is one any more", "see CLUSTER NODES")
        if found.clustered:
            self.clustered, self._stale = True, False
            self._pointed.clear()
            self._nodes = sorted(found.ranges, key=lambda one: one[0])


async def connected(to: Address) -> Wire:
    """Return a connection on which nothing was said yet but who we are. Raises `OSError`, `TimeoutError`, and typed."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(limits.LOG_CONNECT_WITHIN):
        if to.path:
            _, wire = await loop.create_unix_connection(Wire, to.path)
        else:
            tls = ssl.create_default_context() if to.tls else None
            _, wire = await loop.create_connection(Wire, to.host, to.port, ssl=tls)
    try:
        hello = [pack("CLIENT", "SETNAME", "topic-gateway")]
        if to.password:
            hello.insert(0, pack("AUTH", *((to.user,) if to.user else ()), to.password))
        if to.database:
            hello.append(pack("SELECT", to.database))
        for reply in await wire.call(*hello):
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply)
    except BaseException:
        wire.abort()
        raise
    return wire


def away(to: Address, error: BaseException) -> Unavailable:
    why = f": {error}" if str(error) else ""  # of a timeout there is nothing to say
    return Unavailable(f"the log server at {to.place} does not answer{why}", retry_after=1.0)


class _Said(msgspec.Struct, frozen=True):
    """What a node says: whether it is one of a cluster, whether it sees all of it, and who has which slots."""

    clustered: bool = False
    whole: bool = False
    ranges: list[tuple[int, int, Address]] = []


async def _said(node: Address) -> _Said | GatewayError:
    try:
        return await _asked(node)
    except GatewayError as error:
        return error


async def _asked(node: Address) -> _Said:
    try:
        async with asyncio.timeout(limits.LOG_CONNECT_WITHIN + limits.LOG_REPLY_WITHIN):
            wire = await connected(msgspec.structs.replace(node, database=0))
            try:
                (info,) = await wire.call(pack("INFO", "cluster"))
                if isinstance(info, hiredis.ReplyError):
                    raise refusal(info)
                if b"cluster_enabled:1" not in cast("bytes", info):
                    return _Said()
                state, slots = await wire.call(pack("CLUSTER", "INFO"), pack("CLUSTER", "SLOTS"))
            finally:
                wire.abort()
    except (OSError, TimeoutError, Lost) as error:
        raise away(node, error) from error
    for reply in (state, slots):
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply)
    return _Said(True, b"cluster_state:ok" in cast("bytes", state), list(_ranges(slots, node)))


def _ranges(reply: Reply, asked: Address) -> Iterable[tuple[int, int, Address]]:
    for begin, end, master, *_ in cast("list[tuple[int, int, list[bytes | int | None]]]", reply):
        host, port = cast("bytes | None", master[0]), cast("int", master[1])
        yield begin, end, _beside(asked, (host or b"").decode(), port)


def _beside(by: Address, host: str, port: int) -> Address:
    """Return the node that ``by`` calls ``host``: an empty, unknown or null name means its own (CLUSTER SLOTS)."""
    where = {"host": by.host if host in {"", "?"} else host, "port": port or by.port, "path": ""}
    return msgspec.structs.replace(by, **where)

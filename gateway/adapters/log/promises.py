"""What the log server must give before anything is promised to anyone: version, memory policy, durability, format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import hiredis
import msgspec

from gateway.adapters.log.keys import AppLog
from gateway.adapters.log.link import good
from gateway.adapters.log.resp import Reply, Wire, pack
from gateway.errors import Misconfigured, Unavailable

#: Changes when entries or keys of the log change in a way that older gateways cannot read.
FORMAT = "1"
#: How a key finds its partition: ``zlib.crc32(key) mod partitions``.
HASH = "crc32"


class Health(msgspec.Struct, frozen=True):
    """How the log server is, for /readyz and metrics. Sizes in bytes, lag in bytes of the replication stream."""

    up: bool
    role: str = ""
    version: str = ""
    memory_used: int = 0
    #: 0: no bound.
    memory_bound: int = 0
    #: Used of the bound, 0.0 to 1.0; 0.0 without a bound.
    memory_ratio: float = 0.0
    #: Can it write to its disk?
    disk_ok: bool = True
    replicas: int = 0
    #: Of the replica that is nearest; 0 without replicas.
    replica_lag: int = 0
    why: str = ""


async def check_server(wire: Wire, apps: Sequence[AppLog]) -> None:
    """Ask at every (re)connect: the server may have been replaced. Raises `Misconfigured`, `Unavailable`."""
    info = parse_info((await wire.call(pack("INFO")))[0])
    if tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2]) < (7, 0):
        raise Misconfigured(
            f"the log server is version {info.get('redis_version')}", "use Valkey, or Redis 7.0 or later"
        )
    if info.get("role") != "master":
        raise Unavailable("the log server is a replica", "wait for the failover to end", retry_after=0.5)
    if info.get("loading") == "1":
        raise Unavailable("the log server is loading its data", retry_after=0.5)
    if info.get("maxmemory_policy") != "noeviction":
        raise Misconfigured(
            f"the log server throws keys out when full ({info.get('maxmemory_policy')})",
            "set maxmemory-policy noeviction",
        )
    if any(app.durability == "disk" for app in apps):
        await _check_disk(wire)


async def check_replicas(wire: Wire, apps: Sequence[AppLog]) -> None:
    """Ask at start alone: after a failover the survivor may have none for a while, and appends wait for one."""
    if not any(app.durability == "replica" for app in apps):
        return
    info = parse_info((await wire.call(pack("INFO", "replication")))[0])
    if int(info.get("connected_slaves", "0")) < 1:
        raise Misconfigured("durability `replica` is declared, and the log server has no replica", "attach one")


async def _check_disk(wire: Wire) -> None:
    replies = await wire.call(pack("CONFIG", "GET", "appendonly"), pack("CONFIG", "GET", "appendfsync"))
    for reply, (name, wanted) in zip(replies, (("appendonly", b"yes"), ("appendfsync", b"always")), strict=True):
        if isinstance(reply, hiredis.ReplyError):
            raise Misconfigured(
                f"the log server does not say whether it writes to disk: {reply}",
                "allow CONFIG GET, or declare durability `fast` or `replica`",
            )
        if not isinstance(reply, list) or reply[1:] != [wanted]:
            raise Misconfigured(
                f"durability `disk` is declared, and the log server has {name} {_value(reply)}",
                f"set {name} {wanted.decode()}",
            )


async def check_format(wire: Wire, gateway: str, partitions: int, keys: Mapping[str, str]) -> None:
    """Compare how the log was written with how we would; what is not there yet is stored. Raises `Misconfigured`."""
    ours = {"format": FORMAT, "partitions": str(partitions), "hash": HASH}
    ours |= {f"key {topic}": template for topic, template in keys.items()}
    name = f"{{{gateway}}}:format"
    # Reading first: a server that is full refuses HSETNX even where there is nothing to set.
    stored = _fields(good((await wire.call(pack("HGETALL", name)))[0]))
    _compare(stored, ours)  # before anything is stored: what is refused leaves nothing behind
    new = [pack("HSETNX", name, field, value) for field, value in ours.items() if field not in stored]
    if new:
        for reply in await wire.call(*new):
            good(reply)
        _compare(_fields(good((await wire.call(pack("HGETALL", name)))[0])), ours)


def _compare(stored: Mapping[str, str], ours: Mapping[str, str]) -> None:
    for field, value in ours.items():
        if stored.get(field, value) != value:
            raise Misconfigured(
                f"the log was written with {field} = {stored[field]}, and now {field} = {value}",
                "restore the setting, or begin a new log",
            )


def parse_info(reply: Reply) -> dict[str, str]:
    """INFO as names and values; empty where the server refused to say."""
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def health(reply: Reply) -> Health:
    """Read INFO."""
    info = parse_info(reply)
    used, bound = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    offset = int(info.get("master_repl_offset", "0"))
    acknowledged = [
        int(word.removeprefix("offset="))
        for name, value in info.items()
        if name.startswith("slave") and "offset=" in value
        for word in value.split(",")
        if word.startswith("offset=")
    ]
    return Health(
        up=True,
        role=info.get("role", ""),
        version=info.get("valkey_version") or info.get("redis_version", ""),
        memory_used=used,
        memory_bound=bound,
        memory_ratio=used / bound if bound else 0.0,
        disk_ok=info.get("aof_last_write_status", "ok") == "ok",
        replicas=len(acknowledged),
        replica_lag=max(0, offset - max(acknowledged)) if acknowledged else 0,
    )


def _value(reply: Reply) -> str:
    return reply[1].decode() if isinstance(reply, list) and len(reply) > 1 and isinstance(reply[1], bytes) else "unset"


def _fields(reply: Reply) -> dict[str, str]:
    flat = cast("list[bytes]", reply) if isinstance(reply, list) else []
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}

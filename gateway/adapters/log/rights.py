"""What each role may do at the log server: a user of its access list (ACL) for each, with the keys that are its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

Role = Literal["edge", "bridge", "work", "operator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

#: The gateway's own keys, by who needs them; an application's partitions are for all roles.
_OWN: Final[dict[Role, tuple[str, ...]]] = {
    # Only edges and operators write to the control stream: it sends clients away and gives them subscriptions.
    "edge": ("control", "edges", "format", "replies", "revoked", "survey:*", "ticket:*", "workers:*"),
    "bridge": ("bridge:*", "format"),
    "work": ("format", "replies", "workers:*"),
    "operator": ("*",),
}
#: What calls and scripts use; a script has the rights of who calls it. No EVAL of other text than SCRIPT LOAD took, no
#: KEYS, FLUSHALL, CONFIG SET, DEBUG, SHUTDOWN, REPLICAOF, ACL SETUSER, and nothing else that is not here.
_COMMANDS: Final = (
    "client|setname cluster|info cluster|slots config|get evalsha info script|load time wait "
    "get getdel getrange exists set del "
    "hdel hexists hget hgetall hincrby hkeys hlen hmget hscan hset hsetnx "
    "multi exec "
    "sadd scard sismember smembers srem "
    "xadd xdel xinfo|stream xlen xrange xread xrevrange xtrim "
    "zadd zcard zlexcount zrange zrangebylex zrangebyscore zrem zremrangebyscore zrevrange zrevrangebyscore zscore"
).split()


def access_list(gateway: str, apps: Iterable[str], passwords: Mapping[Role, str]) -> str:
    """Return the server's ``aclfile`` for ``gateway`` and its ``apps``; ``passwords`` are SHA-256 in hexadecimal.

    Whoever brings no name may ask for PING alone. Source: Redis and Valkey, ACL (commands, key patterns, ``#hash``).
    """
    commands = " ".join(f"+{word}" for word in _COMMANDS)
    lines = ["user default on nopass resetkeys resetchannels -@all +ping"]
    for role in ROLES:
        # Somebody has to, for a new file to be read: it holds what was written here, and nothing that a client says.
        more = " +acl|load" if role == "operator" else ""
        # The letters of no topic are the gateway's own partition 0.
        own = [f"~{{{gateway}}}:{name}" for name in _OWN[role]] + [f"~{{{gateway}.0}}*"]
        keys = [*own, *(f"~{{{app}.*}}*" for app in sorted(apps))]
        lines.append(f"user {role} on #{passwords[role]} resetchannels -@all {commands}{more} {' '.join(keys)}")
    return "\n".join(lines) + "\n"

"""A real cluster of Redis or Valkey servers on this machine: its nodes, who has which slots, and moving them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis as redis_client

from gateway.adapters import embedded
from gateway.adapters.child import Server
from gateway.adapters.log.servers import SLOTS, slot_of
from tests.servers import stream_server

#: Until a cluster agrees on itself, in seconds: a guard against hanging.
WITHIN = 60.0
#: After so many milliseconds without an answer a node is taken for dead.
_NODE_TIMEOUT = 1_000


class Node:
    """One server, and a plain client of it: its types do not know what it answers."""

    def __init__(self, server: Server, port: int, bus: int) -> None:
        self.server, self.port, self.bus = server, port, bus
        self.admin: Any = redis_client.Redis(port=port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def id(self) -> str:
        return str(self.admin.execute_command("CLUSTER MYID").decode())


class Cluster:
    """Use `cluster`."""

    def __init__(self, masters: list[Node], replicas: list[Node]) -> None:
        self.masters, self.replicas = masters, replicas

    @property
    def url(self) -> str:
        """Of all masters: any of them may be away."""
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    @property
    def nodes(self) -> list[Node]:
        return [*self.masters, *self.replicas]

    def of(self, tag: str) -> Node:
        """Return who has the keys of ``tag``, as the first node that answers sees it."""
        port = self._owner(slot_of(tag))
        return next(node for node in self.nodes if node.port == port)

    def _owner(self, slot: int) -> int:
        for node in self.nodes:
            if node.server.alive:
                for begin, end, master, *_ in node.admin.execute_command("CLUSTER", "SLOTS"):
                    if begin <= slot <= end:
                        return int(master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, tag: str, to: Node) -> None:
        """Give the slot of ``tag`` to another master, key by key, as `redis-cli --cluster reshard` does."""
        slot, here = slot_of(tag), self.of(tag)
        to.admin.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.id)
        here.admin.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        while keys := here.admin.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            here.admin.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
        living = [node for node in self.masters if node.server.alive]
        for node in (to, here, *living):
            node.admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        until(lambda: all(self._sees(node, slot) == to.port for node in living))

    def move_at_once(self, tag: str, to: Node) -> None:
        """The same by Valkey 9, whose slots move whole."""
        slot, here = slot_of(tag), self.of(tag)
        here.admin.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        until(lambda: all(self._sees(node, slot) == to.port for node in self.masters))

    def _sees(self, node: Node, slot: int) -> int:
        rows = node.admin.execute_command("CLUSTER", "SLOTS")
        return next((int(master[1]) for begin, end, master, *_ in rows if begin <= slot <= end), 0)


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + WITHIN
    while True:
        try:
            if condition():
                return
        except redis_client.RedisError as error:
            if time.monotonic() > give_up:
                raise AssertionError("the cluster does not come to rest") from error
        assert time.monotonic() < give_up, "the cluster does not come to rest"
        time.sleep(0.05)


@contextmanager
def cluster(
    name: str, folder: Path, masters: int = 3, replicas: int = 0, extra: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """Run ``masters`` of equal shares, and so many ``replicas`` of each, in the block."""
    with ExitStack() as running:

        def start(number: int) -> Node:
            port, bus = embedded.free_ports(2)
            lines = (
                "cluster-enabled yes",
                f"cluster-port {bus}",
                f"cluster-node-timeout {_NODE_TIMEOUT}",
                "cluster-require-full-coverage no",
                *extra,
            )
            server = running.enter_context(stream_server(name, folder / f"node-{number}", port=port, extra=lines))
            return Node(server, port, bus)

        nodes = [start(number) for number in range(masters * (1 + replicas))]
        found = Cluster(nodes[:masters], nodes[masters:])
        for number, node in enumerate(found.masters):
            begin, end = (SLOTS * at // masters for at in (number, number + 1))
            node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        for node in nodes[1:]:
            node.admin.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus)
        until(lambda: all(_knows(node, len(nodes)) for node in nodes))
        for number, node in enumerate(found.replicas):
            of = found.masters[number % masters]
            until(lambda node=node, of=of: node.admin.execute_command("CLUSTER", "REPLICATE", of.id))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
        until(lambda: all(_well(node) for node in nodes))
        until(lambda: all(node.admin.info("replication")["master_link_status"] == "up" for node in found.replicas))
        yield found


def _knows(node: Node, count: int) -> bool:
    return f"cluster_known_nodes:{count}\r\n" in _info(node)


def _well(node: Node) -> bool:
    return "cluster_state:ok" in _info(node)


def _info(node: Node) -> str:
    text = node.admin.execute_command("CLUSTER INFO")
    return text.decode() if isinstance(text, bytes) else "\r\n".join(f"{k}:{v}" for k, v in text.items()) + "\r\n"

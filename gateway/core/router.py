"""Who wants this topic: a tree of filters, walked once per topic until a filter comes or goes.

The cost of a walk follows the depth of the topic, not the number of filters: at each level at most two branches go
on, the level's own and ``+``, so at most 2^depth nodes are visited per level: fewer than 2^(depth + 1) in all, and in
practice a handful, because few filters have ``+`` at every level.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from gateway import limits

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "hash", "here", "plus")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] | None = None
        self.plus: _Node[T] | None = None
        self.here: T | None = None
        self.hash: T | None = None

    def empty(self) -> bool:
        return not self.children and self.plus is None and self.here is None and self.hash is None


class Router(Generic[T]):
    """Filters, each with one value. Bounded by its owner: a client has ``limits.SUBSCRIPTIONS`` filters at most."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._size = 0
        #: Topic → what a walk found. Topics repeat far more often than filters change; any change forgets all of it.
        self._known: dict[str, tuple[T, ...]] = {}
        #: Nodes visited by all walks so far: the measure of what a walk costs, whatever machine it runs on.
        self.visited = 0

    def __len__(self) -> int:
        return self._size

    def add(self, filter: str, value: T) -> None:
        """Let ``filter`` lead to ``value``, in place of what it led to before."""
        self._known.clear()
        node = self._root
        levels = filter.split("/")
        last = levels.pop() if levels[-1] == "#" else ""
        for level in levels:
            if level == "+":
                node.plus = node.plus or _Node()
                node = node.plus
            else:
                if node.children is None:
                    node.children = {}
                node = node.children.get(level) or node.children.setdefault(level, _Node())
        if last:
            self._size += node.hash is None
            node.hash = value
        else:
            self._size += node.here is None
            node.here = value

    def remove(self, filter: str) -> None:
        """Forget ``filter``, and every node that only it needed. Unknown filters are ignored."""
        self._known.clear()
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        levels = filter.split("/")
        last = levels.pop() if levels[-1] == "#" else ""
        for level in levels:
            child = node.plus if level == "+" else (node.children or {}).get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        if last:
            self._size -= node.hash is not None
            node.hash = None
        else:
            self._size -= node.here is not None
            node.here = None
        while path and node.empty():
            node, level = path.pop()
            if level == "+":
                node.plus = None
            else:
                (node.children or {}).pop(level)

    def match(self, topic: str) -> tuple[T, ...]:
        """Return the values of all filters that let ``topic`` through."""
        found = self._known.get(topic)
        if found is None:
            found = tuple(self._walk(topic))
            if len(self._known) >= limits.TOPIC_CACHE:
                self._known.clear()
            self._known[topic] = found
        return found

    def _walk(self, topic: str) -> list[T]:
        found: list[T] = []
        levels = topic.split("/")
        # MQTT-4.7.2-1: a filter that begins with a wildcard does not let a topic through that begins with $.
        reserved = topic.startswith("$")
        nodes = [self._root]
        visited = 1
        for depth, level in enumerate(levels):
            following: list[_Node[T]] = []
            for node in nodes:
                wild = depth > 0 or not reserved
                if node.hash is not None and wild:
                    found.append(node.hash)
                if node.children is not None:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
                if node.plus is not None and wild:
                    following.append(node.plus)
            nodes = following
            visited += len(nodes)
        for node in nodes:
            if node.here is not None:
                found.append(node.here)
            if node.hash is not None:
                found.append(node.hash)
        self.visited += visited
        return found

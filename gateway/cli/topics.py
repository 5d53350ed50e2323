"""``gateway topics``: what is declared."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.cli.configuration import Config, Json, gather
from gateway.core.declared import Topic


def run(config: Config = None, json: Json = False) -> None:
    """List the declared topics."""
    declared = gather(config).declared
    if json:
        for topic in declared:
            row = {name: getattr(topic, name) for name in topic.__struct_fields__ if name != "schema"}
            print(msgspec.json.encode(row | {"app": topic.owner}).decode())
        return
    if not declared.topics:
        print("nothing is declared; write [[topics]] into gateway.toml")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "app", "payload", "write", "read", "key", "notes"):
        # A pattern is what people copy from here.
        table.add_column(heading, overflow="fold", no_wrap=heading == "topic")
    for topic in declared:
        grants = (", ".join(topic.write) or "nobody", ", ".join(topic.read) or "nobody")
        table.add_row(topic.pattern, topic.owner, topic.payload, *grants, topic.key or "the topic", _notes(topic))
    Console(highlight=False, markup=False).print(table)


def _notes(topic: Topic) -> str:
    said = {
        f"MQTT {topic.mqtt}": topic.mqtt is not None,
        "command": topic.kind == "command",
        "last value kept": topic.retain,
        "live only": topic.ephemeral,
        "no history": not topic.history,
        "schema": topic.schema is not None,
    }
    return ", ".join(note for note, true in said.items() if true)

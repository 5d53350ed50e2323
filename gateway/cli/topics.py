"""``gateway topics``: what is declared."""

from __future__ import annotations

import msgspec

from gateway.cli.configuration import Config, Json, gather
from gateway.cli.rows import print_rows
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
    rows = [
        (
            topic.pattern,
            topic.owner,
            topic.payload,
            ", ".join(topic.write) or "nobody",
            ", ".join(topic.read) or "nobody",
            topic.key or "the topic",
            _notes(topic),
        )
        for topic in declared
    ]
    print_rows(("topic", "app", "payload", "write", "read", "key", "notes"), rows)


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

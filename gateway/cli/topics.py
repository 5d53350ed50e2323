"""``gateway topics``: what is declared."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from gateway.cli.configuration import Config, Json, gather
from gateway.cli.explain import granted, notes
from gateway.cli.rows import print_rows
from gateway.core.asyncapi import Reached
from gateway.edge.process import WEBSOCKET_PATH

AsAsyncApi = Annotated[bool, typer.Option("--asyncapi", help="All of it as an AsyncAPI 3 document, in JSON.")]


def run(config: Config = None, json: Json = False, asyncapi: AsAsyncApi = False) -> None:
    """List the declared topics."""
    found = gather(config)
    if asyncapi:
        at = found.settings.edge
        host = f"[{at.host}]" if ":" in at.host else at.host
        reached = Reached(f"{host}:{at.port}", bool(at.tls_cert) or at.behind_proxy, WEBSOCKET_PATH)
        print(found.asyncapi.document(None, reached).body.decode())
        return
    declared = found.declared
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
            granted(topic.write, topic.deny_write),
            granted(topic.read, topic.deny_read),
            topic.key or "the topic",
            notes(topic),
        )
        for topic in declared
    ]
    print_rows(("topic", "app", "payload", "write", "read", "key", "notes"), rows)

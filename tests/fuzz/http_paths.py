"""The HTTP paths of an edge as an OpenAPI 3.1 document, for the fuzzer to read."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_ANY: dict[str, Any] = {}

#: Path → what is in it, in the order of the gateway's own table of routes.
PATHS: dict[str, tuple[str, ...]] = {
    "/topics/{filter}/events": ("get",),
    "/topics/{topic}/history": ("get",),
    "/topics/{topic}": ("get", "post"),
    "/livez": ("get",),
    "/readyz": ("get",),
    "/metrics": ("get",),
    "/api/{method}": ("post",),
    "/asyncapi.json": ("get",),
    "/dead": ("get",),
    "/dead/replay": ("post",),
    "/dead/drop": ("post",),
    "/dead/{partition}/{id}": ("get", "put"),
    "/tickets": ("post",),
    "/revocations": ("post",),
}
#: What is really there, for the fuzzer to fall upon: a schema that also allows any text is any text to it.
GOOD: dict[str, tuple[str, ...]] = {
    "topic": ("try/x", "devices/7/telemetry", "rooms/1/messages", "users/alice/inbox"),
    "filter": ("try/#", "devices/+/telemetry", "rooms/1/#", "#"),
    "method": ("publish", "broadcast", "history", "presence", "info", "batch", "disconnect"),
    "partition": ("devices.0", "rooms.1"),
    "id": ("1-1", "1795376295235-0", "-", "+"),
}
_QUERY = {
    "/topics/{topic}": {"wait": _TEXT},
    "/topics/{topic}/history": {"limit": _NUMBER, "since": _TEXT, "reverse": _TEXT, "epoch": _TEXT, "offset": _NUMBER},
    "/topics/{filter}/events": {"ticket": _TEXT},
    "/dead": {"group": _TEXT, "reason": _TEXT, "topic": _TEXT, "limit": _NUMBER, "after": _TEXT},
}
_HEADERS = ("event-id", "idempotency-key", "traceparent", "last-event-id", "origin")
_WHICH = {
    "type": "object",
    "properties": {
        "letters": {"type": "array", "items": _TEXT},
        "which": {"type": "object", "properties": dict.fromkeys(("group", "reason", "topic"), _TEXT)},
        "limit": _ANY,
        "rate": {"type": "number"},
        "dry_run": {"type": "boolean"},
    },
}
_CALL = {
    "type": "object",
    "properties": {
        "channel": _TEXT,
        "channels": {"type": "array", "items": _TEXT},
        "data": _ANY,
        "user": _TEXT,
        "limit": _ANY,
        "commands": {"type": "array", "items": {"type": "object"}},
    },
}
_BODIES: dict[str, dict[str, Any]] = {"/dead/replay": _WHICH, "/dead/drop": _WHICH, "/api/{method}": _CALL}


def document() -> dict[str, Any]:
    """OpenAPI 3.1: every path with what its code looks at; what an answer may be is the test's to say."""
    paths = {path: {method: _operation(path, method) for method in methods} for path, methods in PATHS.items()}
    return {"openapi": "3.1.0", "info": {"title": "an edge", "version": "0"}, "paths": paths}


def _operation(path: str, method: str) -> dict[str, Any]:
    named = [part.split("}")[0] for part in path.split("{")[1:]]
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in _QUERY.get(path, {}).items()]
    parameters += [{"name": name, "in": "header", "schema": _TEXT} for name in _HEADERS]
    operation: dict[str, Any] = {"parameters": parameters, "responses": {"default": {"description": "any"}}}
    if method in ("post", "put"):
        schema = {"anyOf": [_BODIES[path], _ANY]} if path in _BODIES else _ANY
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation

"""What the HTTP routes take and answer, as an OpenAPI 3.1 document: as much of it as its reader may use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from gateway import limits
from gateway.core.access import Principal
from gateway.core.asyncapi import Document, Reached, could
from gateway.core.schema import schemas
from gateway.errors import BadToken, GatewayError

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_SCHEMAS: Final = "#/components/schemas/{name}"
_PATH: Final = re.compile(r"\{(\w+)\}")
_TEXT: Final = {"type": "string"}
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "Of a service."},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "Good for one request; comes alone."},
}
_HEADERS: Final = {
    "Retry-After": {
        "description": "Seconds to wait before the same request may succeed.",
        "schema": {"type": "integer"},
    },
    "WWW-Authenticate": {"description": "`Bearer`", "schema": _TEXT},
}
_DESCRIPTION: Final = """\
The HTTP routes of the gateway and of the services behind it, on one origin. Only what its reader may use is here; \
`x-topic-gateway-grants` of an operation says who may. What goes wrong is answered as problem+json (RFC 9457), whose \
`type` is `urn:topic-gateway:CODE`; `x-topic-gateway-codes` has the codes of each status. HEAD is answered wherever \
GET is. A name in a path is percent-encoded, its `/` too. What topics carry is in `/asyncapi.json`."""

#: Makes the schema of a type.
Schema = Callable[[Any], dict[str, Any]]


class Parameter(msgspec.Struct, frozen=True):
    """A part of the path or the query, or a header."""

    name: str
    where: Literal["path", "query", "header"]
    about: str = ""
    type: Any = str
    required: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What is answered with one status where all is well."""

    about: str
    #: Media type → type of the body. That of text and of bytes says nothing.
    body: Mapping[str, Any] = {}
    #: Name → what it says.
    headers: Mapping[str, str] = {}


class Operation(msgspec.Struct, frozen=True):
    """One method of one path."""

    #: Unlike every other's.
    id: str
    method: str
    #: With ``{names}``.
    path: str
    tag: str
    summary: str
    #: Who may, in the words of a topic's grants; None where nobody said it, and then it is shown to operators alone.
    grants: tuple[str, ...] | None = None
    description: str = ""
    #: What is not here of the path is one level of text.
    parameters: tuple[Parameter, ...] = ()
    #: A struct whose fields are the query's parameters.
    query: Any = None
    #: Media type → type.
    body: Mapping[str, Any] = {}
    #: By status. None at all: it did not say.
    answers: Mapping[int, Answer] = {}
    errors: tuple[type[GatewayError], ...] = ()
    #: How one may say who asks.
    security: tuple[Literal["bearer", "apiKey", "ticket"], ...] = ("bearer", "apiKey")


class OpenApi:
    """The documents of one gateway: one for all who may do the same. Pure, and encoded once for each of them."""

    def __init__(
        self, operations: Iterable[Operation], problem: Any, *, title: str = "gateway", version: str = "0"
    ) -> None:
        """``problem`` is the type of an error's answer."""
        self._operations = tuple(operations)
        self._problem = problem
        self._info = {"title": title, "version": version, "description": _DESCRIPTION}
        self._encoded: dict[tuple[bool, ...], bytes] = {}

    def document(self, who: Principal | None, reached: Reached) -> Document:
        """Return what ``who`` may ask for; for an operator, and for None, every operation."""
        everything = who is None or who.kind == "operator"
        key = tuple(
            who is None or everything or (one.grants is not None and could(who, one.grants)) for one in self._operations
        )
        rest = self._encoded.get(key)
        if rest is None:
            if len(self._encoded) >= limits.DOCUMENTS:
                self._encoded.clear()
            shown = [one for one, seen in zip(self._operations, key, strict=True) if seen]
            rest = self._encoded[key] = msgspec.json.encode(self._rest(shown))
        servers = msgspec.json.encode([{"url": f"{'https' if reached.secure else 'http'}://{reached.host}"}])
        return Document.of(b'{"openapi":"3.1.0","servers":%s,%s' % (servers, rest[1:]))

    def _rest(self, shown: Sequence[Operation]) -> dict[str, Any]:
        # Written twice: types share names, so all of them are needed before the first has a schema.
        types: list[Any] = []

        def noted(type: Any) -> dict[str, Any]:
            types.append(type)
            return {}

        self._written(shown, noted)
        made, shared = schemas(types, _SCHEMAS, draft7=False)
        found = iter(made)
        paths, responses = self._written(shown, lambda type: next(found))
        return {
            "info": self._info,
            "tags": [{"name": name} for name in dict.fromkeys(one.tag for one in shown)],
            "paths": paths,
            "components": {
                "schemas": shared,
                "responses": responses,
                "headers": _HEADERS,
                "securitySchemes": _SECURITY,
            },
        }

    def _written(self, shown: Sequence[Operation], schema: Schema) -> tuple[dict[str, Any], dict[str, Any]]:
        problem = {PROBLEM: {"schema": schema(self._problem)}}
        paths, responses = dict[str, Any](), dict[str, Any]()
        for one in shown:
            refusals = dict[str, Any]()
            for status, errors in _by_status(one.errors):
                name = ".".join([str(status), *errors])
                refusals[str(status)] = {"$ref": f"#/components/responses/{name}"}
                responses[name] = _refusal(errors, problem)
            paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, refusals, schema)
        return paths, responses


def _operation(one: Operation, refusals: dict[str, Any], schema: Schema) -> dict[str, Any]:
    answers = {str(status): _answer(answer, schema) for status, answer in one.answers.items()}
    ways: list[dict[str, list[str]]] = [{name: []} for name in one.security]
    if one.grants is None or "anyone" in one.grants:
        ways.insert(0, {})
    made: dict[str, Any] = {
        "operationId": one.id,
        "tags": [one.tag],
        "summary": one.summary,
        "parameters": [*_parameters(one, schema)],
        "responses": answers | refusals or {"default": {"description": "It does not say what it answers."}},
        "security": ways,
    }
    if one.description:
        made["description"] = one.description
    if one.body:
        made["requestBody"] = {"required": True, "content": _content(one.body, schema)}
    if one.grants is not None:
        made["x-topic-gateway-grants"] = one.grants
    return made


def _parameters(one: Operation, schema: Schema) -> Iterator[dict[str, Any]]:
    told = {(parameter.where, parameter.name) for parameter in one.parameters}
    rest = [Parameter(name, "path") for name in _PATH.findall(one.path) if ("path", name) not in told]
    for parameter in (*one.parameters, *rest):
        required = parameter.required or parameter.where == "path"
        made = {"name": parameter.name, "in": parameter.where, "required": required, "schema": schema(parameter.type)}
        yield made | ({"description": parameter.about} if parameter.about else {})
    for field in msgspec.structs.fields(one.query) if one.query is not None else ():
        type = schema(field.type)
        if not field.required and field.default and field.default not in (msgspec.NODEFAULT, msgspec.UNSET):
            type = {**type, "default": field.default}
        yield {"name": field.encode_name, "in": "query", "required": field.required, "schema": type}


def _content(body: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    return {media: {"schema": _schema(media, type, schema)} for media, type in body.items()}


def _schema(media: str, type: Any, schema: Schema) -> dict[str, Any]:
    if media.endswith("json") and media != "application/x-ndjson":
        return schema(type)
    return _TEXT if media.startswith("text/") else {}


def _answer(answer: Answer, schema: Schema) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.about}
    if answer.body:
        made["content"] = _content(answer.body, schema)
    if answer.headers:
        made["headers"] = {name: {"description": says, "schema": _TEXT} for name, says in answer.headers.items()}
    return made


def _by_status(errors: Iterable[type[GatewayError]]) -> Iterator[tuple[int, dict[str, type[GatewayError]]]]:
    found: dict[int, dict[str, type[GatewayError]]] = {}
    for error in sorted(errors, key=lambda error: (error.status, error.code)):
        found.setdefault(error.status, {})[error.code] = error
    yield from found.items()


def _refusal(errors: Mapping[str, type[GatewayError]], problem: dict[str, Any]) -> dict[str, Any]:
    told = [f"`{code}`: {(error.__doc__ or code).splitlines()[0]}" for code, error in errors.items()]
    headers = {
        "Retry-After": any(error.retry for error in errors.values()),
        "WWW-Authenticate": any(issubclass(error, BadToken) for error in errors.values()),
    }
    return {
        "description": "\n\n".join(told),
        "content": problem,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name, there in headers.items() if there},
        "x-topic-gateway-codes": [*errors],
    }

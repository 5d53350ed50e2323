"""A route of a service: who asks, what it takes and what it answers; said once, held to, and told by a document."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from types import NoneType
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from starlette.convertors import FloatConvertor, IntegerConvertor, UUIDConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, compile_path

from gateway.adapters.http_bounds import BadPath, TooSlow
from gateway.adapters.http_forward import BadAnswer
from gateway.adapters.http_page import query
from gateway.adapters.http_problem import HeadTooLarge, NoRoute, SlowBody
from gateway.core.access import ANONYMOUS, KINDS, Principal, check_grants, may
from gateway.core.openapi import JSON, Answer, Operation, Parameter
from gateway.core.payload import check_json
from gateway.errors import (
    BadPayload,
    BadToken,
    Busy,
    Denied,
    GatewayError,
    Misconfigured,
    Refused,
    TokenExpired,
    TooLarge,
    Unavailable,
)
from gateway.service import Service

#: What may go wrong on the way to any route.
_ALWAYS: Final = (BadPath, Refused, BadToken, TokenExpired, Denied, HeadTooLarge)
_OURS: Final = (Busy, GatewayError, BadAnswer, Unavailable, TooSlow)
_OF_BODIES: Final = (BadPayload, SlowBody, TooLarge)
_TYPES: Final[dict[type, Any]] = {
    IntegerConvertor: Annotated[int, msgspec.Meta(ge=0)],
    FloatConvertor: Annotated[float, msgspec.Meta(ge=0)],
    UUIDConvertor: UUID,
}
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def principal(request: Request, *grants: str) -> Principal:
    """Return who asks; with ``grants``, only one whom they let through.

    A grant is a word as of ``Topic.read``: ``operator``, ``service:billing``, or ``user:{user}`` where ``{user}`` is a
    part of the route's path. Raises :class:`BadToken` (401) where no token came, and :class:`Denied` (403).
    """
    who: Principal = request.state.principal
    if who == ANONYMOUS:
        raise BadToken("a token is needed", "send Authorization: Bearer TOKEN")
    if grants and not may(who, grants, {name: str(value) for name, value in request.path_params.items()}):
        raise Denied(f"{who} may not do this", f"it takes {' or '.join(grants)}")
    return who


async def body(request: Request, type: type[T]) -> T:
    """Return the request's body, strict JSON, as ``type``: anything that msgspec decodes.

    Raises :class:`BadPayload` (422) with what is wrong and where, and :class:`TooLarge` (413).
    """
    try:
        return msgspec.json.decode(check_json(await request.body()), type=type)
    except msgspec.ValidationError as error:
        raise BadPayload(f"the body is not what this route takes: {error}", "mend it") from None


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as JSON: anything that msgspec encodes. Caches keep nothing, unless ``headers`` say so."""
    known = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(value), status, known, "application/json")


def operation(
    summary: str,
    *,
    grants: Sequence[str] = (),
    status: int = 200,
    errors: Sequence[type[GatewayError]] = (),
    answers: Mapping[int, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    sends: Mapping[str, str] | None = None,
    media: str = JSON,
    description: str = "",
) -> Callable[[Callable[..., Awaitable[object]]], Endpoint]:
    """Make a route of ``async def name(request, body: Type, query: Struct) -> Type``; the last two where it wants them.

    ``body`` is the request's, strict JSON, decoded as :func:`body` does (``bytes``: as it came); ``query`` is decoded
    by :func:`query`. What it returns is answered as JSON with ``status``, None without a body (204 by default); a
    Response as it is, and then ``answers`` may tell its type by status. ``grants`` as of `principal`, looked at before
    anything else; by default whoever has a token, ``["anyone"]``: nobody needs one. ``errors``: what it may raise
    beside what any route does. ``headers``: of the request, each with a sentence; one with a type, such as
    ``Annotated[str, Meta(max_length=128)]``, must be there and be of it, else 400. ``sends``: headers of the answers.
    ``media``: what the answers are, where that is no JSON.

    ``/openapi.json`` tells all of it. Raises :class:`Misconfigured`; also later, when a process serves the route or
    writes the document, for types that do not exist and grants that name no part of the path.
    """
    said = {name: about for name, about in (headers or {}).items() if isinstance(about, str)}
    must = {name: type for name, type in (headers or {}).items() if name not in said}
    told = _Told(
        summary,
        description,
        tuple(grants),
        status,
        tuple(errors),
        dict(answers or {}),
        said,
        must,
        dict(sends or {}),
        media,
    )

    def take(call: Callable[..., Awaitable[object]]) -> Endpoint:
        shape = _Shape(call, told)

        @functools.wraps(call)
        async def endpoint(request: Request) -> Response:
            if "anyone" not in told.grants:
                principal(request, *told.grants)
            for name, type in told.must.items():
                _check_header(request, name, type)
            given: dict[str, object] = {}
            if "query" in shape.takes:
                given["query"] = query(request, shape.takes["query"])
            if "body" in shape.takes:
                wanted = shape.takes["body"]
                given["body"] = await (request.body() if wanted is bytes else body(request, wanted))
            made = await call(request, **given)
            if isinstance(made, Response):
                return made
            return Response(status_code=shape.status) if made is None else answer(made, shape.status)

        endpoint.operation = shape  # type: ignore[attr-defined]  # a function may carry what is known of it
        return endpoint

    return take


def _check_header(request: Request, name: str, type: Any) -> None:
    try:
        msgspec.convert(request.headers.get(name), type, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(f"the header {name} is missing, or not what this route takes: {error}", "mend it") from None


class _Told(msgspec.Struct, frozen=True):
    summary: str
    description: str
    grants: tuple[str, ...]
    status: int
    errors: tuple[type[GatewayError], ...]
    answers: dict[int, Any]
    headers: dict[str, str]
    must: dict[str, Any]
    sends: dict[str, str]
    media: str


class _Shape:
    """What a function takes and returns by its annotations; read late, when every name in them exists."""

    def __init__(self, call: Callable[..., Awaitable[object]], told: _Told) -> None:
        self.told = told
        self.name = call.__qualname__
        self._call = call
        self._parameters = tuple(inspect.signature(call).parameters)
        fits = self._parameters[:1] == ("request",) and {*self._parameters} <= {"request", "body", "query"}
        if not fits or not inspect.iscoroutinefunction(call):
            raise Misconfigured(
                f"{self._where} is no operation", "write async def name(request), and body or query if it wants them"
            )

    @property
    def _where(self) -> str:
        return f"{self._call.__module__}.{self.name}"

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._call, include_extras=True)
        except NameError as error:
            raise Misconfigured(f"{self._where}: {error}", "annotate it with types that its module knows") from None

    @cached_property
    def takes(self) -> dict[str, Any]:
        """What `body` and `query` are annotated with, where it takes them."""
        found = {name: self._hints.get(name, Any) for name in self._parameters[1:]}
        if "query" in found and not (isinstance(found["query"], type) and issubclass(found["query"], msgspec.Struct)):
            raise Misconfigured(f"{self._where}: its query is no struct", "annotate it with a msgspec.Struct")
        return found

    @cached_property
    def status(self) -> int:
        nothing = self.told.status == HTTPStatus.OK and self._hints.get("return") is type(None)
        return HTTPStatus.NO_CONTENT if nothing else self.told.status

    def described(self, one: Operation) -> Operation:
        """Return ``one``, which has no more than a place, with all that is known."""
        returned, types = self._hints.get("return", Any), dict(self.told.answers)
        if not (isinstance(returned, type) and issubclass(returned, Response)):
            types.setdefault(self.status, returned)
        errors = {*_ALWAYS, *_OURS, *self.told.errors}
        if one.parameters:
            errors.add(NoRoute)
        wanted = self.takes.get("body")
        if wanted is not None:
            errors.update(_OF_BODIES)
        return msgspec.structs.replace(
            one,
            summary=self.told.summary,
            description=self.told.description,
            grants=self.told.grants or KINDS,
            parameters=(
                *one.parameters,
                *(Parameter(name, "header", about) for name, about in self.told.headers.items()),
                *(Parameter(name, "header", type=type, required=True) for name, type in self.told.must.items()),
            ),
            query=self.takes.get("query"),
            body={} if wanted is None else {"application/octet-stream" if wanted is bytes else JSON: wanted},
            answers={
                status: Answer(
                    HTTPStatus(status).phrase,
                    {} if type in (None, NoneType) else {self.told.media: type},
                    self.told.sends,
                )
                for status, type in types.items()
            },
            errors=tuple(errors),
        )


def operations(group: str, service: Service) -> Iterator[Operation]:
    """Yield what the routes of ``service`` say of themselves; raises :class:`Misconfigured`.

    A route that is no :func:`operation` is there by its path and method alone.
    """
    taken: set[str] = set()
    for path, route in _flat("", service.routes):
        _, template, convertors = compile_path(path)
        parameters = tuple(
            Parameter(name, "path", type=_TYPES.get(type(kind), str)) for name, kind in convertors.items()
        )
        place = f"/{group.replace('.', '/')}{template if template != '/' else ''}"
        shape: _Shape | None = getattr(route.endpoint, "operation", None)
        if shape is not None:
            check_grants(shape.told.grants, tuple(convertors), f"service {group!r}: {shape.name} at {path!r}")
        # A class answers the methods it has.
        methods = route.methods or {method for method in _METHODS if hasattr(route.endpoint, method.lower())}
        for method in sorted(methods - {"HEAD"}):
            id = f"{group}.{route.name}"
            while id in taken:
                id += f".{method.lower()}"
            taken.add(id)
            one = Operation(id, method, place, group, route.name, parameters=parameters)
            yield one if shape is None else shape.described(one)


def _flat(prefix: str, routes: Sequence[BaseRoute]) -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Route):
            yield prefix + route.path, route
        elif isinstance(route, Mount):
            yield from _flat(prefix + route.path, route.routes)

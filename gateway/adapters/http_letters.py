"""Dead letters over HTTP, for operators: listed, read, edited, replayed and dropped."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Literal, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import limits
from gateway.adapters.http import Guarded, Streamed, body_of, check_origin, typed
from gateway.adapters.http_credentials import bearer
from gateway.adapters.http_problem import NO_STORE, as_json, problem
from gateway.adapters.log import DeadLetter
from gateway.core.event import Meta
from gateway.core.payload import check_json
from gateway.errors import BadPayload, GatewayError, Refused

#: The media type of a stream of JSON values, one a line.
NDJSON = "application/x-ndjson"

_LIMIT = re.compile(r"[1-9][0-9]{0,5}")

Verb = Literal["list", "read", "edit", "replay", "drop"]


class Selected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters: all that meet every field."""

    group: str = ""
    reason: str = ""
    #: A topic filter.
    topic: str = ""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters to replay or drop: the ones that are named, or at most ``limit`` of those that are described."""

    letters: tuple[str, ...] = ()
    which: Selected = Selected()
    #: Every letter, where ``which`` describes none.
    all: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.DEAD_CHANGE)] = 1_000
    #: Letters a second; 0 is as fast as it goes.
    rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    dry_run: bool = False


class Step(msgspec.Struct, frozen=True):
    """How far a change is: a line of its answer."""

    done: int
    left_out: int
    #: Why the last one was left out.
    why: str = ""


class Row(msgspec.Struct, frozen=True):
    """A letter in a list."""

    address: str
    group: str
    reason: str
    #: Its first line, shortened.
    error: str
    topic: str
    #: Of the event, where it had one.
    id: str
    attempts: int
    #: Milliseconds since 1970.
    when: int
    #: Bytes of the payload.
    size: int


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A letter, whole. The payload is in ``payload`` where it is JSON, else in ``base64``."""

    address: str
    group: str
    reason: str
    error: str
    topic: str
    id: str
    attempts: int
    when: int
    size: int
    #: Of the event in the log, ``epoch-offset``, where it was there.
    at: str
    key: str
    producer: str
    worker: str
    traceback: str
    #: MIME type of the payload.
    type: str
    meta: Meta
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET


class Listed(msgspec.Struct, frozen=True):
    """A page of letters."""

    letters: list[Row]
    #: To be given as ``after``; null at the end. A page may be empty and not the last.
    next: str | None


class Replayed(msgspec.Struct, frozen=True):
    """The answer to an edit."""

    replayed: str


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last line of a change's answer; without it, the answer was cut."""

    end: Literal["done", "dry_run", "failed"]
    done: int
    left_out: int
    why: str = ""
    #: What ended it early, as problem+json has it.
    problem: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


Found = tuple[str, DeadLetter]


class Operator(Protocol):
    """What one operator may do with dead letters. Every method raises ``errors`` only."""

    async def page(self, which: Selected, limit: int, after: str) -> tuple[Sequence[Found], str | None]:
        """Return letters behind the address ``after``, and the address behind which the next page begins."""

    async def read(self, address: str) -> Found:
        """Return one letter."""

    async def edit(self, address: str, data: bytes) -> str:
        """Replay one letter with another payload; return its address."""

    def change(self, verb: Literal["replay", "drop"], asked: Asked) -> AsyncGenerator[Step]:
        """Refuse ``asked`` at once, or replay or drop as it is read: who stops reading stops it between two letters."""

    def would(self, asked: Asked) -> AsyncGenerator[Found | Step]:
        """Refuse ``asked`` at once, or return what `change` would begin with, a step for what it would leave out."""


class Operators(Guarded, Protocol):
    """Who may come to the dead letters."""

    def operator(self, token: str, whence: str, verb: Verb) -> Operator:
        """Return what the bearer of ``token`` may do; raises :class:`BadToken` and :class:`Denied`."""

    def denied(self, who: str, whence: str, verb: Verb) -> None:
        """Tell the audit log of a request without a token that can be read."""


def routes(operators: Operators) -> list[Route]:
    """Return the routes of dead letters. Nothing is looked at before the token is an operator's."""

    def admitted(request: Request, verb: Verb) -> Operator:
        whence = f"http {request.client.host if request.client else 'of nowhere'}"
        try:
            check_origin(request, operators)
            token = bearer(request)
        except Refused:
            operators.denied("unknown", whence, verb)
            raise
        return operators.operator(token, whence, verb)

    async def listed(request: Request) -> Response:
        operator = admitted(request, "list")
        which, limit, after = _query(request)
        found, next = await operator.page(which, limit, after)
        return as_json(Listed([_row(*one) for one in found], next), 200)

    async def read(request: Request) -> Response:
        operator = admitted(request, "read")
        return as_json(_whole(*await operator.read(_address(request))), 200)

    async def edit(request: Request) -> Response:
        operator = admitted(request, "edit")
        address = _address(request)
        data = await body_of(request, limits.PAYLOAD_BYTES)
        return as_json(Replayed(await operator.edit(address, data)), 200)

    async def replay(request: Request) -> Response:
        return await change(request, admitted(request, "replay"), "replay")

    async def drop(request: Request) -> Response:
        return await change(request, admitted(request, "drop"), "drop")

    async def change(request: Request, operator: Operator, verb: Literal["replay", "drop"]) -> Response:
        asked = _asked(await body_of(request, limits.MESSAGE_BYTES))
        steps = operator.would(asked) if asked.dry_run else operator.change(verb, asked)
        end: Literal["done", "dry_run"] = "dry_run" if asked.dry_run else "done"
        headers = {**NO_STORE, "x-accel-buffering": "no"}
        return _Lines(_lines(steps, end, operators), headers=headers, media_type=NDJSON)

    return [
        Route("/dead", typed(listed, operators), methods=["GET"]),
        Route("/dead/replay", typed(replay, operators), methods=["POST"]),
        Route("/dead/drop", typed(drop, operators), methods=["POST"]),
        Route("/dead/{partition}/{id}", typed(read, operators), methods=["GET"]),
        Route("/dead/{partition}/{id}", typed(edit, operators), methods=["PUT"]),
    ]


class _Lines(Streamed):
    """An answer of many lines that ends by itself."""

    endless = False


async def _lines(
    steps: AsyncGenerator[Step] | AsyncGenerator[Found | Step], end: Literal["done", "dry_run"], api: Guarded
) -> AsyncIterator[bytes]:
    step, rows = Step(0, 0), 0
    try:
        async with aclosing(steps):
            async for one in steps:
                if isinstance(one, Step):
                    step = one
                else:
                    rows += 1
                yield _line(one if isinstance(one, Step) else _row(*one))
    except GatewayError as error:
        # The status has left long ago.
        api.refused(error)
        told = msgspec.Raw(bytes(problem(error).body))
        yield _line(End("failed", step.done, step.left_out, step.why, told))
    else:
        yield _line(End(end, rows or step.done, step.left_out, step.why))


def _line(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _query(request: Request) -> tuple[Selected, int, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given or name not in ("group", "reason", "topic", "limit", "after"):
            what = "twice" if name in given else "which means nothing here"
            raise Refused(
                f"the query has {name[:40]!r}, {what}", "use group, reason, topic, limit and after, each once"
            )
        given[name] = value
    limit = given.get("limit") or "100"
    if not _LIMIT.fullmatch(limit) or int(limit) > limits.DEAD_PAGE:
        raise Refused(f"the limit is {limit[:40]!r}", f"use 1 to {limits.DEAD_PAGE}, and follow `next`")
    which = Selected(given.get("group", ""), given.get("reason", ""), given.get("topic", ""))
    return which, int(limit), given.get("after", "")


def _address(request: Request) -> str:
    if b"%" in request.scope["raw_path"]:
        # Two paths must not be one letter, where a proxy in front judges by paths.
        raise Refused("the path has a % in it", "an address needs no percent-encoding: write /dead/PARTITION/ID")
    return f"{request.path_params['partition']}/{request.path_params['id']}"


def _asked(body: bytes) -> Asked:
    try:
        asked = msgspec.json.decode(check_json(body), type=Asked)
    except BadPayload as error:
        raise Refused(f"the body cannot be read: {error.detail}", error.remedy) from None
    except msgspec.ValidationError as error:
        raise Refused(
            f"the body is not what is asked for: {error}", 'send {"letters": […]} or {"which": {…}}'
        ) from None
    chosen = asked.all or asked.which != Selected()
    if asked.letters and chosen:
        raise Refused("the body both names letters and describes some", "send letters, or which")
    if not asked.letters and not chosen:
        raise Refused("nothing says which letters", 'name some in letters, or say which, or send "all": true')
    if 0 < asked.rate < limits.DEAD_RATE_LEAST:
        raise Refused(f"the rate is {asked.rate:g} a second", f"use 0, or at least {limits.DEAD_RATE_LEAST:g}")
    return asked


def _row(address: str, letter: DeadLetter) -> Row:
    first = (letter.error.splitlines() or [""])[0][: limits.SHOWN_CHARACTERS]
    size = len(letter.data)
    return Row(address, letter.group, letter.reason, first, letter.topic, letter.id, letter.attempts, letter.ts, size)


def _whole(address: str, letter: DeadLetter) -> Letter:
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    type = letter.meta.type
    try:
        payload = msgspec.Raw(check_json(letter.data))
        type = type or "application/json"
    except BadPayload:
        base64 = letter.data
        type = type or "application/octet-stream"
    return Letter(
        address=address,
        group=letter.group,
        reason=letter.reason,
        error=letter.error,
        topic=letter.topic,
        id=letter.id,
        attempts=letter.attempts,
        when=letter.ts,
        size=len(letter.data),
        at=letter.at,
        key=letter.key,
        producer=letter.producer,
        worker=letter.worker,
        traceback=letter.traceback,
        type=type,
        meta=letter.meta,
        payload=payload,
        base64=base64,
    )

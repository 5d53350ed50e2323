"""The edge's own HTTP routes, as its document shows them: what each takes and answers, and who may ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

from gateway import limits
from gateway.adapters import http_api as api
from gateway.adapters import http_groups as groups
from gateway.adapters import http_letters as letters
from gateway.adapters import http_rights as rights
from gateway.adapters.http import Stored
from gateway.adapters.http_problem import HeadTooLarge, NoRoute, SlowBody
from gateway.core.access import KINDS, Revocation
from gateway.core.connected import Connected, Wanted
from gateway.core.openapi import JSON, Answer, Operation, Parameter
from gateway.core.wire import HistoryResult, PresenceResult, PresenceStatsResult
from gateway.edge.past import NoValue
from gateway.errors import (
    BadPayload,
    BadToken,
    BadTopic,
    Busy,
    Denied,
    GatewayError,
    KeyReused,
    LimitReached,
    NoReply,
    NotAvailable,
    NotDeclared,
    Refused,
    RequestFailed,
    RequestRejected,
    StorageFull,
    TokenExpired,
    TooFast,
    TooLarge,
    Unavailable,
    Unrecoverable,
)
from gateway.letters import NoLetter, StillRefused

R = TypeVar("R")

_ALWAYS: Final = (Refused, BadTopic, HeadTooLarge, GatewayError)
_ASKED: Final = (*_ALWAYS, BadToken, TokenExpired, Denied, Busy, Unavailable)
_TAKING: Final = (*_ASKED, BadPayload, TooLarge, SlowBody)
_OPERATOR: Final = ("operator",)
_SERVERS: Final = ("service", "operator")
_ANYTHING: Final = {JSON: Any, "text/plain": str, "application/octet-stream": bytes}
_TEXT: Final = {"text/plain": str}
_TOPIC: Final = Parameter("topic", "path", "The name of a declared topic.")
_FILTER: Final = Parameter("filter", "path", "A topic, or a filter with `+` and `#`.")
_KNOWN: Final = Parameter("If-None-Match", "header", "An `ETag` that was given before.")
_SAME: Final = Answer("Nothing has changed since that `ETag`.", headers={"etag": "As it was."})
_WAIT: Final = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(ms|s|m|h|d)$")]
_HISTORY: Final = Annotated[int, msgspec.Meta(ge=-1, le=limits.HISTORY_EVENTS)]
_DEAD: Final = Annotated[int, msgspec.Meta(ge=1, le=limits.DEAD_PAGE)]
_POSITION: Final = "`EPOCH-OFFSET`: where the log stands."


class Publications(msgspec.Struct, frozen=True):
    """A page of history, and where the log stands."""

    topic: str
    epoch: str
    offset: int
    publications: list[dict[str, Any]]


class Failure(msgspec.Struct, frozen=True):
    """What went wrong with one command; codes as of the WebSocket protocol."""

    code: int
    message: str


class Reply(msgspec.Struct, Generic[R], frozen=True):
    """One of the two."""

    result: R | msgspec.UnsetType = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET


class Replies(msgspec.Struct, frozen=True):
    """In the order of the commands; each under its method's name, or ``error``."""

    replies: list[dict[str, Any]]


class Commands(msgspec.Struct, frozen=True):
    """Each an object of one key, the method."""

    commands: list[dict[str, Any]]


def operations(*, anonymous: bool = False) -> tuple[Operation, ...]:
    """Return all of them; ``anonymous``: a token may be absent where topics are concerned."""
    anybody = (*KINDS, "anyone") if anonymous else KINDS
    operators = (*_letters(), *_groups(), *_connections())
    return (*_topics(anybody), *_rights(anybody), *operators, *_api(), *_documents(anybody), *_probes())


def _topics(anybody: tuple[str, ...]) -> Iterator[Operation]:
    yield Operation(
        "publish",
        "POST",
        "/topics/{topic}",
        "topics",
        "Publish an event; with `wait`, ask a service and get its reply.",
        anybody,
        "The topic's own grants decide who may, its declaration what the body may be.",
        (
            _TOPIC,
            Parameter("wait", "query", f"For the reply, such as `5s`; at most {limits.WAIT_MOST:g} s.", _WAIT),
            Parameter("Idempotency-Key", "header", "Answered once for each principal and topic."),
            Parameter("Event-Id", "header", "The event's own id; not of a request that waits."),
            Parameter("traceparent", "header", "W3C Trace Context; stays with the event."),
        ),
        body=_ANYTHING,
        answers={
            201: Answer("It is in the log, as durable as it says.", {JSON: Stored}),
            200: Answer("It was there before; or, with `wait`, the reply.", {JSON: Any}, {"event-id": "With `wait`."}),
        },
        errors=(
            *(*_TAKING, NoRoute, NotDeclared, NotAvailable, KeyReused, LimitReached, StorageFull, TooFast),
            *(RequestRejected, RequestFailed, NoReply),
        ),
    )
    yield Operation(
        "watch",
        "GET",
        "/topics/{filter}/events",
        "topics",
        "Server-Sent Events of what passes a filter, from now or from where the client was.",
        anybody,
        "An event named `lost` says that something is gone, `live` is what is not kept.",
        (_FILTER, Parameter("Last-Event-ID", "header", "The `id` of the last event that came: it resumes exactly.")),
        answers={200: Answer("A stream without end.", {"text/event-stream": str})},
        errors=(*_ASKED, NoRoute, NotDeclared, Unrecoverable, LimitReached),
        security=("bearer", "apiKey", "ticket"),
    )
    yield Operation(
        "last_value",
        "GET",
        "/topics/{topic}",
        "topics",
        "The last value of a topic that declares `retain`, as it was published.",
        anybody,
        parameters=(_TOPIC, _KNOWN),
        answers={
            200: Answer(
                "The payload, of whatever type it has.",
                {"*/*": Any},
                {"event-id": "The event's id.", "event-position": "`EPOCH-OFFSET` of it.", "etag": "Of this value."},
            ),
            304: _SAME,
        },
        errors=(*_ASKED, NoRoute, NotDeclared, NotAvailable, NoValue),
    )
    yield Operation(
        "history",
        "GET",
        "/topics/{topic}/history",
        "topics",
        "What was published, in its order: the page after `since`.",
        anybody,
        "The next page is `since` the last publication's offset. Of a filter where it lies in one partition.",
        (
            Parameter("topic", "path", _FILTER.about),
            Parameter("since", "query", "`EPOCH-OFFSET`, exclusive; without it from the oldest that is kept."),
            Parameter("limit", "query", "0: where the log stands, alone; -1: as many as may be.", _HISTORY),
            Parameter("reverse", "query", "The newest first.", Literal["true", "false"]),
            _KNOWN,
        ),
        answers={
            200: Answer("A page.", {JSON: Publications}, {"event-position": _POSITION, "etag": "Of this answer."}),
            304: _SAME,
        },
        errors=(*_ASKED, NoRoute, NotDeclared, NotAvailable, Unrecoverable, LimitReached),
    )


def _rights(anybody: tuple[str, ...]) -> Iterator[Operation]:
    yield Operation(
        "ticket",
        "POST",
        "/tickets",
        "rights",
        f"A ticket for one stream of events, once, within {limits.TICKET_LIFE:g} s: EventSource can send no header.",
        anybody,
        body={JSON: rights.Wanted},
        answers={201: Answer("A ticket, for `GET /topics/{filter}/events?ticket=…`.", {JSON: rights.Given})},
        errors=(*_TAKING, NotDeclared, Unrecoverable, StorageFull),
    )
    yield Operation(
        "revoke",
        "POST",
        "/revocations",
        "rights",
        "Take back a principal's tokens, one token, or a key; open connections are closed, on every edge.",
        _OPERATOR,
        body={JSON: rights.Revoke},
        answers={201: Answer("It is in force.", {JSON: Revocation})},
        errors=(*_TAKING, LimitReached, StorageFull),
    )


def _letters() -> Iterator[Operation]:
    tag = "dead letters"
    yield Operation(
        "dead_letters",
        "GET",
        "/dead",
        tag,
        "A page of dead letters, the oldest first.",
        _OPERATOR,
        parameters=(
            Parameter("group", "query", "Of this service, `APP.SERVICE`."),
            Parameter("reason", "query"),
            Parameter("topic", "query", "A topic filter."),
            Parameter("limit", "query", "Letters of a page.", _DEAD),
            Parameter("after", "query", "`next` of the page before."),
        ),
        answers={200: Answer("A page.", {JSON: letters.Listed})},
        errors=(*_ASKED, NoLetter),
    )
    for verb, does in (("replay", "Give dead letters back to their services"), ("drop", "Drop dead letters")):
        yield Operation(
            f"{verb}_dead_letters",
            "POST",
            f"/dead/{verb}",
            tag,
            f"{does}, by address or by what they have in common; `dry_run` only tells which.",
            _OPERATOR,
            "Each line of the answer is a JSON object; the last has `end`. Without it, the answer was cut.",
            body={JSON: letters.Asked},
            answers={200: Answer("How far it is, a line at a time.", {letters.NDJSON: str})},
            errors=_TAKING,
        )
    yield Operation(
        "dead_letter",
        "GET",
        "/dead/{partition}/{id}",
        tag,
        "One dead letter, whole.",
        _OPERATOR,
        answers={200: Answer("The letter.", {JSON: letters.Letter})},
        errors=(*_ASKED, NoLetter, NoRoute),
    )
    yield Operation(
        "edit_dead_letter",
        "PUT",
        "/dead/{partition}/{id}",
        tag,
        "Replay one dead letter with the body as its payload.",
        _OPERATOR,
        body=_ANYTHING,
        answers={200: Answer("It was given back.", {JSON: letters.Replayed})},
        errors=(*_TAKING, NoLetter, NoRoute, StillRefused, StorageFull),
    )


def _groups() -> Iterator[Operation]:
    yield Operation(
        "groups",
        "GET",
        "/groups",
        "services",
        "How far each service is, partition by partition.",
        _OPERATOR,
        "`lag` is entries behind, `parked` are events that wait for another try. Who never began is not here.",
        answers={200: Answer("All of them.", {JSON: groups.Standing})},
        errors=_ASKED,
    )
    for verb, does in (("pause", "Let a service rest: what comes waits in the log"), ("resume", "Let a service go on")):
        yield Operation(
            f"{verb}_group",
            "POST",
            f"/groups/{{group}}/{verb}",
            "services",
            f"{does}.",
            _OPERATOR,
            answers={200: Answer("It is said to its workers.", {JSON: groups.Paused})},
            errors=(*_ASKED, NotAvailable, NoRoute),
        )


def _connections() -> Iterator[Operation]:
    yield Operation(
        "connections",
        "GET",
        "/connections",
        "connections",
        "Who is connected, on every edge: most bytes waiting first, then the oldest.",
        _OPERATOR,
        f"An edge that says nothing within {limits.SURVEY_WITHIN:g} s is named in `missing`.",
        query=Wanted,
        answers={200: Answer("They, and how many more there are.", {JSON: Connected})},
        errors=(*_ASKED, StorageFull),
    )


def _api() -> Iterator[Operation]:
    results: dict[str, tuple[str, Any]] = {
        "publish": ("Publish to one channel.", Reply[api.Published]),
        "broadcast": ("Publish to several channels.", Reply[api.Responses]),
        "subscribe": ("Subscribe a user's connections, on every edge.", Reply[api.Done]),
        "refresh": ("Say when a user's connections end, on every edge.", Reply[api.Done]),
        "unsubscribe": ("End subscriptions to a channel, on every edge.", Reply[api.Done]),
        "disconnect": ("Close connections, on every edge.", Reply[api.Done]),
        "presence": ("Who watches a channel.", Reply[PresenceResult]),
        "presence_stats": ("How many watch a channel.", Reply[PresenceStatsResult]),
        "history": ("What was published to a channel.", Reply[HistoryResult]),
        "channels": ("Which channels have subscribers, on every edge, and how many.", Reply[api.Counts]),
        "info": ("The edges that live.", Reply[api.Nodes]),
    }
    called = [(name, says, api.REQUESTS[name], result) for name, (says, result) in results.items()]
    for name, says, body, answer in (*called, ("batch", "Several commands, one after the other.", Commands, Replies)):
        yield Operation(
            f"api_{name}",
            "POST",
            f"/api/{name}",
            "server API",
            says,
            _SERVERS,
            "A command that fails is answered with 200 and an `error`. Topics' grants hold here too.",
            body={JSON: body},
            answers={200: Answer("`result` or `error`.", {JSON: answer})},
            errors=_TAKING,
        )


def _documents(anybody: tuple[str, ...]) -> Iterator[Operation]:
    for name, what in (("asyncapi", "topics: AsyncAPI 3"), ("openapi", "HTTP routes: OpenAPI 3.1")):
        yield Operation(
            name,
            "GET",
            f"/{name}.json",
            "documents",
            f"What you may use of {what}.",
            anybody,
            parameters=(_KNOWN,),
            answers={200: Answer("The document.", {JSON: dict[str, Any]}, {"etag": "Of this document."}), 304: _SAME},
            errors=_ASKED,
        )


def _probes() -> Iterator[Operation]:
    for name, says in (("livez", "Whether the process answers."), ("metrics", "Metrics, for Prometheus.")):
        yield Operation(
            name,
            "GET",
            f"/{name}",
            "probes",
            says,
            ("anyone",),
            answers={200: Answer("It does." if name == "livez" else "In Prometheus' text format.", _TEXT)},
            errors=(HeadTooLarge, GatewayError),
            security=(),
        )
    yield Operation(
        "readyz",
        "GET",
        "/readyz",
        "probes",
        "Whether the process should get traffic.",
        ("anyone",),
        answers={200: Answer("It should.", _TEXT), 503: Answer("It should not: a reason a line.", _TEXT)},
        errors=(HeadTooLarge, GatewayError),
        security=(),
    )

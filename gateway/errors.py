"""Every error the gateway raises, in one tree: whose fault it is, whether to retry, and what to do.

Three branches, by who can mend it: :class:`Refused` (the caller), :class:`Unavailable` (nobody needs to: wait and
retry), :class:`Misconfigured` (the operator). Every door turns an error into its own form from the four class
attributes: HTTP takes ``status``, the WebSocket protocol takes ``reply``, the CLI prints ``str(error)``.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class GatewayError(Exception):
    """The root. ``str(error)`` is one sentence of what happened and one of what to do."""

    #: A stable word for programs: the ``type`` of problem+json, the label of metrics, the reason of a dead letter.
    code: ClassVar[str] = "internal"
    #: HTTP status (RFC 9110).
    status: ClassVar[int] = 500
    #: Error code of the Centrifugal client protocol.
    reply: ClassVar[int] = 100
    #: Whether the same request may succeed later.
    retry: ClassVar[bool] = False
    whose: ClassVar[Literal["caller", "operator", "gateway"]] = "gateway"

    def __init__(self, detail: str, remedy: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(f"{detail}; {remedy}" if remedy else detail)
        self.detail = detail
        self.remedy = remedy
        #: Seconds to wait before the next try, where one is advised.
        self.retry_after = retry_after


class Refused(GatewayError):
    """The caller asked for something that will never be done as asked."""

    code = "bad_request"
    status = 400
    reply = 107
    whose = "caller"


class BadTopic(Refused):
    """A topic name or filter that breaks the grammar of ``core/topic``."""

    code = "bad_topic"


class NotDeclared(Refused):
    """No declared topic has this name, or none meets this filter."""

    code = "unknown_topic"
    status = 404
    reply = 102


class BadPayload(Refused):
    """A payload that its topic's declaration does not allow."""

    code = "bad_payload"
    status = 422


class TooLarge(Refused):
    """A payload or message over its bound."""

    code = "too_large"
    status = 413
    reply = 106


class BadToken(Refused):
    """A token that was not made by us, or not for this door."""

    code = "bad_token"
    status = 401
    reply = 101


class TokenExpired(BadToken):
    """A token whose time is over."""

    code = "token_expired"
    reply = 109


class Denied(Refused):
    """A known principal without the right."""

    code = "denied"
    status = 403
    reply = 103

    def __init__(self, detail: str, remedy: str = "", *, who: str = "") -> None:
        super().__init__(detail, remedy)
        #: The principal that a declaration denied, for the audit log; empty where somebody else tells it.
        self.who = who


class KeyReused(Refused):
    """An idempotency key that came before with another body."""

    code = "idempotency_key_reused"
    status = 422


class LimitReached(Refused):
    """A bound of ``limits`` that this client has used up."""

    code = "limit"
    status = 429
    reply = 106


class Fenced(Refused):
    """A worker without the lease it had: nothing of what it asked was done, and another may hold the partition now."""

    code = "fenced"
    status = 409


class NotAvailable(Refused):
    """A request that this server or this topic does not offer."""

    code = "not_available"
    status = 404
    reply = 108


class Unrecoverable(Refused):
    """A position that the log does not know, or after which something is gone: the reader begins anew."""

    code = "unrecoverable_position"
    status = 410
    reply = 112


class Unavailable(GatewayError):
    """The gateway cannot do it now. What it did not acknowledge may be sent again with the same id."""

    code = "unavailable"
    status = 503
    retry = True


class StorageFull(Unavailable):
    """The log server refuses writes: its memory or its disk is full. Readers go on, so it can drain."""

    code = "storage_full"
    status = 507


class Busy(Unavailable):
    """A queue of ours is at its bound."""

    code = "busy"
    status = 429
    reply = 111


class TooFast(Busy):
    """More than one client may ask in a second."""

    code = "too_fast"
    whose = "caller"


class RequestFailed(GatewayError):
    """A request that was taken, and that its service could not do."""

    code = "request_failed"
    status = 502
    reply = 502
    whose: ClassVar[Literal["caller", "operator", "gateway"]] = "operator"

    def __init__(self, detail: str, remedy: str, event_id: str, code: str = "") -> None:
        """``code``: the word of the service's reply, instead of the class's own."""
        super().__init__(detail, remedy)
        self.event_id = event_id
        if code:
            self.code = code  # type: ignore[misc]  # one class for the words of all services


class RequestRejected(RequestFailed):
    """A request that its service will not do: the same one again is answered the same."""

    code = "rejected"
    status = 422
    reply = 422
    whose = "caller"


class NoReply(RequestFailed):
    """A request that was taken, and that no service answered in time."""

    code = "no_reply"
    status = 504
    reply = 504
    retry = True
    whose = "gateway"


class TurnedDown(GatewayError):
    """What another service was asked, and will not do: the same again is answered the same."""

    code = "turned_down"
    status = 502
    whose = "caller"

    def __init__(self, detail: str, answered: int, word: str = "") -> None:
        """``answered``: the HTTP status; ``word``: the code of its problem+json, where it is one of ours."""
        super().__init__(f"{detail} {word}".rstrip(), "see what it takes")
        self.answered, self.word = answered, word


class BadPacket(Unavailable):
    """The broker sent bytes that are not MQTT 5; the connection is closed and opened again."""

    code = "bad_packet"


class Misconfigured(GatewayError):
    """The operator's settings cannot be honoured; nothing of them is applied."""

    code = "misconfigured"
    whose = "operator"


class ServerMissing(Misconfigured):
    """A server's program is not on this machine."""

    code = "server_missing"

    def __init__(self, name: str, install: str) -> None:
        super().__init__(f"{name} is not installed", f"install it with: {install}")
        self.install = install


class ServerFailed(GatewayError):
    """A server of ours did not start or did not stay; the detail carries the end of its log."""

    code = "server_failed"
    whose = "operator"

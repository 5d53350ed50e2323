"""What one WebSocket client may ask next, and what follows: commands in, steps out.

The session decides and the edge performs: each :class:`Step` is something to do, and where the doing has a result
the edge brings it back (:meth:`Session.connected`, :meth:`Session.ended`). Codes are the Centrifugal protocol's:
3500 to 3999 and 4500 to 4999 are final for an SDK, after every other close it comes back by itself.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway import limits
from gateway.core import wire
from gateway.core.access import ANONYMOUS, Grant, Principal
from gateway.core.rate import UNBOUNDED, Rate, bounded
from gateway.core.topic import is_filter
from gateway.errors import BadPayload, Denied, GatewayError, LimitReached, NotAvailable, Refused, TooFast


class Close(msgspec.Struct, frozen=True):
    """End the connection with this code and reason."""

    code: int
    reason: str


NORMAL = Close(3000, "connection closed")
SHUTDOWN = Close(3001, "shutdown")
EXPIRED = Close(3005, "expired")
SLOW = Close(3008, "slow")
NO_PONG = Close(3012, "no pong")
#: Not final: a page with a fault that publishes in a loop goes on watching, a pause later.
TOO_MANY = Close(3013, "too many requests")
INVALID_TOKEN = Close(3500, "invalid token")
REVOKED = Close(3500, "revoked")
BAD_REQUEST = Close(3501, "bad request")
STALE = Close(3502, "stale")
CONNECTION_LIMIT = Close(3504, "connection limit")
INAPPROPRIATE_PROTOCOL = Close(3506, "inappropriate protocol")
NOT_AVAILABLE = Close(3508, "not available")

#: Reason codes of an unsubscribe push.
UNSUBSCRIBED_BY_SERVER: Final = 2000
INSUFFICIENT_STATE: Final = 2500
SUBSCRIPTION_EXPIRED: Final = 2501


class Authenticate(msgspec.Struct, frozen=True):
    """Find out who this is; then :meth:`Session.connected`, or a reply with the error."""

    id: int
    token: str
    client: str


class Renew(msgspec.Struct, frozen=True):
    """Find out whether this token is of the same bearer, and reply; another one's ends the connection."""

    id: int
    token: str


class Attach(msgspec.Struct, frozen=True):
    """Subscribe; an error is brought back by :meth:`Session.ended`."""

    #: 0 where a server subscribes the client: no command waits for a reply.
    id: int
    ask: wire.Subscribe


class Prolong(msgspec.Struct, frozen=True):
    """Find out whether this token is for the same subscription, and reply; another one's ends the connection."""

    id: int
    channel: str
    token: str


class Detach(msgspec.Struct, frozen=True):
    """Unsubscribe, and reply."""

    id: int
    channel: str


class Store(msgspec.Struct, frozen=True):
    """Publish, and reply."""

    id: int
    channel: str
    data: bytes


class Call(msgspec.Struct, frozen=True):
    """Answer an rpc."""

    id: int
    method: str
    data: bytes


class Reply(msgspec.Struct, frozen=True):
    """Send this."""

    frame: bytes


class Refuse(msgspec.Struct, frozen=True):
    """Answer with this error."""

    id: int
    error: GatewayError


class Recall(msgspec.Struct, frozen=True):
    """Read back what was published, and reply."""

    id: int
    ask: wire.History


class Survey(msgspec.Struct, frozen=True):
    """Say who is there, or how many, and reply."""

    id: int
    channel: str
    #: Not who, but how many.
    stats: bool


Step = Authenticate | Renew | Attach | Prolong | Detach | Store | Call | Recall | Survey | Reply | Refuse | Close


class State(enum.Enum):
    FRESH = "fresh"  #: no connect yet
    ASKED = "asked"  #: connect came, the token is being looked at
    OPEN = "open"
    CLOSED = "closed"


#: (state, method) -> what to do. Anything absent is a bad request, and final.
STEPS: Final[dict[tuple[State, str], str]] = {
    (State.FRESH, "connect"): "_connect",
    (State.OPEN, "subscribe"): "_subscribe",
    (State.OPEN, "unsubscribe"): "_unsubscribe",
    (State.OPEN, "publish"): "_publish",
    (State.OPEN, "rpc"): "_rpc",
    (State.OPEN, ""): "_pong",
    (State.OPEN, "send"): "_send",
    (State.OPEN, "history"): "_history",
    (State.OPEN, "presence"): "_presence",
    (State.OPEN, "presence_stats"): "_presence_stats",
    (State.OPEN, "refresh"): "_refresh",
    (State.OPEN, "sub_refresh"): "_sub_refresh",
}


class Session:
    """One client's state. Bounded by ``limits.SUBSCRIPTIONS``, and its commands by a rate."""

    __slots__ = (
        "_flooded",
        "_free",
        "_full",
        "_rate",
        "channels",
        "client",
        "codec",
        "permits",
        "pinged",
        "principal",
        "sdk",
        "state",
    )

    def __init__(self, client: str, codec: wire.Codec = wire, rate: Rate = UNBOUNDED) -> None:
        #: The id we gave this connection.
        self.client = client
        #: The form in which this client speaks, and hears.
        self.codec = codec
        self.state = State.FRESH
        self.principal: Principal = ANONYMOUS
        #: What the client calls itself, and its version.
        self.sdk = ""
        #: Filters this client is subscribed to, or is about to be.
        self.channels: set[str] = set()
        #: By which token and until when, for those of them that came with one; None until there is any.
        self.permits: dict[str, Grant] | None = None
        #: A ping of ours is unanswered.
        self.pinged = False
        self._rate = rate
        #: Two buckets, see :class:`Rate`: of its commands, and of those that were one too many.
        self._full = self._flooded = 0.0
        #: Subscribes that take nothing from it: who comes back subscribes to all he had at once.
        self._free = limits.SUBSCRIPTIONS

    def receive(self, frame: bytes, now: float = 0.0) -> Iterator[Step]:
        """Yield what follows from one message, in order; after a :class:`Close` nothing more comes.

        One at a time: what the commands after a connect may do is known only when it was answered. ``now``: see
        :class:`Rate`.
        """
        try:
            for line in self.codec.commands(frame):
                if self.state is State.CLOSED:
                    break
                command = self.codec.decode(line)
                try:
                    yield self._step(command, now)
                except GatewayError as e:
                    yield Refuse(command.id, e)
        except BadPayload:
            yield self.close(BAD_REQUEST)

    def _step(self, command: wire.Command, now: float) -> Step:
        method = command.method
        if method and method != "send" and not 0 < command.id < 2**32:
            return self.close(BAD_REQUEST)
        name = STEPS.get((self.state, method))
        if name is None:
            return self.close(BAD_REQUEST)
        ask = getattr(command, method, None)
        if self._rate.per_second and command.id and not self._is_free(ask):
            full = self._rate.take(self._full, now)
            if full is None:
                return self._too_fast(now)
            self._full = full
        step: Step = getattr(self, name)(command.id, ask)
        return step

    def _is_free(self, ask: object) -> bool:
        """Say whether ``ask`` takes nothing from the rate: what the bound of subscriptions bounds already."""
        if isinstance(ask, wire.Subscribe) and self._free:
            self._free -= 1
            return True
        # Each was subscribed once. And an SDK whose unsubscribe is refused connects anew.
        return isinstance(ask, wire.Unsubscribe) and ask.channel in self.channels

    def _too_fast(self, now: float) -> Close:
        """Refuse a command, or give up on a client that sends ``limits.FLOOD`` times as many as it may."""
        flooded = self._rate.times(limits.FLOOD).take(self._flooded, now)
        if flooded is None:
            return self.close(TOO_MANY)
        self._flooded = flooded
        wait = self._rate.wait(self._full, now)
        raise TooFast(f"more than {self._rate.per_second:g} commands a second came", "ask again", retry_after=wait)

    def _connect(self, id: int, ask: wire.Connect) -> Step:
        self.state = State.ASKED
        return Authenticate(id, ask.token, f"{ask.name} {ask.version}".strip()[: limits.ID_BYTES])

    def connected(self, principal: Principal) -> None:
        """The client is who it says; commands may follow."""
        if self.state is State.ASKED:
            self.state = State.OPEN
            self.principal = principal
            if not bounded(principal):
                self._rate = UNBOUNDED

    def _refresh(self, id: int, ask: wire.Refresh) -> Step:
        if not ask.token:
            raise Refused("the refresh has no token", "send the new one")
        return Renew(id, ask.token)

    def _subscribe(self, id: int, ask: wire.Subscribe) -> Step:
        if ask.channel in self.channels:
            raise AlreadySubscribed(f"already subscribed to {ask.channel!r}", "unsubscribe first")
        if ask.type or bytes(ask.tf):
            raise NotAvailable("only plain subscriptions are offered", "leave out type and filters by tags")
        if len(self.channels) >= limits.SUBSCRIPTIONS:
            raise LimitReached(f"this connection has {limits.SUBSCRIPTIONS} subscriptions", "use a wildcard")
        self.channels.add(ask.channel)
        return Attach(id, ask)

    def given(self, ask: wire.Subscribe) -> Attach | None:
        """A server subscribes this client; None where it may not come in, is subscribed, or has as many as it may."""
        if self.state is not State.OPEN or ask.channel in self.channels or len(self.channels) >= limits.SUBSCRIPTIONS:
            return None
        self.channels.add(ask.channel)
        return Attach(0, ask)

    def permit(self, channel: str, grant: Grant) -> None:
        """The subscription came with a token, or with another one."""
        self.permits = {**(self.permits or {}), channel: grant}

    def permits_end(self) -> float | None:
        """When the first subscription of a token is over, if any is."""
        ends = (grant.expires for grant in (self.permits or {}).values())
        return min((end for end in ends if end is not None), default=None)

    def _sub_refresh(self, id: int, ask: wire.SubRefresh) -> Step:
        if ask.channel not in self.channels:
            raise Denied(f"not subscribed to {ask.channel!r}", "subscribe with the token")
        if ask.channel not in (self.permits or {}):
            raise NotAvailable("the subscription came without a token", "leave it: it does not end")
        if not ask.token:
            raise Refused("the refresh has no token", "send the new one")
        return Prolong(id, ask.channel, ask.token)

    def _unsubscribe(self, id: int, ask: wire.Unsubscribe) -> Step:
        self.ended(ask.channel)
        return Detach(id, ask.channel)

    def returns(self, channel: str) -> None:
        """A subscription was taken away by us, for the client to ask for it again."""
        self.ended(channel)
        self._free += 1

    def ended(self, channel: str) -> None:
        """A subscription was refused, or taken away by us."""
        self.channels.discard(channel)
        if self.permits is not None:
            self.permits.pop(channel, None)

    def _publish(self, id: int, ask: wire.Publish) -> Step:
        if is_filter(ask.channel):
            raise Refused(f"{ask.channel!r} is a filter", "publish to one concrete topic")
        data = bytes(ask.data)
        if not data and not self.codec.EMPTY:
            raise BadPayload("the publish has no data", "send null where nothing is meant")
        return Store(id, ask.channel, data)

    def _rpc(self, id: int, ask: wire.Rpc) -> Step:
        return Call(id, ask.method, bytes(ask.data))

    def _history(self, id: int, ask: wire.History) -> Step:
        return Recall(id, ask)

    def _presence(self, id: int, ask: wire.Presence) -> Step:
        return Survey(id, ask.channel, stats=False)

    def _presence_stats(self, id: int, ask: wire.Presence) -> Step:
        return Survey(id, ask.channel, stats=True)

    def _send(self, id: int, ask: object) -> Step:
        # ``send`` has no id, so an error reply could not reach whoever sent it.
        return self.close(NOT_AVAILABLE)

    def _pong(self, id: int, ask: object) -> Step:
        if not self.pinged or id:
            return self.close(BAD_REQUEST)
        self.pinged = False
        return Reply(b"")

    def ping(self) -> Step:
        """It is time for the next ping: send it, or give up on a client that did not answer the last."""
        if self.state is State.OPEN and not self.pinged:
            self.pinged = True
            return Reply(self.codec.PING)
        return self.close(NO_PONG if self.pinged else STALE)

    def close(self, why: Close) -> Close:
        """Nothing follows."""
        self.state = State.CLOSED
        return why


class AlreadySubscribed(Refused):
    """A second subscribe to a channel without an unsubscribe between."""

    code = "already_subscribed"
    status = 409
    reply = 105

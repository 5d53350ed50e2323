"""How long a client may stay, and each subscription of a token: renewed by its SDK or by a server, ended when over."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway import limits
from gateway.adapters.tokens import Permit
from gateway.adapters.websocket import Connection
from gateway.core import session, wire
from gateway.core.access import Grant, Principal
from gateway.core.declared import Found
from gateway.core.session import Attach, Close, Prolong, Renew, Session
from gateway.core.standing import Verdict
from gateway.edge.revocations import Good
from gateway.edge.shared import Shared
from gateway.edge.subscribing import Subscriber
from gateway.errors import BadToken, GatewayError, TokenExpired, Unavailable


class AnothersToken(BadToken):
    """A good token, of another user or another channel: an SDK that has it mixes two of them up."""


class Terms(Subscriber):
    """The part of a client that knows when it ends. One timer serves its pings and all its ends."""

    __slots__ = ("_due", "_timer", "grant", "round_trip")

    def __init__(self, edge: Shared, connection: Connection, one: Session) -> None:
        super().__init__(edge, connection, one)
        #: Who this is and until when; None before it came in.
        self.grant: Grant | None = None
        #: When the next ping goes out, or the answer to the last is due, by the loop's clock.
        self._due = 0.0
        #: Milliseconds until the last ping was answered; None before that. Python shares the numbers up to 256.
        self.round_trip: int | None = None
        self._timer = edge.loop.call_later(limits.CONNECT_WITHIN, self._tick)

    # --- the connection's token ---

    def _renew(self, step: Renew) -> None:
        try:
            grant = self._edge.admit(step.token)
            if self.grant is None or grant.principal != self.grant.principal:
                raise BadToken("the token is another bearer's", "connect anew with it")
        except (TokenExpired, Unavailable) as e:
            self._say(self._codec.error(step.id, e))
            return
        except BadToken as e:
            self._invalid(e)
            return
        self.grant = grant
        self._rearm()
        ends = self._ends(grant)
        result = wire.RefreshResult(self._session.client, self._edge.version, ends.expires, ends.ttl)
        self._say(self._codec.reply(step.id, "refresh", result))

    def prolonged(self, expires: int) -> None:
        """A server sets another end: the connection is over at once where that is past."""
        if self.grant is None:
            return
        if expires <= self._edge.now():
            self.connection.close(self._session.close(session.EXPIRED))
            return
        self.grant = msgspec.structs.replace(self.grant, expires=expires)
        self._rearm()
        self._say(self._codec.push_refresh(self._ends(self.grant)))

    def revoked(self) -> None:
        """What it came in by is not believed any more."""
        self.connection.close(self._session.close(session.REVOKED))

    def _invalid(self, error: BadToken) -> None:
        self._edge.refused(error)
        self.connection.close(self._session.close(Close(session.INVALID_TOKEN.code, str(error))))

    def _ends(self, grant: Grant) -> wire.SubRefreshResult:
        if grant.expires is None:
            return wire.SubRefreshResult()
        return wire.SubRefreshResult(True, max(1, int(grant.expires - self._edge.now())))

    # --- tokens of subscriptions ---

    def _met(self, ask: wire.Subscribe) -> list[Found]:
        if not ask.token:
            return super()._met(ask)
        permit = self._permit(ask.channel, ask.token)
        met = self._opened(ask.channel) if permit.opens else super()._met(ask)
        self._session.permit(ask.channel, permit.grant)
        self._rearm()
        return met

    def _refuse(self, step: Attach, error: GatewayError) -> None:
        if isinstance(error, AnothersToken):
            self._invalid(error)
        else:
            super()._refuse(step, error)

    def _prolong(self, step: Prolong) -> None:
        try:
            permit = self._permit(step.channel, step.token)
            if permit.opens:
                self._opened(step.channel)
            else:
                super()._met(wire.Subscribe(step.channel))
        except AnothersToken as e:
            self._invalid(e)
            return
        except GatewayError as e:
            self._edge.refused(e)
            self._say(self._codec.error(step.id, e))
            return
        self._session.permit(step.channel, permit.grant)
        self._rearm()
        self._say(self._codec.reply(step.id, "sub_refresh", self._ends(permit.grant)))

    def _permit(self, channel: str, token: str) -> Permit:
        permit = self._edge.admit_subscription(token)
        if permit.channel != channel or permit.grant.principal != self._session.principal:
            raise AnothersToken("the token is for another subscription", "bring the one of this user and this channel")
        return permit

    def _opened(self, channel: str) -> list[Found]:
        return self._edge.declared.opened(self._session.principal, channel)

    def _ttl(self, channel: str) -> int:
        grant = (self._session.permits or {}).get(channel)
        return 0 if grant is None else self._ends(grant).ttl

    def permits_revoked(self, good: Good) -> None:
        """End the subscriptions whose tokens are not ``good`` any more."""
        for channel, grant in list((self._session.permits or {}).items()):
            if not good(grant):
                self.unsubscribed(channel)

    def subscribed(self, ask: wire.Subscribe, *, trusted: bool) -> None:
        """A server subscribes this client; what ``trusted`` does not say its own grants must."""
        step = self._session.given(ask)
        if step is None:
            return
        try:
            met = self._opened(ask.channel) if trusted else super()._met(ask)
        except GatewayError as e:
            self._refuse(step, e)
            return
        self._begin(step, met)

    def redecided(self, of: Callable[[Principal, str], Verdict]) -> tuple[int, list[str]]:
        """End what this client may not have any more; return how much that was, and what it is to ask for again."""
        ended, again = 0, []
        for channel in list(self._session.channels):
            verdict = of(self._session.principal, channel)
            if verdict == "ends":
                # Its token may open more than its grants: then asking again decides.
                by_token = channel in (self._session.permits or {})
                self.unsubscribed(channel, session.INSUFFICIENT_STATE if by_token else session.UNSUBSCRIBED_BY_SERVER)
                ended += 1
            elif verdict == "returns":
                again.append(channel)
        return ended, again

    def again(self, channel: str) -> None:
        """Have the SDK subscribe anew, from where it is."""
        if channel in self._asking:
            self.unsubscribed(channel, session.INSUFFICIENT_STATE)
        else:
            self.come_back(channel)

    def unsubscribed(self, channel: str, code: int = session.UNSUBSCRIBED_BY_SERVER) -> None:
        """End the subscription; below code 2500 the SDK does not come back to it by itself."""
        if channel in self._session.channels:
            if code < session.INSUFFICIENT_STATE:
                self._session.ended(channel)
            else:
                self._session.returns(channel)
            self._stop(channel)
            reason = "expired" if code == session.SUBSCRIPTION_EXPIRED else "server unsubscribe"
            self._say(self._codec.push_unsubscribe(channel, code, reason))

    # --- the timer ---

    def _tick(self) -> None:
        self._ping()
        if self._session.pinged:
            self._later(limits.PONG_WITHIN, self._pong_due)

    def look(self) -> None:
        """Ask now whether the client is there: :attr:`silent` until it answers."""
        if not self.silent:
            self._timer.cancel()
            self._tick()

    @property
    def silent(self) -> bool:
        """A ping is unanswered, or the connection on its way out."""
        return self._session.pinged or self.connection.gone

    def _pong_due(self) -> None:
        if self._session.pinged:
            self._ping()
        else:
            self._later(limits.PING_EVERY - limits.PONG_WITHIN, self._tick)

    def _ping(self) -> None:
        match self._session.ping():
            case Close() as why:
                self.connection.close(why)
            case _:
                self._say(self._codec.PING)

    def _ponged(self) -> None:
        took = self._edge.loop.time() - (self._due - limits.PONG_WITHIN)
        self.round_trip = round(took * 1000)
        self._edge.metrics_of.ping.observe(took)

    def _expired(self) -> None:
        """Something may be over; the loop's clock may also be ahead of the wall's."""
        over = self._edge.now() - limits.REFRESH_WITHIN
        if self.grant is not None and self.grant.expires is not None and self.grant.expires <= over:
            self.connection.close(self._session.close(session.EXPIRED))
            return
        for channel, grant in list((self._session.permits or {}).items()):
            if grant.expires is not None and grant.expires <= over:
                self.unsubscribed(channel, session.SUBSCRIPTION_EXPIRED)
        self._rearm()

    def _rearm(self) -> None:
        """Look anew at what ends first. Pings keep their time: an SDK that hears none for 35 s gives us up."""
        self._timer.cancel()
        left = max(0.0, self._due - self._edge.loop.time())
        self._arm(left, self._pong_due if self._session.pinged else self._tick)

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._due = self._edge.loop.time() + seconds
        self._arm(seconds, then)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        """Do ``then``, unless a token is over before: SDKs bring another one when the old one is over."""
        ends = [self.grant.expires if self.grant is not None else None, self._session.permits_end()]
        for end in ends:
            if end is not None and (left := end + limits.REFRESH_WITHIN - self._edge.now()) <= seconds + 0.001:
                seconds, then = max(0.001, left), self._expired
        self._timer = self._edge.loop.call_later(seconds, then)

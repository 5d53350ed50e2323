"""A durable session with the broker: connect, subscribe, stay, and come back after every cut."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal
from urllib.parse import unquote, urlsplit

import mqtt5
import msgspec
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode, QoS

from gateway import limits
from gateway.adapters.mqtt.connection import Connection, Message
from gateway.errors import BadTopic, GatewayError, Misconfigured, Unavailable

# The codec calls its codes IntEnum, but they are neither int nor hashable (0.8): we keep and compare their numbers.
#: Refusals of CONNECT and SUBSCRIBE that no waiting mends, and what does.
_REMEDIES = {
    int(ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD): "set the bridge's user name and password as in the password file",
    int(ConnAckReasonCode.NOT_AUTHORIZED): "check user name and password, and that the account may use this client id",
    int(ConnAckReasonCode.CLIENT_ID_NOT_VALID): "choose another client id",
    int(ConnAckReasonCode.BANNED): "lift the ban at the broker",
    int(ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION): "point the url at a listener that speaks MQTT 5",
}
_TEMPORARY = {int(mqtt5.SubAckReasonCode.UNSPECIFIED_ERROR), int(mqtt5.SubAckReasonCode.QUOTA_EXCEEDED)}


class Options(msgspec.Struct, frozen=True):
    """Who we are to the broker. ``session_expiry`` and ``keep_alive`` in seconds; a url may carry user and password."""

    url: str
    client_id: str
    username: str | None = None
    password: str | None = None
    receive_maximum: int = limits.RECEIVE_MAXIMUM
    session_expiry: int = 7 * 24 * 3600
    keep_alive: int = 60

    def __repr__(self) -> str:
        return f"Options(client_id={self.client_id!r})"  # without the password, which url may carry too


async def _permitted() -> None:
    """A client whom nobody forbids to connect."""


class MqttClient:
    """One durable MQTT 5 session that heals by itself.

    ``on_messages`` gets everything that one read of the socket brought, as one list. Each QoS 1 message must be given
    to `ack` once it is safe; until then it counts against Receive Maximum, which is what stops the broker, and it
    comes again on the next connection. The filters are subscribed after every connect (a broker can forget them and
    still say that it knows the session), at QoS 1, and retained messages come for a new subscription only.

    Use ``async with`` (ready when entered), or ``run()`` in a task group. Both raise `Misconfigured` for what waiting
    does not mend: credentials, a refused filter, a second client with our id. Everything else is tried again.
    ``on_connected(session_present)`` and ``on_disconnected(error)`` tell the readiness probe; the latter also comes
    for a failed attempt. ``on_new_session()`` comes before any message of a session that the broker began afresh.
    ``permit()`` is awaited before each attempt to connect, and may raise what ends ``run``. Callbacks must not block.
    For the thread of one event loop.
    """

    def __init__(
        self,
        options: Options,
        filters: Sequence[str],
        on_messages: Callable[[list[Message]], None],
        *,
        on_new_session: Callable[[], None] = lambda: None,
        on_connected: Callable[[bool], None] = lambda _: None,
        on_disconnected: Callable[[GatewayError], None] = lambda _: None,
        permit: Callable[[], Awaitable[None]] = _permitted,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(options.url)
        try:
            port = parts.port
        except ValueError as error:
            raise Misconfigured(f"the broker's port: {error}", "write mqtt://host:port") from error
        if parts.scheme not in ("mqtt", "mqtt5", "mqtts") or not parts.hostname:
            what = f"{parts.scheme}://{parts.hostname or ''} is no MQTT broker"
            raise Misconfigured(what, "write mqtt://host:port or mqtts://host:port")
        secure = parts.scheme == "mqtts"
        self._host, self._port = parts.hostname, port or (8883 if secure else 1883)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._username = options.username or (unquote(parts.username) if parts.username else None)
        self._password = options.password or (unquote(parts.password) if parts.password else None)
        self._options = options
        self._filters = tuple(filters)
        #: The session may still have these, from before `resubscribe`.
        self._gone: tuple[str, ...] = ()
        self._on_messages = on_messages
        self._on_new_session = on_new_session
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._permit = permit
        self._connection: Connection | None = None
        self._number = 0
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Connected and subscribed."""
        return self._ready.is_set()

    @property
    def max_packet(self) -> int | None:
        """The largest packet the broker takes, in bytes, as it announced; None when it named none, or is away."""
        return self._connection.max_packet if self._connection else None

    @property
    def number(self) -> int:
        """How many connections were tried so far: another one means that what was unanswered must be sent again."""
        return self._number

    async def ready(self) -> None:
        """Wait until it is connected and subscribed."""
        await self._ready.wait()

    def abandon(self) -> None:
        """Cut the connection without a word, and without what waits to be written: another has the session."""
        if self._connection is not None:
            self._connection.abort()

    def ack(self, message: Message) -> None:
        """Tell the broker to forget the message; the PUBACK leaves when all before it are acknowledged too.

        Does nothing for QoS 0, for a message acknowledged before, and for one of an earlier connection, whose packet
        id may be another message by now. In the order of receipt: MQTT-4.6.0-2.
        """
        if self._connection is not None and message.connection == self._connection.number:
            self._connection.ack(message)

    async def resubscribe(self, filters: Sequence[str]) -> None:
        """Have ``filters`` instead, now and after every connect; what passes those that stay goes on without a gap.

        New ones come before old ones go, so a message that passes one of each may come twice, and none is missed.
        Raises `Misconfigured` or `Unavailable` where the broker refuses one: then all is as it was. While it is away
        there is nothing to refuse: `run` raises then.
        """
        old, self._filters = self._filters, tuple(filters)
        new = [one for one in self._filters if one not in old]
        gone = tuple(one for one in dict.fromkeys((*self._gone, *old)) if one not in self._filters)
        self._gone, before = gone, self._gone
        connection = self._connection
        if connection is None or not self.connected:
            return
        try:
            suback = await connection.answer(connection.subscribe(new))
        except GatewayError:
            return  # it ended: the next connection begins with these
        try:
            self._granted(new, suback)
        except GatewayError:
            self._filters, self._gone = old, before
            connection.unsubscribe(new)
            raise
        with suppress(GatewayError):  # as above
            await connection.answer(connection.unsubscribe(gone))
            self._gone = ()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: Literal[0, 1] = 1,
        retain: bool = False,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        message_expiry: int | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
    ) -> asyncio.Future[int]:
        """Send, and get the broker's reason code (0, 0x10 nobody subscribes, 0x87 not authorized, …) as a future.

        QoS 0 or 1; a QoS 0 message is done when handed to the socket. Raises at once `Unavailable` without a
        connection, `BadTopic` for a name that is none, `TooLarge` for a packet above the broker's maximum, `Busy` when
        too many wait for its Receive Maximum. The future raises `Unavailable` when the connection ends before PUBACK:
        whether the broker has the message is unknown, so send it again with the same id. ``message_expiry`` in seconds.
        """
        if self._connection is None or not self.connected:
            raise Unavailable(f"no connection to the broker at {self._host}:{self._port}", "try again")

        if "\0" in topic:  # the codec lets it through, and brokers close the connection (MQTT-1.5.4-2)
            raise BadTopic("a topic contains NUL", "publish to a plain topic name")

        def packet(packet_id: int | None) -> bytes:
            return mqtt5.PublishPacket(
                topic,
                payload,
                qos=QoS.AT_LEAST_ONCE if qos else QoS.AT_MOST_ONCE,
                retain=retain,
                packet_id=packet_id,
                content_type=content_type,
                response_topic=response_topic,
                correlation_data=correlation_data,
                message_expiry_interval=message_expiry,
                user_properties=list(user_properties),
            ).write()

        return self._connection.publish(packet, acknowledged=qos > 0)

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye, so that the broker keeps the session and sends no will."""
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            await self._permit()
            began = loop.time()
            try:
                await self._live()
            except Misconfigured as error:
                self._on_disconnected(error)
                raise
            except ssl.SSLCertVerificationError as error:
                remedy = "use a certificate of a known authority, or add its authority to the system's"
                raise Misconfigured(f"the certificate of {self._host}:{self._port}: {error.reason}", remedy) from error
            except (Unavailable, OSError) as error:
                self._on_disconnected(self._unavailable(error))
            low, high = limits.MQTT_BACKOFF
            attempt = 0 if loop.time() - began > high else min(attempt + 1, 10)
            await asyncio.sleep(secrets.SystemRandom().uniform(0, min(high, low * 2**attempt)))

    async def __aenter__(self) -> MqttClient:
        self._task = asyncio.create_task(self.run(), name=f"mqtt {self._options.client_id}")
        ready = asyncio.create_task(self._ready.wait(), name="mqtt ready")
        try:
            await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def _live(self) -> None:
        self._number += 1
        connection = Connection(self._number, self._options.receive_maximum, self._on_messages)
        try:
            async with asyncio.timeout(limits.MQTT_ANSWER_WITHIN):
                await self._open(connection)
            await connection.stay(self._keep_alive(connection))
        finally:
            self._ready.clear()
            self._connection = None
            connection.disconnect(DisconnectReasonCode.NORMAL_DISCONNECTION)

    async def _open(self, connection: Connection) -> None:
        loop, options = asyncio.get_running_loop(), self._options
        await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
        # Messages of a session come right behind CONNACK, and must find their connection.
        self._connection = connection
        connection.send(
            mqtt5.ConnectPacket(
                options.client_id,
                username=self._username,
                password=self._password.encode() if self._password is not None else None,
                # A session that began clean is never written to disk by Mosquitto.
                clean_start=False,
                session_expiry_interval=options.session_expiry,
                keep_alive=options.keep_alive,
                receive_max=options.receive_maximum,
                max_packet_size=limits.MQTT_PACKET_BYTES,
            ).write()
        )
        connack = await connection.answer(connection.connack)
        if connack.reason_code != ConnAckReasonCode.SUCCESS:
            raise self._refused(connack.reason_code)
        if not connack.session_present:
            self._on_new_session()
        filters, gone = self._filters, self._gone
        self._granted(filters, await connection.answer(connection.subscribe(filters)))
        await connection.answer(connection.unsubscribe(gone))
        if filters != self._filters:
            raise Unavailable("other filters are asked for by now", "it is opened again")
        self._gone = ()
        self._ready.set()
        self._on_connected(connack.session_present)

    def _granted(self, filters: Sequence[str], suback: mqtt5.SubAckPacket | mqtt5.UnsubAckPacket) -> None:
        for pattern, code in zip(filters, suback.reason_codes, strict=True):
            if int(code) in _TEMPORARY:
                raise Unavailable(f"the broker refused the filter {pattern} for now: {code.name}")
            if int(code) >= 0x80:
                remedy = (
                    f"let {self._username or 'anonymous clients'} subscribe to it, or declare no topic that needs it"
                )
                raise Misconfigured(f"the broker refused the filter {pattern}: {code.name}", remedy)

    def _refused(self, code: ConnAckReasonCode) -> GatewayError:
        what = f"the broker at {self._host}:{self._port} refused {self._username or 'an anonymous client'}: {code.name}"
        remedy = _REMEDIES.get(int(code))
        return Misconfigured(what, remedy) if remedy else Unavailable(what, "it is tried again")

    def _unavailable(self, error: Unavailable | OSError) -> Unavailable:
        if isinstance(error, Unavailable):
            return error
        why = f"no answer within {limits.MQTT_ANSWER_WITHIN} s" if isinstance(error, TimeoutError) else str(error)
        return Unavailable(f"the broker at {self._host}:{self._port} is away: {why}", "it is tried again")

    def _keep_alive(self, connection: Connection) -> int:
        server = connection.connack.result().server_keep_alive
        return self._options.keep_alive if server is None else server

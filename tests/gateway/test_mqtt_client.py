"""The client against a peer that follows a script: what no honest broker sends, and exactly how bytes are cut."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import mqtt5
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import limits
from gateway.adapters.mqtt import Message, MqttClient, Options, connection
from gateway.errors import BadPacket, BadTopic, Busy, GatewayError, Misconfigured, TooLarge, Unavailable
from tests.servers import eventually


class Peer:
    """A broker by script: answers CONNECT and SUBSCRIBE as told, keeps what it reads, sends what the test writes."""

    def __init__(self, connack: mqtt5.ConnAckPacket, suback: int) -> None:
        self._connack = connack
        self.suback = suback
        self.port = 0
        self.read: list[mqtt5.Packet] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.serving: set[asyncio.Task[None] | None] = set()

    def write(self, data: bytes) -> None:
        self.writers[-1].write(data)

    def of(self, kind: type[mqtt5.Packet]) -> list[mqtt5.Packet]:
        return [packet for packet in self.read if type(packet) is kind]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        self.writers.append(writer)
        data = b""
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                data += chunk
                with suppress(IndexError):
                    while data:
                        packet, size = mqtt5.read(memoryview(data))
                        data = data[size:]
                        self._take(packet, writer)
        writer.close()

    def _take(self, packet: mqtt5.Packet, writer: asyncio.StreamWriter) -> None:
        self.read.append(packet)
        if isinstance(packet, mqtt5.ConnectPacket):
            writer.write(self._connack.write())
        elif isinstance(packet, mqtt5.SubscribePacket):
            # By hand: the codec's codes cannot be made from numbers.
            writer.write(b"\x90\x04" + packet.packet_id.to_bytes(2, "big") + b"\x00" + bytes([self.suback]))
        elif isinstance(packet, mqtt5.UnsubscribePacket):
            writer.write(b"\xb0\x04" + packet.packet_id.to_bytes(2, "big") + b"\x00\x00")


@asynccontextmanager
async def peer(
    connack: mqtt5.ConnAckPacket | None = None, suback: int = 1, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    script = Peer(connack or mqtt5.ConnAckPacket(), suback)
    async with await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=tls) as server:
        script.port = server.sockets[0].getsockname()[1]
        yield script
        for writer in script.writers:
            writer.close()
        await asyncio.gather(*(task for task in script.serving if task))


class Bridge:
    def __init__(self, script: Peer, *, scheme: str = "mqtt", **options: object) -> None:
        self.batches: list[list[Message]] = []
        self.losses: list[GatewayError] = []
        tls = options.pop("tls", None)
        self.client = MqttClient(
            Options(f"{scheme}://127.0.0.1:{script.port}", "bridge", **options),  # type: ignore[arg-type]  # options as tests give them
            ("a/#",),
            self.batches.append,
            on_disconnected=self.losses.append,
            tls=tls,  # type: ignore[arg-type]  # options as tests give them
        )


def publish(number: int, topic: str = "a/b", payload: bytes = b"x") -> bytes:
    return mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number).write()


async def test_what_one_read_brings_is_one_batch() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            script.write(publish(1) + publish(2) + publish(3))
            await eventually(lambda: bridge.batches)
    assert [[message.packet_id for message in batch] for batch in bridge.batches] == [[1, 2, 3]]


async def test_packets_may_come_in_any_pieces() -> None:
    data = publish(1) + publish(2, payload=b"y" * 200) + publish(3)
    for cut in range(len(data) + 1):
        batches: list[list[Message]] = []
        line = connection.Connection(1, 200, batches.append)
        line.data_received(data[:cut])
        line.data_received(data[cut:])
        assert [(m.packet_id, len(m.payload)) for batch in batches for m in batch] == [(1, 1), (2, 200), (3, 1)]


async def test_small_packets_do_not_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[socket.socket] = []

    class Seen(connection.Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # As on loops that leave it alone: asyncio's own sets it where it knows that this is TCP.
            found.append(transport.get_extra_info("socket"))
            found[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            super().connection_made(transport)

    monkeypatch.setattr("gateway.adapters.mqtt.client.Connection", Seen)
    async with peer() as script, Bridge(script).client:
        assert found[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_acknowledgements_of_one_turn_leave_in_one_write() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            script.write(b"".join(publish(n) for n in range(1, 101)))
            await eventually(lambda: sum(map(len, bridge.batches)) == 100)
            for message in reversed([m for batch in bridge.batches for m in batch]):
                bridge.client.ack(message)
            await eventually(lambda: len(script.of(mqtt5.PubAckPacket)) == 100)
    ids = [packet.packet_id for packet in script.read if isinstance(packet, mqtt5.PubAckPacket)]
    assert ids == list(range(1, 101))


HOSTILE: list[tuple[str, bytes, str]] = [
    ("a reserved packet type", b"\x00\x00", "malformed"),
    ("a PUBLISH of QoS 3", b"\x36\x05\x00\x01a\x00\x01", "malformed"),
    ("a length of five bytes", b"\x30\xff\xff\xff\xff\x01", "malformed"),
    ("a topic longer than its packet", b"\x30\x03\x00\x64a", "malformed"),
    ("a topic that is not UTF-8", b"\x30\x05\x00\x01\xff\x00x", "UTF-8"),
    ("a packet of 256 MB", b"\x30\xff\xff\xff\x7f\x00", "above 262144"),
    ("a second CONNACK", mqtt5.ConnAckPacket().write(), "unasked ConnAckPacket"),
    ("a packet of clients", mqtt5.PingReqPacket().write(), "unasked PingReqPacket"),
]


# The codec reports its panic a second time, as an exception that nobody can catch.
@pytest.mark.parametrize(("data", "says"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_malformed_packet_closes_and_heals(data: bytes, says: str) -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            script.write(publish(1) + data)
            await eventually(lambda: bridge.losses)
            await eventually(lambda: bridge.client.connected)
            script.write(publish(2))
            await eventually(lambda: len(bridge.batches) == 2)
    assert isinstance(bridge.losses[0], BadPacket)
    assert says in str(bridge.losses[0])
    assert [m.packet_id for batch in bridge.batches for m in batch] == [1, 2]  # what came before it counts
    assert script.of(mqtt5.DisconnectPacket)


async def test_a_broker_that_ignores_receive_maximum_waits() -> None:
    async with peer() as script:
        bridge = Bridge(script, receive_maximum=10)
        async with bridge.client:
            script.write(b"".join(publish(n, payload=b"x" * 1000) for n in range(1, 3_001)))
            done, got = 0, list[Message]()
            while done < 3_000:
                await eventually(lambda: sum(map(len, bridge.batches)) > done)  # noqa: B023  asked before it changes
                got = [message for batch in bridge.batches for message in batch]
                assert len(got) - done <= 11
                for message in got[done:]:
                    bridge.client.ack(message)
                done = len(got)
            assert bridge.client.connected
    assert [message.packet_id for message in got] == list(range(1, 3_001))
    assert [loss for loss in bridge.losses if isinstance(loss, BadPacket)] == []


async def test_publishes_keep_to_the_brokers_receive_maximum() -> None:
    async with peer(mqtt5.ConnAckPacket(receive_max=2)) as script:
        bridge = Bridge(script)
        async with bridge.client:
            futures = [bridge.client.publish("a/b", str(n).encode()) for n in range(4)]
            await bridge.client.publish("a/mark", b"", qos=0)
            await eventually(lambda: len(script.of(mqtt5.PublishPacket)) == 3)
            sent = [packet for packet in script.read if isinstance(packet, mqtt5.PublishPacket)]
            assert [packet.payload for packet in sent] == [b"0", b"1", b""]
            for n in range(4):
                await eventually(lambda n=n: len(script.of(mqtt5.PublishPacket)) > n + (n > 1))
                acked = [p for p in script.read if isinstance(p, mqtt5.PublishPacket) and p.packet_id]
                script.write(mqtt5.PubAckPacket(acked[n].packet_id or 0).write())
                assert await futures[n] == 0


async def test_publishes_wait_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MQTT_WAITING_PUBLISHES", 3)
    async with peer(mqtt5.ConnAckPacket(receive_max=1, max_packet_size=100)) as script:
        bridge = Bridge(script)
        async with bridge.client:
            futures = [bridge.client.publish("a/b", b"") for _ in range(4)]
            with pytest.raises(Busy):
                bridge.client.publish("a/b", b"")
            with pytest.raises(TooLarge):
                bridge.client.publish("a/b", b"x" * 100)
            script.writers[-1].close()
            # Whether the broker has them is unknown: the publisher decides, and sends again with the same id.
            for future in futures:
                with pytest.raises(Unavailable, match="same id"):
                    await future


@pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "a\x00b", "a\ud800"])
async def test_a_topic_that_is_none_never_leaves(topic: str) -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            with pytest.raises(BadTopic):
                bridge.client.publish(topic, b"")


def test_options_do_not_print_secrets() -> None:
    assert "secret" not in repr(Options("mqtt://user:secret@host", "bridge", password="secret"))


async def test_a_refused_filter_is_named() -> None:
    async with peer(suback=0x87) as script:
        with pytest.raises(Misconfigured, match=r"filter a/# *: *NOT_AUTHORIZED"):
            async with Bridge(script).client:
                pytest.fail("connected")


def filters(packets: list[mqtt5.Packet]) -> list[list[str]]:
    """What each SUBSCRIBE or UNSUBSCRIBE names."""
    return [
        [one.pattern for one in p.topic_filters] if isinstance(p, mqtt5.SubscribePacket) else p.patterns
        for p in packets
        if isinstance(p, mqtt5.SubscribePacket | mqtt5.UnsubscribePacket)
    ]


async def test_other_filters_take_the_place_of_those_that_go() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client as client:
            await client.resubscribe(["b/#"])
            assert filters(script.read) == [["a/#"], ["b/#"], ["a/#"]]  # new before old
            script.suback = 0x87
            with pytest.raises(Misconfigured, match="refused the filter c/#"):
                await client.resubscribe(["b/#", "c/#"])
            await eventually(lambda: filters(script.read)[3:] == [["c/#"], ["c/#"]])
            script.suback = 1
            # Without a connection there is nobody to ask: the next one begins with what is wanted then.
            script.writers[-1].close()
            await eventually(lambda: not client.connected)
            await client.resubscribe(["d/#"])
            await eventually(lambda: client.connected)
            assert filters(script.read)[-2:] == [["d/#"], ["b/#"]]


async def test_a_filter_refused_for_now_is_tried_again() -> None:
    async with peer(suback=0x97) as script:
        bridge = Bridge(script)
        running = asyncio.create_task(bridge.client.run(), name="bridge")
        await eventually(lambda: len(bridge.losses) > 1)
        running.cancel()
    assert all(type(loss) is Unavailable for loss in bridge.losses)


async def test_a_session_taken_over_is_not_taken_back() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        running = asyncio.create_task(bridge.client.run(), name="bridge")
        await eventually(lambda: bridge.client.connected)
        script.write(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write())
        with pytest.raises(Misconfigured, match="client id"):
            await running


async def test_a_broker_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MQTT_ANSWER_WITHIN", 0.2)
    async with peer(mqtt5.ConnAckPacket(server_keep_alive=1)) as script:
        bridge = Bridge(script, keep_alive=600)
        async with bridge.client:
            await eventually(lambda: bridge.losses)
    assert "ping" in str(bridge.losses[0])
    assert script.of(mqtt5.PingReqPacket)


async def test_goodbye_comes_after_the_last_acknowledgement() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            script.write(publish(1))
            await eventually(lambda: bridge.batches)
            bridge.client.ack(bridge.batches[0][0])
        await eventually(lambda: script.of(mqtt5.DisconnectPacket))
    assert [type(packet) for packet in script.read[-2:]] == [mqtt5.PubAckPacket, mqtt5.DisconnectPacket]


async def test_an_abandoned_connection_ends_without_a_word() -> None:
    async with peer() as script:
        bridge = Bridge(script)
        async with bridge.client:
            script.write(publish(1))
            await eventually(lambda: bridge.batches)
            bridge.client.ack(bridge.batches[0][0])
            bridge.client.abandon()
            with pytest.raises(Unavailable, match="has ended"):  # before its owner has heard of it
                bridge.client.publish("a", b"x")
            await eventually(lambda: len(script.writers) == 2)
            before = [type(packet) for packet in script.read]
    assert mqtt5.PubAckPacket not in before
    assert mqtt5.DisconnectPacket not in before


async def test_nobody_connects_without_a_permit() -> None:
    async with peer() as script:
        bridge, permits = Bridge(script), asyncio.Semaphore(0)

        async def permit() -> None:
            await permits.acquire()

        bridge.client._permit = permit
        running = asyncio.create_task(bridge.client.run(), name="client")
        permits.release()
        await bridge.client.ready()
        bridge.client.abandon()
        await eventually(lambda: bridge.losses and not bridge.client.connected)
        assert bridge.client.number == len(script.writers) == 1
        permits.release()
        await bridge.client.ready()
        assert bridge.client.number == len(script.writers) == 2
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:1883", "mqtt://", "mqtt://host:99999"])
async def test_a_url_that_is_no_broker(url: str) -> None:
    with pytest.raises(Misconfigured, match="mqtt://host:port"):
        MqttClient(Options(url, "bridge"), (), lambda _: None)


async def test_a_broker_with_tls(tmp_path: Path) -> None:
    server, trusting = _certificate(tmp_path)
    async with peer(tls=server) as script:
        async with Bridge(script, scheme="mqtts", tls=trusting, username="gateway", password="é").client:
            pass
        first = script.read[0]
        assert isinstance(first, mqtt5.ConnectPacket)
        assert (first.clean_start, first.password) == (False, "é".encode())


async def test_an_unknown_certificate_is_the_operators_to_mend(tmp_path: Path) -> None:
    server, _ = _certificate(tmp_path)
    async with peer(tls=server) as script:
        with pytest.raises(Misconfigured, match="certificate"):
            async with Bridge(script, scheme="mqtts").client:
                pytest.fail("connected")


def _certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))

"""Every door as a function of bytes: it returns, or raises one of our errors; anything else is a finding."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from centrifuge.protocol import client_pb2
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships none

from gateway import limits
from gateway.adapters import http_api
from gateway.adapters.decoders import BUILT_IN
from gateway.adapters.log import entry
from gateway.adapters.log.resp import Reply
from gateway.adapters.tokens import Verifier, issue
from gateway.core import cursor, handshake, payload, topic, wire, wire_protobuf
from gateway.core.access import Principal
from gateway.core.declared import Declared, Topic
from gateway.core.event import Draft, Event, Meta, Record
from gateway.core.frame import FrameReader
from gateway.core.ingest import Accepted, Arrived, Ingest, Rejected
from gateway.core.mapping import Rule
from gateway.core.session import Session
from gateway.errors import BadPayload, NotAvailable
from gateway.settings import Settings, TokensTable, load
from tests.fuzz import credentials
from tests.fuzz.target import Broken, Target
from tests.protobuf_oracle import agree

NOW = 1_800_000_000
MASK = b"\x01\x02\x03\x04"


def _frames(data: bytes) -> None:
    whole, cut = FrameReader(1_000), FrameReader(1_000)
    messages = whole.feed(data)
    pieces = [message for at in range(0, len(data), 3) for message in cut.feed(data[at : at + 3])]
    if (pieces, cut.error) != (messages, whole.error):
        raise Broken("cut into other reads, the same bytes are other messages")
    if any(len(message.payload) > 1_000 for message in messages):
        raise Broken("a message over the bound")


def _session(codec: wire.Codec) -> Callable[[bytes], None]:
    def receive(data: bytes) -> None:
        for known in (False, True):
            session = Session("client", codec)
            if known:
                list(session.receive(_CONNECT[codec is wire]))
                session.connected(Principal("user", "alice"))
            steps = sum(1 for _ in session.receive(data))
            if steps > len(data) + 1 or len(session.channels) > limits.SUBSCRIPTIONS:
                raise Broken(f"{steps} steps and {len(session.channels)} channels of {len(data)} bytes")

    return receive


#: A connect command in Protobuf, and in JSON.
_CONNECT = (b"\x06\x08\x01\x22\x02\x0a\x00", b'{"id":1,"connect":{}}')


def _packed(data: bytes) -> None:
    """A frame, command by command, against the classes generated from the schema."""
    if len(data) > limits.MESSAGE_BYTES:
        return  # the frame reader has said so
    for line in wire_protobuf.commands(data):
        theirs = client_pb2.Command()
        try:
            theirs.ParseFromString(line)
            read = True
        except DecodeError:
            read = False
        try:
            ours = wire_protobuf.decode(line)
        except BadPayload as refused:
            # A number of more than 64 bits they cut; we refuse it, as the servers in Go do.
            if read and not _older(line) and "64 bits" not in str(refused):
                raise Broken("they read what we refuse") from None
            raise
        if read and not _raw(theirs):
            agree(ours, theirs)


def _raw(command: Any) -> bool:
    """Whether a filter by tags is in it: it stays as it came here, and they would put its fields in order."""
    return bool(command.HasField("subscribe") and command.subscribe.HasField("tf"))


def _older(line: bytes) -> bool:
    """Whether it may hold a group (wire types 3 and 4), which only an old schema has: they skip it, we refuse it."""
    return any(byte & 7 in (3, 4) for byte in line)


def _server_api(data: bytes) -> None:
    for method, type in http_api.REQUESTS.items():
        try:
            asked = http_api._read(data, type)
            if isinstance(asked, http_api.Publish | http_api.Broadcast):
                asked.payload()
        except (BadPayload, NotAvailable):
            continue
        if method == "disconnect" and "session" in json.loads(data):
            raise Broken("more clients are sent away than were meant")
    http_api._read(data, http_api._Batch)


def _filters(data: bytes) -> None:
    a, _, b = data.decode(errors="replace").partition("\n")
    topic.check_filter(a)
    topic.check_filter(b)
    if topic.overlap(a, b) != topic.overlap(b, a):
        raise Broken("a overlaps b, and b does not overlap a")
    if not topic.is_filter(b):
        topic.check_name(b)
        if topic.matches(a, b) != topic.overlap(a, b):
            raise Broken("a name that a filter lets through is an overlap of the two, and else not")


class _Tokens:
    """A verifier, and a good token of it."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "secret"
            file.touch(mode=0o600)
            file.write_bytes(b"a secret of the fuzz targets, long enough")
            self.verifier = Verifier(Settings(tokens=TokensTable(hs256_secret_file=str(file))))
        self.verifier.ring.look = lambda: None  # type: ignore[method-assign]  # the file of the secret is gone again
        self.good = issue(b"a secret of the fuzz targets, long enough", Principal("user", "alice"), 3600, NOW)

    def __call__(self, data: bytes) -> None:
        granted = self.verifier.verify(data.decode("latin-1"), NOW)
        if granted.principal != Principal("user", "alice"):
            raise Broken(f"a token that nobody signed is {granted.principal}")


_tokens = _Tokens()


def _unsigned(header: bytes, claims: bytes) -> bytes:
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims, b"signature"))
    return b".".join(parts)


def _configuration(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        load(file.name, {})


def _variables(data: bytes) -> None:
    pairs = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    load(None, {f"GATEWAY_{name}": value for name, _, value in pairs})


def _payloads(data: bytes) -> None:
    kept = payload.check_json(data)
    # What we let through, every reader can read, on one line, and it is what was sent.
    if b"\n" in kept or repr(json.loads(kept)) != repr(json.loads(data)):
        raise Broken("a check that changes what it checks")


_DECLARED = Declared(
    (
        Topic(pattern="devices/{device}/telemetry", key="{device}", identity="{device}/{boot}/{seq}", mqtt="in"),
        Topic(pattern="try/#", payload="bytes", mqtt="in"),
    )
)
_ingest = Ingest(_DECLARED, BUILT_IN, "session")


def _mqtt(data: bytes) -> None:
    name, _, rest = data.partition(b"\n")
    kind, _, body = rest.partition(b"\n")
    text = kind.decode(errors="replace")
    arrived = Arrived(name.decode(errors="replace"), body, 7, False, text, [("id", text), (text, "x")], text, kind)
    judged = _ingest.judge(arrived, "an id", NOW * 1000)
    if isinstance(judged, Rejected) and not judged.reason:
        raise Broken(f"judged {judged!r}")


def _message_pack(data: bytes) -> None:
    # A decoder may raise what it likes; the door makes a dead letter of it.
    judged = _ingest.judge(Arrived("devices/7/telemetry", data, 7, content_type="application/msgpack"), "an id", NOW)
    if isinstance(judged, Accepted):
        payload.check_json(judged.draft.event.data)


def _entries(data: bytes) -> None:
    fields: list[Reply] = [*data.split(b"\n", 9)]
    found = entry.read("devices.1", [b"1-1", fields])
    if isinstance(found, Record) and found.event.data != fields[5]:
        raise Broken("an entry that says what it does not hold")
    entry.read_last("devices.1", b"devices/7/telemetry", data)


def _head(data: bytes) -> None:
    asked = handshake.parse(data)
    if isinstance(asked, handshake.Request):
        handshake.accept(asked)
    elif not asked.response().startswith(b"HTTP/1.1 4"):
        raise Broken("a refusal that is none")


def _cursors(data: bytes) -> None:
    text, ours = data.decode(errors="replace"), frozenset({"devices.0", "devices.1"})
    found = cursor.parse(text, ours)
    if not found.keys() <= ours or cursor.parse(cursor.render(found), ours) != found:
        raise Broken("a cursor that reads back as another")


def _rules(data: bytes) -> None:
    source, _, target = data.decode(errors="replace").partition("\n")
    Rule(source, target)


def _patterns(data: bytes) -> None:
    pattern, key, grant, *_ = *data.decode(errors="replace").split("\n", 2), "", ""
    Declared([Topic(pattern=pattern, key=key, read=(grant,) if grant else ())])


def _entry_seeds() -> Iterator[bytes]:
    event = Event("devices/7/telemetry", b'{"celsius":21}', "an id", Meta(producer="device:7"))
    meta = entry.checked(event.meta, event.topic.encode(), event.id.encode(), event.data)
    yield b"\n".join((b"topic", event.topic.encode(), b"id", b"an id", b"data", event.data, b"ts", b"1", b"meta", meta))
    yield b"presence\njoin\ntopic\nrooms/1\nclient\nc\nuser\nu\n"
    yield b"1-1 5 %d\nan id" % len(meta) + meta + event.data
    yield entry.packed(Draft(event, "7"))


_BODIES: tuple[dict[str, Any], ...] = (
    {"connect": {"token": "t", "data": b"{}", "name": "js", "subs": {"a": {"recover": True}}}},
    {"subscribe": {"channel": "a", "token": "t", "offset": 2**64 - 1, "epoch": "7", "flag": -1, "recover": True}},
    {"history": {"channel": "a", "limit": -1, "since": {"offset": 3, "epoch": "7"}, "reverse": True}},
    {"sub_refresh": {"channel": "a", "token": "t"}},
    {"rpc": {"method": "m", "data": bytes(300)}},
)


def _sized(body: bytes) -> bytes:
    return bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body


_TOML = (Path(__file__).parents[2] / "gateway.toml").read_bytes()
_HANDSHAKE = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

TARGETS: dict[str, Target] = {
    "frames": Target(
        _frames,
        (
            b"\x81\x85" + MASK + b"hello",
            b"\x01\x80" + MASK + b"\x80\x80" + MASK,
            b"\x88\x82" + MASK + b"\x02\xea",
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + MASK,
            b"\x82\xfe\xff\xff" + MASK,
        ),
    ),
    "commands": Target(
        _session(wire),
        (
            b'{"id":1,"connect":{"token":"x"}}\n{"id":2,"subscribe":{"channel":"rooms/1/#"}}',
            b'{"id":3,"subscribe":{"channel":"a","recover":true,"epoch":"1","offset":-1}}',
            b'{"id":4,"publish":{"channel":"a","data":{"a":1,"a":2}}}',
            b'{"id":5,"rpc":{"method":"m","data":' + b"[" * 200 + b"]" * 200 + b"}}",
            b'{"id":6,"history":{"channel":"a","limit":1e400}}\n\n{}',
            b'{"id":4294967296,"presence":{"channel":"\\ud800"}}',
        ),
    ),
    "commands in Protobuf": Target(
        _session(wire_protobuf),
        (_CONNECT[0], b"\x07\x08\x02\x2a\x03\x0a\x01a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x02\x08\x80"),
    ),
    "frames in Protobuf": Target(
        _packed,
        (
            b"\x07\x08\x02\x2a\x03\x0a\x01a\x02\x08\x01",
            *(_sized(client_pb2.Command(id=7, **body).SerializeToString()) for body in _BODIES),
        ),
    ),
    "server API": Target(
        _server_api,
        (
            b'{"channel":"a","data":{"n":1},"idempotency_key":"k"}',
            b'{"channels":["a","b"],"b64data":"AP8K","tags":{"a":"b"}}',
            b'{"user":"alice","channel":"a","client":"c","recover_since":{"offset":1,"epoch":"2"}}',
            b'{"user":"alice","expire_at":1e400,"disconnect":{"code":4000,"reason":""},"session":""}',
            b'{"commands":[{"publish":{"channel":"a","data":[]}},{"info":{}}]}',
        ),
    ),
    "filters": Target(
        _filters, (b"a/+/c\na/b/c", b"#\n$SYS/x", b"devices/+/#\ndevices/7/telemetry", b"+/+\n/", b"a//b\n+")
    ),
    "tokens": Target(
        _tokens,
        (
            _tokens.good.encode(),
            _unsigned(b'{"alg":"none"}', b'{"sub":"eve","exp":1900000000}'),
            _unsigned(b'{"alg":"HS256","kid":"../../etc/passwd"}', b'{"sub":"","exp":"1900000000"}'),
            _unsigned(b'{"alg":"HS256","alg":"none"}', b"[" * 2_000 + b"]" * 2_000),
        ),
    ),
    "configuration": Target(
        _configuration,
        (
            _TOML,
            b'[gateway]\nname = "x"\npartitions = 8',
            b"[[topics]]\npattern = 'a/{b}'\nmax_bytes = '9EiB'",
            b"a." * 500,
        ),
    ),
    "variables": Target(
        _variables,
        (
            b"EDGE_PORT=8080\nEDGE_HOST=0.0.0.0",
            b"LOG_URL=redis://u:p@[::1/0",
            b"MQTT_SESSION_EXPIRY=7d\nMQTT_URL=mqtts://h:1",
            b"EDGE_PROXIES=10.0.0.0/8,x\nEDGE_BEHIND_PROXY=true",
        ),
    ),
    "payloads": Target(
        _payloads, (b'{"a":[1,2.5,"x",null]}', b'{"a":1,"\\u0061":2}', b"1" * 400, b"[" * 300, b'"\\ud800"')
    ),
    "message pack": Target(
        _message_pack, (b"\x82\xa1a\x01\xa1b\x93\x01\x02\x03", b"\x82\xa1a\x01\xa1a\x02", b"\xdd\xff\xff\xff\xff")
    ),
    "mqtt": Target(
        _mqtt,
        (
            b'devices/7/telemetry\napplication/json\n{"boot":1,"seq":2}',
            b"devices/7/telemetry\napplication/msgpack\n\x82\xa4boot\x01\xa3seq\x02",
            b"try/x\n\n\x00\xff",
            b"$SYS/x\ntext/plain\nx",
        ),
    ),
    "entries": Target(_entries, tuple(_entry_seeds())),
    "handshakes": Target(_head, (_HANDSHAKE, _HANDSHAKE.replace(b"13", b"8"), _HANDSHAKE.replace(b"\r\n", b"\n"))),
    "cursors": Target(
        _cursors, (b"devices.0:1-2,devices.1:3-4", b"devices.0:" + b"9" * 400 + b"-1", "devices.0:١-٢".encode())
    ),
    "maps": Target(
        _rules, (b"tele/{device}/SENSOR\ndevices/{device}/telemetry", b"$share/g/a\na", b"{a}/{a}\n{a}", b"+/#\n{b}")
    ),
    "declarations": Target(
        _patterns, (b"devices/{device}/telemetry\n{device}\nuser:{device}", b"{a}/{a}\n\nanyone", b"a/#/b", b"{\n}\n{")
    ),
}
TARGETS |= credentials.TARGETS

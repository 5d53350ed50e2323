"""Settings: what an operator may write, and what is said, with file and line, of all else."""

from pathlib import Path

import msgspec
import pytest

from gateway import limits
from gateway.core.declared import Topic
from gateway.errors import Misconfigured
from gateway.settings import (
    ENVIRONMENT,
    AppTable,
    LogTable,
    MapTable,
    MqttTable,
    Settings,
    TopicTable,
    load,
    loopback,
    redacted,
)
from gateway.tables import duration, size

EVERYTHING = """
[gateway]
name = "plant"
partitions = 4
data = "state"
apps = ["shop.app:SHOP"]

[log]
url = "redis://me:hidden@127.0.0.1:6379/0"

[mqtt]
url = "mqtts://broker.example.org:8883"
username = "gateway"
password_file = "secrets/mqtt"
client_id = "gw-1"
receive_maximum = 100
session_expiry = "2d"

[[mqtt.map]]
from = "tele/{device}/SENSOR"
to = "devices/{device}/telemetry"

[edge]
host = "0.0.0.0"
port = 443
processes = 4
messages_per_second = 10
message_burst = 20
connections_per_user = 0
anonymous = true
allowed_origins = ["https://example.org", "http://[::1]:8080"]
behind_proxy = true
proxies = ["10.0.0.0/8", "192.168.1.7"]

[tokens]
hs256_secret_file = "/run/secrets/hs256"
audience = "gateway"
issuer = "https://id.example.org"

[apps.devices]
durability = "replica"
retention = "24h"
keep = 500

[services."shop.orders"]
url = "http://orders:8082"
database = "postgresql://shop:hidden@db.example/orders"

[[topics]]
pattern = "devices/{device}/telemetry"
mqtt = "in"
read = ["user"]
max_bytes = "8KiB"

[[topics]]
pattern = "try/#"
app = "try"
kind = "command"
payload = "bytes"
write = ["anyone"]
key = ""
retain = false
history = false
ephemeral = true
max_bytes = 1000
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return str(path)


def problems(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load(written(tmp_path, text), env or {})
    assert caught.value.remedy
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.detail.splitlines()]


def test_an_empty_file_and_no_file_give_the_defaults(tmp_path: Path) -> None:
    assert load(None, {}) == Settings()
    empty = load(written(tmp_path, ""), {})
    assert (empty.edge.host, empty.edge.port, empty.log.url, empty.mqtt.url) == ("127.0.0.1", 8080, "", "")
    assert empty.secret_file == Path(".gateway/token.secret")


def test_every_key_is_read(tmp_path: Path) -> None:
    s = load(written(tmp_path, EVERYTHING), {})
    assert (s.gateway.name, s.gateway.partitions, s.gateway.apps) == ("plant", 4, ("shop.app:SHOP",))
    assert s.gateway.data == str(tmp_path / "state")
    assert s.mqtt.password_file == str(tmp_path / "secrets/mqtt")
    assert s.secret_file == Path("/run/secrets/hs256")
    assert s.mqtt.session_expiry == 2 * 86_400
    assert s.mqtt.map == (MapTable(source="tele/{device}/SENSOR", target="devices/{device}/telemetry"),)
    assert s.edge.proxies == ("10.0.0.0/8", "192.168.1.7")
    assert s.edge.processes == 4
    assert (s.edge.messages_per_second, s.edge.message_burst, s.edge.connections_per_user) == (10, 20, 0)
    assert s.apps == {"devices": AppTable(durability="replica", retention=86_400.0, keep=500)}
    assert s.topics[0] == TopicTable(
        pattern="devices/{device}/telemetry", mqtt="in", read=("user",), max_bytes=8 * 1024
    )
    assert s.topics[1].ephemeral
    assert s.place.at("topics[1]").endswith("gateway.toml:55: topics[1]")
    assert s.services["shop.orders"].url == "http://orders:8082"
    assert s.services["shop.orders"].database == "postgresql://shop:hidden@db.example/orders"
    assert s.place.at("services.shop.orders.url").endswith("gateway.toml:46: services.shop.orders.url")
    assert "hidden" not in repr(s)


def test_a_topic_table_has_the_fields_and_defaults_of_a_topic() -> None:
    def fields(type: type[msgspec.Struct]) -> dict[str, object]:
        return {f.name: f.default for f in msgspec.structs.fields(type) if f.name != "schema"}

    assert fields(TopicTable) == fields(Topic)


WRONG = [
    ("prot = 1", ["gateway.toml:1: prot is unknown; known: gateway, log, mqtt, edge, tokens, apps, services, topics"]),
    ("[edge]\n\nprot = 1", ["gateway.toml:3: edge.prot is unknown; did you mean port?"]),
    ("[edg]\nport = 1", ["gateway.toml:1: edg is unknown; did you mean edge?"]),
    (
        '["a b\\n"]',
        ["gateway.toml: 'a b\\n' is unknown; known: gateway, log, mqtt, edge, tokens, apps, services, topics"],
    ),
    ("[edge]\nport = true", ["gateway.toml:2: edge.port must be a whole number, got true or false"]),
    ('[edge]\nport = "80"', ["gateway.toml:2: edge.port must be a whole number, got a text"]),
    ("[edge]\nport = 65536", ["gateway.toml:2: edge.port is out of range; use 0 to 65535"]),
    ("[edge]\nprocesses = 0", ["gateway.toml:2: edge.processes is out of range; use 1 to 64, at most one a core"]),
    (
        "[edge]\nmessages_per_second = -1\nmessage_burst = 0\nconnections_per_user = 1000001",
        [
            "gateway.toml:2: edge.messages_per_second is out of range; use 0 to 1000000",
            "gateway.toml:3: edge.message_burst is out of range; use 1 to 1000000",
            "gateway.toml:4: edge.connections_per_user is out of range; use 0 to 1000000",
        ],
    ),
    ("[edge]\nprocesses = 65", ["gateway.toml:2: edge.processes is out of range; use 1 to 64, at most one a core"]),
    ("edge = 1", ["gateway.toml:1: edge is no table; write [edge]"]),
    ("apps = []", ["gateway.toml:1: apps is no table of tables; write [apps.NAME]"]),
    ("[apps]\ndevices = 1", ["gateway.toml:2: apps.devices is no table; write [apps.devices]"]),
    ("[topics]\na = 1", ["gateway.toml:1: topics is no list of tables; write [[topics]] above each"]),
    ("topics = [1]", ["gateway.toml:1: topics[0] is no table; write [[topics]]"]),
    ('[[topics]]\napp = "x"', ["gateway.toml:1: topics[0].pattern is missing; set it"]),
    (
        '[[topics]]\npattern = "a"\n[[topics]]\npattern = "b"\nkind = "event"\nreed = []',
        [
            "gateway.toml:6: topics[1].reed is unknown; did you mean read?",
            "gateway.toml:5: topics[1].kind is not one of command, fact",
        ],
    ),
    (
        '[[topics]]\npattern = "a"\nmqtt = "both"\nread = "user"\nschema = "x"\nmax_bytes = "64KB"',
        [
            "gateway.toml:5: topics[0].schema is unknown; known: ",
            "gateway.toml:4: topics[0].read must be a list, got a text",
            "gateway.toml:3: topics[0].mqtt is not one of in, out",
            "gateway.toml:6: topics[0].max_bytes is no size; write whole bytes",
        ],
    ),
    ('[apps.a]\ndurability = "safe"', ["gateway.toml:2: apps.a.durability is not one of fast, disk, replica"]),
    ("[apps.a]\nretention = 5", ["gateway.toml:2: apps.a.retention is no duration; write a whole number and its unit"]),
    (
        '[apps.a]\nretention = "0s"\nkeep = -1',
        ["gateway.toml:2: apps.a.retention keeps nothing", "gateway.toml:3: apps.a.keep"],
    ),
    ('[apps."A b"]', ["apps.A b is no application name"]),
    ('[services."shop"]', ['services.shop is no service; write [services."APP.SERVICE"]']),
    ('[services."a.B"]', ["services.a.B is no service"]),
    ("[services.shop.orders]", ["services.shop.orders is unknown; known: url, database"]),
    *(
        (f'[services."a.b"]\nurl = "{url}"', ["gateway.toml:2: services.a.b.url is not where a service answers"])
        for url in ("h:1", "ftp://h", "http://", "http://u:p@h", "http://h/x", "http://h?q", "http://h#f", "http://h:x")
    ),
    *(
        (f'[services."a.b"]\ndatabase = "{url}"', ["gateway.toml:2: services.a.b.database is not a URL for this"])
        for url in (
            "file.db",
            "mysql://h/x",
            "sqlite://",
            "sqlite:///",
            "sqlite://h/x",
            "postgresql://",
            "postgresql:x",
        )
    ),
    (
        "[[mqtt.map]]\nfrm = 1",
        ["gateway.toml:2: mqtt.map[0].frm is unknown; did you mean from?", "mqtt.map[0].from is", "to is m"],
    ),
    (
        '[gateway]\nname = "A"\npartitions = 0\napps = ["x"]',
        ["gateway.name is no name", "gateway.toml:3: gateway.part", "module:a"],
    ),
    ("[gateway]\npartitions = 65", ["gateway.toml:2: gateway.partitions is out of range; use 1 to 64"]),
    ('[log]\nurl = "http://u:hidden@h"', ["gateway.toml:2: log.url is not a URL for this; write redis://"]),
    ('[log]\nurl = "redis://"', ["log.url is not a URL"]),
    ('[log]\nurl = "redis://h:x"', ["log.url is not a URL"]),
    ('[log]\nurl = "unix://"', ["log.url is not a URL"]),
    ('[mqtt]\nurl = "mqtt://h:0"', ["mqtt.url is not a URL"]),
    ('[mqtt]\nurl = "mqtt://u:hidden@h"', ["mqtt.url has credentials in it; use mqtt.username and mqtt.password_file"]),
    ('[mqtt]\npassword_file = "x"', ["mqtt.password_file has no user"]),
    ("[mqtt]\nreceive_maximum = 0", ["mqtt.receive_maximum is out of range"]),
    ('[mqtt]\nsession_expiry = "60000d"', ["mqtt.session_expiry is out of range"]),
    ('[edge]\nallowed_origins = ["https://example.org/"]', ["edge.allowed_origins has 'https://example.org/'; write"]),
    ('[edge]\nproxies = ["gate"]', ["edge.proxies has 'gate'; write an address"]),
    ("[edge]\nbehind_proxy = true", ["edge.behind_proxy believes nobody; name the proxies"]),
    ('[edge]\ntls_cert = "no.pem"', ["edge.tls_cert needs edge.tls_key beside it", "edge.tls_cert names "]),
    ('[edge]\ntls_key = "no.pem"', ["edge.tls_key needs edge.tls_cert beside it", "edge.tls_key names "]),
    *(
        (f'[edge]\nhost = "{host}"', ["gateway.toml:2: edge.host opens "])
        for host in ("0.0.0.0", "::", "[::]", "", "0", "192.168.1.7", "example.org", "::ffff:0.0.0.0")  # noqa: S104  refused here, never bound
    ),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_a_wrong_file_says_what_and_where(text: str, says: list[str], tmp_path: Path) -> None:
    found = problems(tmp_path, text)
    assert len(found) == len(says), found
    for line, part in zip(found, says, strict=True):
        assert part in line
        assert "hidden" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = x", "is not TOML: Invalid value (at line 1, column 5)"),
        ("[edge]\nport = 1\nport = 2", "is not TOML: Cannot overwrite a value (at"),
        ("a = " + "[" * 5_000, "is nested too deep"),
        ("#" * (limits.SETTINGS_BYTES + 1), f"is larger than {limits.SETTINGS_BYTES} bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert says in problems(tmp_path, text)[0]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        load(str(tmp_path / "none.toml"), {})
    with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
        load(str(tmp_path), {})
    (tmp_path / "x").write_bytes(b"a = '\xff'")
    with pytest.raises(Misconfigured, match="not UTF-8 at byte 5"):
        load(str(tmp_path / "x"), {})


def test_variables_override_the_file(tmp_path: Path) -> None:
    env = {
        "GATEWAY_LOG_URL": "unix:///run/log.sock",
        "GATEWAY_EDGE_PORT": "0",
        "GATEWAY_EDGE_ANONYMOUS": "false",
        "GATEWAY_EDGE_PROXIES": "10.1.0.0/16, 10.2.0.0/16",
        "GATEWAY_MQTT_SESSION_EXPIRY": "1h",
        "GATEWAY_MQTT_PASSWORD_FILE": "here",
        "GATEWAY_TOKENS_AUDIENCE": "",
        "PATH": "/bin",
    }
    s = load(written(tmp_path, EVERYTHING), env)
    assert (s.log.url, s.edge.port, s.edge.anonymous) == ("unix:///run/log.sock", 0, False)
    assert s.edge.proxies == ("10.1.0.0/16", "10.2.0.0/16")
    assert s.mqtt.session_expiry == 3_600
    assert s.mqtt.password_file == "here"
    assert s.tokens.audience == "gateway"  # an empty variable is as none


def test_a_wrong_variable_is_named_and_its_value_is_not(tmp_path: Path) -> None:
    env = {
        "GATEWAY_EDGE_PROT": "hidden",
        "GATEWAY_EDGE_PORT": "hidden",
        "GATEWAY_LOG_URL": "redis://:hidden@h:x",
        "GATEWAY_EDGE_ANONYMOUS": "hidden",
        "GATEWAY_MQTT_SESSION_EXPIRY": "hidden",
    }
    found = problems(tmp_path, "[edge]\nport = 1", env)
    assert found == [
        "GATEWAY_EDGE_PROT: the variable is unknown; did you mean GATEWAY_EDGE_PORT?",
        "GATEWAY_MQTT_SESSION_EXPIRY: mqtt.session_expiry is no duration; write a whole number and its unit, such as "
        '"200ms", "30s", "1m", "24h", "7d"',
        "GATEWAY_EDGE_PORT: edge.port must be a whole number, got a text",
        "GATEWAY_EDGE_ANONYMOUS: edge.anonymous must be true or false, got a text",
    ]
    assert problems(tmp_path, "", {"GATEWAY_LOG_URL": "redis://:hidden@h:x"}) == [
        "GATEWAY_LOG_URL: log.url is not a URL for this; write redis://… or rediss://… or unix://…"
    ]


def test_service_links_of_kubernetes_are_none_of_our_business() -> None:
    env = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT_HTTP": "80",
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_EDGE_PORT": "tcp://10.0.0.2:80",
        "GATEWAY_EDGE_PORT_80_TCP_ADDR": "10.0.0.2",
    }
    assert load(None, env) == Settings()


def test_every_variable_names_a_key() -> None:
    for variable, (table, key) in ENVIRONMENT.items():
        assert hasattr(getattr(Settings(), table), key)
        assert variable in ("_".join(["GATEWAY", table, key]).upper(), f"GATEWAY_{key}".upper())


def test_tls_and_a_named_proxy_each_allow_an_open_bind(tmp_path: Path) -> None:
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("-")
    tls = load(written(tmp_path, '[edge]\nhost = "::"\ntls_cert = "c.pem"\ntls_key = "k.pem"'), {})
    assert tls.edge.tls_cert == str(tmp_path / "c.pem")
    load(None, {"GATEWAY_EDGE_HOST": "::", "GATEWAY_EDGE_BEHIND_PROXY": "1", "GATEWAY_EDGE_PROXIES": "10.0.0.0/8"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_is_open_to_nobody_else(host: str) -> None:
    assert loopback(host)


def test_a_password_in_a_url_is_not_shown() -> None:
    for value in (LogTable(url="redis://me:hidden@h"), Settings(log=LogTable(url="redis://:hidden@h"))):
        assert "hidden" not in repr(value)
        assert "redis://***@h" in repr(value)
    assert redacted("see mqtt://u:p@h/x and redis://h/@") == "see mqtt://***@h/x and redis://h/@"


def test_too_many_maps_are_refused(tmp_path: Path) -> None:
    rows = "".join(f'[[mqtt.map]]\nfrom = "a/{n}"\nto = "b"\n' for n in range(limits.MQTT_MAPS + 1))
    assert problems(tmp_path, rows) == [
        f"gateway.toml: mqtt.map has {limits.MQTT_MAPS + 1} rows; use at most {limits.MQTT_MAPS}, wildcards cover many "
        "topics"
    ]


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        MqttTable().url = "x"  # type: ignore[misc]  # what mypy forbids must fail when run, too


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("30s", 30), ("1m", 60), ("24h", 86_400), ("7d", 604_800), ("0s", 0)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1 h", "1.5h", "-1s", "+1s", "1h30m", "1H", "1sec", "1w", "٣s", "1s\n", 5, True]
)
def test_any_other_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        duration(text)


@pytest.mark.parametrize(("text", "bytes"), [(5, 5), ("5B", 5), ("64KiB", 65_536), ("1MiB", 2**20), ("2GiB", 2**31)])
def test_a_size_is_bytes_or_has_a_unit(text: object, bytes: int) -> None:
    assert size(text) == bytes


@pytest.mark.parametrize("text", ["", "64", "64KB", "64kib", "1.5MiB", "-1B", True, 1.5, None])
def test_any_other_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        size(text)

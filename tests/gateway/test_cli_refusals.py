"""What every command says to what it cannot do: exit code 2 where it was not understood, else 1, and what to do."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.cli.program import COMMANDS, GROUPS, main

CONFIG = """
[gateway]
apps = ["shop_of_refusals:app"]

[[topics]]
pattern = "try/#"
payload = "bytes"
write = ["anyone"]
read = ["anyone"]
"""
SHOP = """
from gateway import App, Context, Service, Topic

stock = Service("stock")

@stock.on("shop/{order}/placed")
async def take(order: dict[str, int], context: Context) -> None: ...

app = App("shop", [Topic(pattern="shop/{order}/placed")], services=[stock])
"""
NO_LOG = "error: no log server is named and none runs here; set log.url, or run `gateway up`"
NO_EDGE = "error: {} is no edge; write http://HOST:PORT"
NOBODY = "{} is nobody; write anonymous or user:NAME, viewer:NAME, device:NAME, service:NAME, operator:NAME"
NO_DURATION = '{} is no duration; write a whole number and its unit, such as "200ms", "30s", "1m", "24h", "7d"'
NO_FOLDER = "error: nowhere is no folder for us: No such file or directory; make it, or name another"
DEEP = "error: filter 'a/#/b' has # before its last level; # may only end a filter (MQTT 5, 4.7.1.2)"
AWAY = "error: no edge answers at http://127.0.0.1:1 ("
UNASKED = "error: nothing says which letters; name some, or set --group, --reason, --topic or --all"
NO_LETTER = "error: 'nowhere' is no dead letter; write PARTITION/ID, as the list of letters shows it"
NOT_PRINTABLE = "error: the {} of the request is not printable ASCII; use other characters"

#: words: what it says to do; exit code 1 with ``error:``, else 2. Settings that cannot be read: below.
REFUSED = {
    "nonsense": "No such command 'nonsense'.",
    "up --nonsense": "No such option: --nonsense",
    "edge --service shop.nope=http://x": (
        "error: there is no service 'shop.nope'; write --service APP.SERVICE=http://HOST:PORT"
    ),
    "edge --service shop.stock=ftp://x": (
        "error: services.shop.stock.url is not where a service answers; write http://HOST:PORT, without a path"
    ),
    "edge --health x": "'x' is not HOST:PORT",
    "bridge": "error: no broker is named; set mqtt.url, or run everything with `gateway up`",
    "bridge --health a:b": "'a:b' is not HOST:PORT",
    "work": "Missing argument 'APP.SERVICE'.",
    "work nope.nothing": "error: there is no service 'nope.nothing'; known: shop.stock",
    "work shop.stok": "error: there is no service 'shop.stok'; did you mean shop.stock?",
    "work shop.stock --as A": "error: --as 'A' is no name; use a-z, 0-9, - and _, at most 32, a letter first",
    "work shop.stock --from 2h": (
        "Invalid value for --from: it is for --as; `gateway groups replay` moves the service itself"
    ),
    "work shop.stock --health x": "'x' is not HOST:PORT",
    "migrate shop.nope": "error: there is no service 'shop.nope'; did you mean shop.stock?",
    "migrate shop.stock": (
        "error: service 'shop.stock' has no database; Service(…, database=Database(…)), of gateway.sql"
    ),
    "pub try/x": "give either PAYLOAD or --file",
    "pub try/x a --file b": "give either PAYLOAD or --file",
    "pub try/x --file nowhere": "No such file or directory: 'nowhere'",
    "pub try/x a --url ftp://x": NO_EDGE.format("'ftp://x'"),
    "pub try/x a --url nowhere": NO_EDGE.format("'nowhere'"),
    "pub try/x a --url http://[::1": NO_EDGE.format("'http://[::1'"),
    "pub try/x a --url http://x:99999": NO_EDGE.format("'http://x:99999'"),
    "pub try/x a --token-file nowhere": "error: nowhere cannot be read; name a file with a token in it",
    "pub try/x a --token-file binary.token": "error: binary.token cannot be read; name a file with a token in it",
    "pub try/x a --token-file odd.token": NOT_PRINTABLE.format("authorization"),
    "pub try/x a --token-file lines.token": NOT_PRINTABLE.format("authorization"),
    "pub try/x a --url http://192.168.1.300:8080": NO_EDGE.format("'http://192.168.1.300:8080'"),
    "pub try/x a --key é": NOT_PRINTABLE.format("idempotency-key"),
    "pub try/x a --id a\x1b": NOT_PRINTABLE.format("event-id"),
    "pub try/x a --url http://127.0.0.1:1": AWAY,
    "sub": "Missing argument 'FILTER...'.",
    "sub try/x -n 0": "'-n': Input should be greater than or equal to 1",
    "sub try/x -n -1": "'-n': Input should be greater than or equal to 1",
    "sub try/x --url ws://x": NO_EDGE.format("'ws://x'"),
    "sub try/x --url http://x:99999": NO_EDGE.format("'http://x:99999'"),
    "sub try/x --url http://a..b": NO_EDGE.format("'http://a..b'"),
    "sub try/x --token-file nowhere": "error: nowhere cannot be read; name a file with a token in it",
    "sub try/x --url http://127.0.0.1:1": AWAY,
    "tail --from yesterday": "'yesterday' is neither earliest, latest nor a duration such as 15m",
    "tail --from -1m": "'-1m' is neither earliest, latest nor a duration such as 15m",
    "tail -n 0": "'-n': Input should be greater than or equal to 1",
    "tail nope/x": "error: topic 'nope/x' is not declared; see `gateway topics`, or declare it",
    "tail a/#/b": DEEP,
    "tail": NO_LOG,
    "topics extra": "Got unexpected extra argument(s) (extra)",
    "token --for long": NO_DURATION.format("'long'"),
    "token --for -1h": NO_DURATION.format("'-1h'"),
    "token --for 0s": "error: a token cannot last 0 seconds; use 1 to 31622400",
    "token --channel a/#/b": DEEP,
    "token --role king": "'king' is not one of 'user', 'viewer', 'operator'.",
    "token --sub a/b": "error: the name 'a/b' has / or + or #, which no topic level can hold; choose another name",
    "token --api-key A": "error: 'A' is no service's name; use a-z, 0-9, -, _ and ., at most 64, a letter first",
    "token --api-key a --drop-api-key b": "--api-key, --drop-api-key: one at a time",
    "revoke": "give one of --sub, --jti, --key and --list",
    "revoke --sub user:a --jti b": "give one of --sub, --jti, --key and --list",
    "revoke --sub user:a --for soon": NO_DURATION.format("'soon'"),
    "revoke --sub user:a": NO_LOG,
    "explain nope": "error: topic 'nope' is not declared; see `gateway topics`, or declare it",
    "explain a/#/b": DEEP,
    "explain try/x --as alice": NOBODY.format("'alice'"),
    "explain try/x --as king:me": NOBODY.format("'king:me'"),
    "explain try/x --token-file nowhere": "nowhere cannot be read",
    "explain try/x --token-file forged.token": (
        "error: the token is not three parts of base64url; get a new one, for development by `gateway token`"
    ),
    "check extra": "Got unexpected extra argument(s) (extra)",
    "reload": "error: no `gateway up` runs here; send SIGHUP to the processes, see docs/operating.md",
    "doctor": NO_LOG,
    "log-credentials": "Missing argument 'folder'.",
    "log-credentials bad.toml": (
        "error: bad.toml is no folder for accounts: [Errno 17] File exists: 'bad.toml'; name another"
    ),
    "groups": NO_LOG,
    "groups pause shop.nope": NO_LOG,
    "groups resume shop.nope": NO_LOG,
    "groups --json pause shop.stock": "Invalid value for --json: write it behind pause",
    "groups replay shop.stock": "Missing option '--from'.",
    "groups forget shop.stock": (
        "error: 'shop.stock' is a service; it would begin anew; remove it from its application first"
    ),
    "dead ls --limit 0": "'--limit': Input should be greater than or equal to 1",
    "dead show nowhere": NO_LETTER,
    "dead replay": UNASKED,
    "dead replay --all --rate -1": "'--rate': Input should be greater than or equal to 0",
    "dead drop": UNASKED,
    "dead edit shop.0/1": "Missing option '--data'.",
    "device-credentials add": "Missing argument 'DEVICE...'.",
    "device-credentials add A --folder .": (
        "error: 'A' is no device's name; use a-z, 0-9, dot, - and _, at most "
        "63, a letter or digit first; gateway is the bridge"
    ),
    "device-credentials add x --folder nowhere": NO_FOLDER,
    "device-credentials add x --pid -1": "'--pid': Input should be greater than or equal to 0",
    "device-credentials rotate x --folder .": "error: x has no account in .; use add; nothing was changed",
    "device-credentials revoke x --folder .": "error: x has no account in .; nothing was changed",
    "device-credentials bridge": "Missing argument 'password'.",
    "device-credentials ls --folder nowhere": NO_FOLDER,
    "device-credentials acl --folder nowhere": NO_FOLDER,
    "device-credentials ls extra": "Got unexpected extra argument(s) (extra)",
    "device-credentials acl extra": "Got unexpected extra argument(s) (extra)",
    "metrics nonsense": "No such command 'nonsense'.",
    "metrics dashboard extra": "Got unexpected extra argument(s) (extra)",
    "metrics alerts extra": "Got unexpected extra argument(s) (extra)",
    "conns --limit 0": "'--limit': Input should be greater than or equal to 1",
    "conns --url nowhere": NO_EDGE.format("'nowhere'"),
    "conns --url http://192.168.1.300:8080": NO_EDGE.format("'http://192.168.1.300:8080'"),
    "conns --url http://a..b": NO_EDGE.format("'http://a..b'"),
    "conns --url http://127.0.0.1:1": AWAY,
    "conns --token-file odd.token": NOT_PRINTABLE.format("authorization"),
    "conns --token-file lines.token": NOT_PRINTABLE.format("authorization"),
    "conns --url http://x kick --user alice": "Invalid value for --url: write it behind kick",
    "conns kick": "give either CLIENT or --user",
    "conns kick --user anonymous": "anonymous is whoever has no token: name the CLIENT",
    "conns kick 7 --token-file lines.token": NOT_PRINTABLE.format("authorization"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {"gateway.toml": CONFIG, "shop_of_refusals.py": SHOP, "bad.toml": "[edge]\nport = \n"}
    files |= {
        "odd.toml": "[edge]\nprot = 1\n",
        "forged.token": "forged\n",
        "odd.token": "ééé",
        "lines.token": "secret\nsecret\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.token").write_bytes(b"\xff\xfe")


def refused(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    """Run a command in this process: its exit code, and its last words on standard error, without their frame."""
    monkeypatch.setattr(sys, "argv", ["gateway", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = [re.sub(r"^[│╭ ]+|[│╮ ]+$", "", line) for line in capsys.readouterr().err.splitlines()]
    return ended.value.code, [line for line in said if line and not line.startswith("╰")][-1]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_said_in_one_sentence(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refused(words.split(" "), monkeypatch, capsys)
    assert "secret" not in said
    error = REFUSED[words].startswith("error: ")
    assert code == (1 if error else 2), said
    assert said.startswith(REFUSED[words]) if error else REFUSED[words] in said, said


#: A command with all that it must be given, of each that reads the settings.
READING = [
    *("up", "edge", "bridge", "work shop.stock", "migrate shop.stock", "pub try/x a", "sub try/x", "tail", "topics"),
    *("token", "revoke --list", "explain try/x", "check", "reload", "doctor", "groups", "groups pause shop.stock"),
    *("dead ls", "dead replay --all", "log-credentials to", "device-credentials acl", "conns"),
]
UNREADABLE = {
    "nowhere.toml": "error: nowhere.toml cannot be read: No such file or directory; name another file",
    "bad.toml": "error: bad.toml is not TOML: Invalid value (at line 2, column 8); nothing was applied",
    "odd.toml": "error: odd.toml:2: edge.prot is unknown; did you mean port?; nothing was applied",
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("file", UNREADABLE)
@pytest.mark.parametrize("command", READING)
def test_settings_that_cannot_be_read_are_named_by_every_command(
    command: str, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused([*command.split(), "--config", file], monkeypatch, capsys) == (1, UNREADABLE[file])


def test_no_command_is_missing_here() -> None:
    assert {words.split()[0] for words in REFUSED} >= {*COMMANDS, *GROUPS}
    inner = {
        (name, info.name or getattr(info.callback, "__name__", ""))
        for name, group in GROUPS.items()
        for info in group.registered_commands
    }
    assert inner - {(words.split()[0], word) for words in REFUSED for word in words.split()[1:]} == set()
    assert {command.split()[0] for command in READING} == {*COMMANDS, *GROUPS} - {"metrics"}

"""The commands about rights, as an operator types them: API keys, revocations, and what a token may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.adapters import embedded
from tests.gateway.test_cli import CONFIG, Place, edge, stored
from tests.servers import eventually


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder whose gateway.toml names a running log server, and whose edge runs as `gateway edge`."""
    folder = tmp_path_factory.mktemp("rights")
    port = embedded.free_port()
    with embedded.valkey(folder / "log") as log:
        place = Place(folder, f"http://127.0.0.1:{port}")
        place.write(CONFIG.format(port=port, log=log.url).replace('write = ["user"]', 'write = ["user", "service"]'))
        with edge(folder, port):
            yield place


def publishes(here: Place, **headers: str) -> int:
    return httpx.post(f"{here.url}/topics/rooms/1/messages", json=1, headers=headers, timeout=20).status_code


async def test_an_api_key_is_shown_once_and_taken_by_a_running_edge(here: Place) -> None:
    key = here.ok("token", "--api-key", "orders").strip()
    assert re.fullmatch(r"gwk_[\w-]{43}", key)
    file = here.folder / ".gateway" / "api.keys"
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    await eventually(lambda: publishes(here, **{"x-api-key": key}) == 201, within=20)
    again = stored(here.ok("token", "--api-key", "orders", "--json"))
    assert again["principal"] == "service:orders"
    assert here.ok("token", "--drop-api-key", "orders") == "2 dropped\n"
    await eventually(lambda: publishes(here, **{"x-api-key": key}) == 401, within=20)
    assert "no service's name" in here.fails("token", "--api-key", "Not A Name")
    assert "one at a time" in here.fails("token", "--api-key", "a", "--drop-api-key", "a", code=2)


async def test_revoke_takes_a_token_back_on_a_running_edge(here: Place) -> None:
    made = stored(here.ok("token", "--sub", "eve", "--json"))
    bearer = {"authorization": f"Bearer {made['token']}"}
    assert publishes(here, **bearer) == 201
    assert here.ok("revoke", "--list") == "nothing is revoked\n"
    done = here.run("revoke", "--jti", str(made["jti"]), "--for", "1h")
    assert done.returncode == 0, done.stderr
    assert f"jti {made['jti']}" in done.stdout
    # Who did it is in the audit log, what was taken back too; the token is in neither.
    assert re.search(r"from=gateway.audit says=\"\w+, cli: revoked jti ", done.stderr), done.stderr
    assert str(made["token"]) not in done.stdout + done.stderr
    await eventually(lambda: publishes(here, **bearer) == 401, within=20)
    (listed,) = here.ok("revoke", "--list", "--json").splitlines()
    found = stored(listed)
    assert (found["what"], found["name"]) == ("jti", made["jti"])
    assert "is nobody" in here.fails("revoke", "--sub", "eve")
    for words in ((), ("--sub", "user:a", "--jti", "b"), ("--list", "--key", "k")):
        assert "give one of" in here.fails("revoke", *words, code=2)
    assert "is no duration" in here.fails("revoke", "--jti", "x", "--for", "long", code=2)
    assert "no time to revoke for" in here.fails("revoke", "--jti", "x", "--for", "1000d")


def test_explain_says_what_a_token_may_do_and_never_takes_it_as_an_argument(here: Place, tmp_path: Path) -> None:
    token = here.ok("token", "--sub", "alice", "--role", "operator").strip()
    said = here.ok("explain", "rooms/a/messages", "--token-file", "-", stdin=token.encode())
    assert said.startswith("operator:alice, says the key development; it ends ")
    assert "operator:alice may not publish rooms/a/messages" in said
    file = tmp_path / "t"
    file.write_text(token + "\n")
    assert "operator:alice may not publish" in here.ok("explain", "rooms/a/messages", "--token-file", str(file))
    assert "cannot be read" in here.fails("explain", "rooms/a/messages", "--token-file", "nowhere", code=2)
    file.write_text("forged")
    assert here.fails("explain", "rooms/a/messages", "--token-file", str(file)).startswith("error: the token is not")


def test_what_denies_is_shown_where_grants_are(tmp_path: Path) -> None:
    alone = Place(tmp_path)
    alone.write(
        '[[topics]]\npattern = "rooms/#"\nread = ["user"]\ndeny_read = ["user:bob"]\n'
        '[[topics]]\npattern = "rooms/{room}/votes"\nread = ["user"]\nwrite = ["user"]\n'
    )
    said = alone.ok("explain", "rooms/1/votes", "--as", "user:bob")
    assert "user:bob may publish rooms/1/votes" in said
    assert "user:bob may not subscribe to rooms/1/votes: 'rooms/#' denies read to user:bob\n" in said
    assert "user; not user:bob" in alone.ok("topics")
    assert stored(alone.ok("topics", "--json").splitlines()[0])["deny_read"] == ["user:bob"]
    alone.write('[[topics]]\npattern = "rooms/#"\ndeny_read = ["bob"]\n')
    assert "rooms/#', deny_read: 'bob' is not a grant" in alone.fails("check")
    alone.write("")
    assert "no `gateway up` runs here" in alone.fails("reload")

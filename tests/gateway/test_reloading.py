"""SIGHUP: what is declared is taken in whole or refused whole, by real processes, and each says what came of it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway import limits
from gateway.adapters import embedded
from gateway.cli.configuration import Configuration, gather
from gateway.cli.reloading import Reload, fixed
from gateway.errors import Misconfigured, ServerMissing, Unavailable
from tests.contracts import log_running
from tests.deploy.compose import ROOT
from tests.gateway.test_cli import CONFIG, ENV, PROGRAM, Place, edge
from tests.gateway.test_cli_services import SHOP, working
from tests.gateways import client
from tests.servers import eventually, missing

VOTES = '[[topics]]\npattern = "rooms/{room}/votes"\nwrite = ["user"]\nread = ["anyone"]\n'


# --- what may change --------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Place:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("app = App(")
    place = Place(tmp_path)
    place.write(SHOPPING)
    return place


SHOPPING = '[gateway]\napps = ["shop:app"]\n' + VOTES


def read(place: Place) -> Reload:
    return Reload(gather(place.folder / "gateway.toml"), place.folder / "gateway.toml")


@pytest.mark.parametrize(
    "text",
    [
        SHOPPING,
        SHOPPING + VOTES.replace("votes", "polls"),
        '[gateway]\napps = ["shop:app"]\n[[topics]]\npattern = "rooms/#"\ndeny_read = ["user:bob"]\n',
        f'{SHOPPING}mqtt = "in"\n[[mqtt.map]]\nfrom = "old/{{room}}"\nto = "rooms/{{room}}/votes"\n',
        '[gateway]\napps = ["shop:app"]\n',  # the application of rooms/ goes: its log stays as it is
        SHOPPING + '[[topics]]\npattern = "new/#"\n[apps.new]\ndurability = "fast"\n',
    ],
)
def test_topics_rights_and_maps_may_change(shop: Place, text: str) -> None:
    reload = read(shop)
    shop.write(text)
    reload.take(reload.read())
    assert (reload.loads, reload.why) == (1, "")
    assert reload.standing("standby") == "standby"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            SHOPPING.replace("[gateway]", "[gateway]\npartitions = 3"),
            r"gateway\.partitions changed, and is read at the",
        ),
        (SHOPPING + '[log]\nurl = "redis://other"\n', r"gateway.toml:8: log\.url changed"),
        (SHOPPING + "[edge]\nanonymous = true\n", r"edge\.anonymous changed"),
        (SHOPPING + "[mqtt]\nreceive_maximum = 3\n", r"mqtt\.receive_maximum changed"),
        (SHOPPING + '[tokens]\naudience = "us"\n', r"tokens\.audience changed"),
        (SHOPPING + '[services."shop.stock"]\nurl = "http://127.0.0.1:1"\n', "services changed"),
        (SHOPPING + '[apps.rooms]\ndurability = "fast"\n', r"apps\.rooms promises something else"),
        (
            SHOPPING + '[[topics]]\npattern = "shop/orders/now/placed"\napp = "rooms"\n',
            "puts what the service 'shop.stock' takes elsewhere",
        ),
        (SHOPPING.replace("votes", "{room}"), "names a variable twice"),
        ("[[topics", "gateway.toml"),
        (SHOPPING.replace('"]', '", "broken:app"]', 1), r"gateway\.apps: broken:app cannot be imported: .*closed"),
    ],
)
def test_what_only_a_new_start_can_change_is_refused_with_its_reason(shop: Place, text: str, says: str) -> None:
    reload = read(shop)
    shop.write(text)
    with pytest.raises(Misconfigured, match=says) as refused:
        reload.read()
    reload.refuse(refused.value)
    assert (reload.loads, reload.refusals) == (0, 1)
    assert reload.standing().startswith("ok\nconfiguration: refused, the old one is in force: ")
    shop.write(SHOPPING)
    reload.take(reload.read())
    assert reload.standing() == "ok"


def test_a_log_keeps_its_promise_while_nothing_is_declared_for_it(shop: Place) -> None:
    reload = read(shop)
    shop.write('[gateway]\napps = ["shop:app"]\n')
    reload.take(reload.read())
    shop.write(SHOPPING + "[apps.rooms]\nkeep = 7\n")
    with pytest.raises(Misconfigured, match=r"apps\.rooms promises something else"):
        reload.read()


async def test_a_log_keeps_its_promise_where_the_rest_was_refused(shop: Place, log_server: str) -> None:
    async def refuse(new: Configuration) -> str:
        raise Unavailable("the broker takes it not")

    shop.write('[gateway]\napps = ["shop:app"]\n')
    reload = read(shop)
    async with log_running.running(log_server, partitions=limits.PARTITIONS) as log, reload.watching(log, refuse):
        shop.write(SHOPPING)
        reload.asked.set()
        await eventually(lambda: reload.refusals == 1)
        assert log.durability("rooms") == "disk"
        shop.write(SHOPPING + '[apps.rooms]\ndurability = "fast"\n')
        with pytest.raises(Misconfigured, match=r"apps\.rooms promises something else"):
            reload.read()


def test_nothing_changed_is_nothing_to_say(shop: Place) -> None:
    reload = read(shop)
    assert list(fixed(reload.found, gather(shop.folder / "gateway.toml"))) == []


# --- processes --------------------------------------------------------------------------------------------------------


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = re.search(rf"(?m)^gateway_configuration_{name}(?:_total)?(?:{{.*}})? (\S+)$", text)
    assert found
    return float(found[1])


async def test_a_running_edge_takes_in_a_good_file_and_keeps_the_old_one_for_a_bad_one(tmp_path: Path) -> None:
    port = embedded.free_port()
    with embedded.valkey(tmp_path / "log") as log:
        here = Place(tmp_path, f"http://127.0.0.1:{port}")
        good = CONFIG.format(port=port, log=log.url)
        here.write(good)
        with edge(tmp_path, port) as running:

            def publishes(topic: str) -> int:
                headers = {"authorization": f"Bearer {bob}"}
                return httpx.post(f"{here.url}/topics/{topic}", json=1, headers=headers, timeout=20).status_code

            bob = here.ok("token", "--sub", "bob").strip()
            async with client(f"ws://127.0.0.1:{port}/connection/websocket", bob) as one:
                await one.ask("subscribe", channel="rooms/1/messages")
                assert publishes("rooms/1/votes") == 404
                here.write(good + VOTES + '[[topics]]\npattern = "rooms/+/messages/+"\nread = 7\n')
                os.kill(running.pid, signal.SIGHUP)
                await eventually(lambda: metric(here.url, "refused") == 1, within=30)
                assert publishes("rooms/1/votes") == 404
                assert publishes("rooms/1/messages") == 201
                assert (await one.until(1))[0]["pub"]["data"] == 1
                new = '[[topics]]\npattern = "new/{x}"\nwrite = ["user"]\nread = ["anyone"]\n'
                denied = good.replace('key = "{room}"', 'key = "{room}"\ndeny_read = ["user:bob"]')
                here.write(denied + VOTES + new)
                os.kill(running.pid, signal.SIGHUP)
                assert (await one.until(2))[1]["unsubscribe"]["code"] == 2000
                assert (await one.ask("subscribe", channel="rooms/1/messages"))["error"]["code"] == 103
                assert [publishes(topic) for topic in ("rooms/1/votes", "new/1")] == [201, 201]
                await one.ask("subscribe", channel="new/1")
                assert publishes("new/1") == 201
                assert (await one.until(3))[2]["pub"]["data"] == 1
                await eventually(lambda: metric(here.url, "loads") == 1, within=30)
                assert (metric(here.url, "refused"), metric(here.url, "refusals")) == (0, 1)
            # A key is a promise of the log: its server refuses another one.
            here.write(good.replace('key = "{room}"', 'key = "x"'))
            os.kill(running.pid, signal.SIGHUP)
            await eventually(lambda: metric(here.url, "refused") == 1, within=30)
            said = running.log.read_text()
            assert re.search(r'from=gateway\.audit says="start: \S+ in force: 2 topics, 0 mapped from MQTT"', said)
            assert re.search(
                r'gateway\.audit says="SIGHUP: \S+ in force: 4 topics, .*; 1 subscriptions ended, 0 come', said
            )
            assert re.search(
                r"the configuration was refused, and the old one is in force: \S+gateway.toml:\d+: topics", said
            )
            assert "the log was written with key rooms/+/messages = {room}, and now" in said


async def test_a_running_worker_takes_it_in_too(tmp_path: Path) -> None:
    with embedded.valkey(tmp_path / "log") as log:
        (tmp_path / "shop.py").write_text(SHOP)
        here = Place(tmp_path)
        text = f'[gateway]\ndata = ".gateway"\napps = ["shop:app"]\npartitions = 2\n[log]\nurl = "{log.url}"\n'
        here.write(text)
        with working(here, "shop.plain") as worker:
            url = worker.url
            await eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, within=60)
            here.write(text + '[[topics]]\npattern = "shop/notes"\n')
            os.kill(worker.pid, signal.SIGHUP)
            await eventually(lambda: metric(url, "loads") == 1, within=30)
            here.write(text + "[edge]\nport = 1\n")
            os.kill(worker.pid, signal.SIGHUP)
            await eventually(lambda: "edge.port changed" in httpx.get(f"{url}/readyz").text, within=30)
            await eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)


OWN = """
[edge]
anonymous = true

[[topics]]
pattern = "greenhouse/{bed}/humidity"
write = ["device"]
read = ["anyone"]
mqtt = "in"
"""
OPENED = OWN.replace("humidity", "opened").partition("[[topics]]")[2]


@contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = ENV | {"GATEWAY_EDGE_PORT": str(embedded.free_port())}
    with (folder / "up.out").open("wb") as out:
        process = subprocess.Popen([*PROGRAM, "up"], env=env, cwd=folder, stdout=out, stderr=out)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait(60)


async def test_everything_on_one_machine_follows_one_command(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(OWN)
    data, here = tmp_path / ".gateway", Place(tmp_path)
    (data / "mqtt").mkdir(parents=True)
    (data / "mqtt" / "devices.json").write_text(json.dumps({"bed-1": "a password", "bed-2": "another"}))

    def said() -> str:
        return (tmp_path / "up.out").read_text(errors="replace")

    def running(what: str) -> str:
        found: str = json.loads((data / "up.json").read_bytes())[what]
        return found

    def kept(topic: str) -> str:
        return httpx.get(f"{running('edge')}/topics/{quote(topic, safe='')}/history", timeout=20).text

    def device(name: str, word: str) -> paho.Client:
        one = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        one.username_pw_set(name, word)
        one.connect("127.0.0.1", int(running("mqtt").rpartition(":")[2]))
        one.loop_start()
        return one

    with up(tmp_path) as process:
        await eventually(lambda: "Try next" in said() or process.poll() is not None, within=90)
        if "(mosquitto)" not in said():
            missing(ServerMissing("mosquitto", "apt install mosquitto"))  # rights of accounts need it
        bed, other = device("bed-1", "a password"), device("bed-2", "another")
        try:
            (tmp_path / "gateway.toml").write_text(OWN + "[[topics]]" + OPENED.replace('mqtt = "in"', 'mqtt = "up"'))
            assert "topics[1].mqtt" in here.fails("reload")
            denied = OWN.replace("read =", 'deny_write = ["device:bed-2"]\nread =')
            (tmp_path / "gateway.toml").write_text(denied + "[[topics]]" + OPENED)
            assert "to take in 2 topics" in here.ok("reload")
            await eventually(lambda: "what is declared was read again: 2 topics" in said(), within=30)

            def arrived() -> bool:
                bed.publish("greenhouse/1/opened", '"opened"', qos=1).wait_for_publish(20)
                return "opened" in kept("greenhouse/1/opened").partition("publications")[2]

            # Broker, bridge and edge each take it in by themselves: until all have, nothing comes.
            await eventually(arrived, within=60)
            other.publish("greenhouse/1/humidity", '"denied"', qos=1).wait_for_publish(20)
            bed.publish("greenhouse/1/humidity", '"allowed"', qos=1).wait_for_publish(20)
            await eventually(lambda: "allowed" in kept("greenhouse/1/humidity"), within=60)
            assert "denied" not in kept("greenhouse/1/humidity")
        finally:
            for one in (bed, other):
                one.disconnect()
                one.loop_stop()


def test_a_terminal_that_closes_ends_it_as_ever(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(OWN)
    env = ENV | {"GATEWAY_EDGE_PORT": str(embedded.free_port()), "PYTHONPATH": str(ROOT)}
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.chdir(tmp_path)
            os.execve(PROGRAM[0], [*PROGRAM, "up"], env)  # noqa: S606  A program of ours, as the terminal's own.
        finally:
            os._exit(127)  # or there would be two of this test
    said, give_up = b"", time.monotonic() + 100

    def until(word: bytes) -> None:
        nonlocal said
        while word not in said:
            assert time.monotonic() < give_up, said
            if select.select([terminal], [], [], 1.0)[0]:
                said += os.read(terminal, 4096)

    try:
        until(b"Try next")
        os.kill(child, signal.SIGHUP)
        until(b"was read again: 1 topics")
    finally:
        os.close(terminal)
    while os.waitpid(child, os.WNOHANG)[0] != child:
        if time.monotonic() > give_up:
            os.kill(child, signal.SIGKILL)
            pytest.fail("it goes on without its terminal")
        time.sleep(0.05)

"""Applications and gateway.toml as one: each contradiction with its place, and what the log and the bridge get."""

from pathlib import Path
from typing import Any

import pytest

from gateway import limits
from gateway.app import App, Issuer, Promise, declare, decoders, mapping, promises, trusting
from gateway.cli.configuration import gather
from gateway.core.declared import Topic
from gateway.errors import Misconfigured
from gateway.settings import Settings, load


def settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load(str(path), {})


def cbor(data: bytes) -> bytes:
    return data


ROOT = Path(__file__).parents[2]
PLANT = App("plant", [Topic(pattern="plant/{line}/speed", mqtt="in")])
DEVICES = """
[[topics]]
pattern = "devices/{device}/telemetry"
mqtt = "in"
[[topics]]
pattern = "devices/{device}/commands"
mqtt = "out"
"""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "Plant"}, "app 'Plant' has no good name"),
        ({"name": ""}, "app '' has no good name"),
        (
            {"topics": [Topic(pattern="shop/x")]},
            "app 'plant' declares topic 'shop/x', which belongs to 'shop'; begin it",
        ),
        ({"topics": [Topic(pattern="plant/x", app="shop")]}, "which belongs to 'shop'"),
        ({"decoders": {"cbor": cbor}}, "decodes 'cbor', which is no content type"),
        ({"decoders": {"Application/CBOR": cbor}}, "which is no content type"),
        ({"decoders": {"application/cbor; v=1": cbor}}, "which is no content type"),
        ({"decoders": {"application/json": cbor}}, "JSON is taken as it comes"),
        (
            {"issuers": [Issuer("k", "/shop/keys", "plant", "gateway")]},
            "app 'plant' publishes keys at '/shop/keys'; begin it with /plant/",
        ),
        ({"durability": "safe"}, "durability 'safe' is unknown; use fast, disk or replica"),
        ({"retention": 0}, "keeps nothing"),
        ({"keep": -1}, f"keep is -1; use 0 to {limits.KEEP_MOST}"),
    ],
)
def test_an_application_that_contradicts_itself_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        App(**{"name": "plant", **fields})
    assert says in str(caught.value)


def test_an_application_may_own_a_topic_elsewhere() -> None:
    assert App("plant", [Topic(pattern="old/{x}", app="plant")]).topics[0].owner == "plant"


def test_topics_of_python_and_toml_are_declared_together(tmp_path: Path) -> None:
    declared = declare(settings(tmp_path, "[gateway]\npartitions = 3\n" + DEVICES), [PLANT])
    assert declared.apps == ("devices", "plant")
    assert declared.find("devices/7/telemetry").topic.mqtt == "in"
    assert declared.find("plant/a/speed").topic.owner == "plant"
    assert len(declared.partitions("plant")) == 3
    assert declare(Settings()).topics == ()


@pytest.mark.parametrize(
    ("text", "apps", "says"),
    [
        (
            '[[topics]]\npattern = "a/x{b}"\n[[topics]]\npattern = "a/{b}"\nread = ["admin"]',
            [],
            [
                "gateway.toml:1: topics[0] is refused: topic 'a/x{b}' has a brace",
                "gateway.toml:3: topics[1] is refused: topic 'a/{b}', read: 'admin' is not a grant",
            ],
        ),
        (
            '[[topics]]\npattern = "a/{b}"\n[[topics]]\npattern = "a/+"',
            [],
            ["gateway.toml:3: topics[1]: 'a/+' is the pattern 'a/{b}' of "],
        ),
        (
            '[[topics]]\npattern = "plant/+/speed"',
            [PLANT],
            ["gateway.toml:1: topics[0]: 'plant/+/speed' is the pattern 'plant/{line}/speed' of app 'plant'"],
        ),
        ("", [PLANT, App("plant")], ["app 'plant' is there twice; keep one"]),
        ("[apps.plnt]\nkeep = 1", [PLANT], ["gateway.toml:1: apps.plnt is no application; did you mean plant?"]),
        (
            '[[topics]]\npattern = "plant/#"\nmqtt = "out"',
            [PLANT],
            ["topics 'plant/{line}/speed' (mqtt in) and 'plant/#' (mqtt out) overlap"],
        ),
        (
            '[[topics]]\npattern = "a/b"\nmqtt = "out"\nephemeral = true',
            [],
            ["gateway.toml:1: topics[0]: 'a/b' is ephemeral and has mqtt = \"out\", but what leaves is read"],
        ),
    ],
)
def test_what_cannot_be_declared_together_is_refused_with_its_place(
    text: str, apps: list[App], says: list[str], tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured) as caught:
        declare(settings(tmp_path, text), apps)
    lines = caught.value.detail.splitlines()
    assert len(lines) == len(says), lines
    for line, part in zip(lines, says, strict=True):
        assert part in line


def test_maps_lead_to_declared_topics(tmp_path: Path) -> None:
    read = settings(
        tmp_path, DEVICES + '[[mqtt.map]]\nfrom = "tele/{device}/SENSOR"\nto = "devices/{device}/telemetry"\n'
    )
    topics = mapping(read, declare(read))
    assert topics.resolve("tele/7/SENSOR") == "devices/7/telemetry"
    assert topics.filters() == ("tele/+/SENSOR",)
    assert mapping(Settings(), declare(Settings())).filters() == ()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [("tele/{d}", "devices/{e}/telemetry")],
            ["[0] is refused: map from 'tele/{d}' to 'devices/{e}/telemetry': {e}"],
        ),
        ([("tele/{d}", "devices/{d}/nothing")], ["[0] leads to 'devices/{d}/nothing'; declare that topic, with mqtt"]),
        (
            [("tele/{d}", "devices/{d}/commands")],
            ["[0] leads to 'devices/{d}/commands'; declare that topic, with mqtt"],
        ),
        ([("a/{d}/{t}", "devices/{d}/{t}")], ["[0] leads to 'devices/{d}/{t}'"]),
        (
            [("devices/{d}/+", "devices/{d}/telemetry")],
            ["[0] takes in what 'devices/{device}/commands' sends out, in a loop"],
        ),
        (
            [("t/{d}", "devices/{d}/telemetry"), ("t/{e}", "devices/{e}/telemetry")],
            ["[1] maps 't/{e}', the filter 't/{d}' of a row before"],
        ),
    ],
)
def test_a_map_that_leads_nowhere_or_in_a_loop_is_refused(
    rows: list[tuple[str, str]], says: list[str], tmp_path: Path
) -> None:
    text = DEVICES + "".join(f'[[mqtt.map]]\nfrom = "{a}"\nto = "{b}"\n' for a, b in rows)
    read = settings(tmp_path, text)
    with pytest.raises(Misconfigured) as caught:
        mapping(read, declare(read))
    lines = caught.value.detail.splitlines()
    assert len(lines) == len(says), lines
    for line, part in zip(lines, says, strict=True):
        assert f": mqtt.map{part}" in line
        assert "gateway.toml:" in line


def test_decoders_of_all_applications_are_one_table() -> None:
    plant = App("plant", decoders={"application/cbor": cbor})
    assert decoders([plant, App("shop")]) == {"application/cbor": cbor}
    with pytest.raises(Misconfigured, match=r"decoder of 'application/cbor' is there twice"):
        decoders([plant, App("shop", decoders={"application/cbor": cbor})])


def test_the_file_overrides_what_an_application_promises(tmp_path: Path) -> None:
    read = settings(
        tmp_path, DEVICES + '[apps.plant]\nretention = "1h"\n[apps.devices]\ndurability = "fast"\nkeep = 0\n'
    )
    plant = App("plant", durability="replica", retention=60.0, keep=5)
    assert promises(read, declare(read, [plant]), [plant]) == (
        Promise("devices", "fast", limits.RETENTION, 0),
        Promise("plant", "replica", 3_600.0, 5),
    )


def test_the_keys_of_an_application_are_taken_from_the_gateway_s_own_address(tmp_path: Path) -> None:
    apps = [App("plant", issuers=[Issuer("people", "/plant/people/keys", "plant", "gateway", roles=("operator",))])]
    for text in (
        "",
        '[gateway]\norigin = "http://edge:8080"\n[[tokens.keys]]\nid = "people"\nalgorithm = "HS256"\nfile = "k"',
    ):
        asked = settings(tmp_path, text)
        assert trusting(asked, apps) is asked, "nowhere to ask, or the operator's own word"
    (key,) = trusting(settings(tmp_path, '[gateway]\norigin = "https://plant.example/"'), apps).tokens.keys
    assert (key.id, key.jwks) == ("people", "https://plant.example/plant/people/keys")
    assert (key.algorithm, key.issuer, key.audience, key.roles) == ("EdDSA", "plant", "gateway", ("operator",))
    with pytest.raises(Misconfigured, match=r"gateway\.origin.* nobody takes keys of 'people' from there"):
        trusting(settings(tmp_path, '[gateway]\norigin = "http://edge:8080"'), apps)
    with pytest.raises(Misconfigured, match="issuer 'people' is there twice"):
        trusting(settings(tmp_path, '[gateway]\norigin = "http://127.0.0.1:8080"'), [*apps, *apps])


@pytest.mark.parametrize("some", ["", "accounts.app:app,ecommerce.app:app", "chat.app:app", "examples.a_service:app"])
def test_the_file_of_the_repository_goes_with_some_of_its_applications_too(some: str) -> None:
    found = gather(ROOT / "gateway.toml", {"GATEWAY_APPS": some})
    assert {"try/#", "rooms/{room}/messages"} < {topic.pattern for topic in found.declared}

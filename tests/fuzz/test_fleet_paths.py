"""devices by its own document: it is valid and whole, and every route answers what it says, whoever asks."""

from __future__ import annotations

import asyncio

import pytest
import requests
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from devices.app import app
from gateway.adapters.http_operation import operations
from tests.devices.fleet import HOUR, open_fleet
from tests.fuzz.test_http_paths import GOOD, asked, bearing

#: What is really there, see `GOOD`.
THERE = {"device": ("pump", "oven"), "metric": ("temp",), "rule": ("hot",), "what": ("suspend", "resume", "rotate")}


def test_every_route_says_what_it_is() -> None:
    for service in app.services:
        for one in operations(f"devices.{service.name}", service):
            assert one.summary.endswith("."), one.id
            # A customer of a shop has nothing to look for here.
            assert one.grants, one.id
            assert set(one.grants) <= {"device:{device}", "viewer", "operator"}, one.id
            # What is read has a type.
            assert one.method != "GET" or one.answers[200].body, one.id


@pytest.mark.parametrize("who", ["viewer:vic", "operator:root"])
async def test_every_route_answers_what_it_says(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in THERE.items():
        monkeypatch.setitem(GOOD, name, found)
    async with open_fleet() as fleet:
        for device in THERE["device"]:
            await fleet.done("POST", "/devices/registry/", {"device": device})
            await fleet.says(device, *((seq, HOUR + seq * 1000, 40.0) for seq in range(3)))
        rule = {"kind": "above", "metric": "temp", "threshold": 30}
        await fleet.done("PUT", "/devices/alerting/rules/hot", rule)
        await fleet.rests()
        reader = fleet.gateway.token("operator:root")
        document = await asyncio.to_thread(requests.get, f"{fleet.gateway.url}/openapi.json", headers=bearing(reader))
        assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document.json())] == []
        series = document.json()["paths"]["/devices/storage/{device}/series/{metric}"]["get"]
        assert {one["name"] for one in series["parameters"]} >= {"begin", "end", "level", "points", "after", "limit"}
        await asyncio.to_thread(asked, fleet.gateway.url, reader, bearing(fleet.gateway.token(who)), "/devices/")

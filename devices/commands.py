"""``gateway devices …``: what an operator types."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from devices import limits
from devices.radio import Plan, Tally, run
from devices.simulation import FILES, PRESETS, Faults, NoData, Values, recorded

Url = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="The gateway.")]
Token = Annotated[
    Path | None, typer.Option(help="An operator's token; by default GATEWAY_TOKEN, or that of `gateway up`.")
]
HERE = "http://127.0.0.1:8080"
Name = Annotated[str, typer.Argument(metavar="DEVICE", help="a-z, 0-9, dot, - and _, at most 63.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="The share of readings with this fault.")]


def create(device: Name, label: str = "", url: Url = HERE, token_file: Token = None) -> None:
    """Make a device, and print its password: the only time that it can be read."""
    print(_asked("POST", "/", url, token_file, {"device": device, "label": label})["password"])  # noqa: T201 - it answers on standard output


def ls(url: Url = HERE, token_file: Token = None) -> None:
    """List the devices, a line of JSON each."""
    after: str | None = ""
    while after is not None:
        said = _asked("GET", f"/?limit=500&after={after}", url, token_file)
        for one in said["items"]:
            print(msgspec.json.encode(one).decode())  # noqa: T201 - it answers on standard output
        after = said["next"]


def suspend(device: Name, url: Url = HERE, token_file: Token = None) -> None:
    """Cut a device off, and keep it out."""
    _asked("POST", f"/{device}/suspend", url, token_file)


def resume(device: Name, url: Url = HERE, token_file: Token = None) -> None:
    """Let a suspended device in again, with the password that it has."""
    _asked("POST", f"/{device}/resume", url, token_file)


def delete(device: Name, url: Url = HERE, token_file: Token = None) -> None:
    """Take a device's account away. What it measured stays."""
    _asked("DELETE", f"/{device}", url, token_file)


def shadow(device: Name, url: Url = HERE, token_file: Token = None) -> None:
    """Show what is wanted of a device, what it says of itself, and the difference."""
    said = _asked("GET", f"/{device}", url, token_file, of="shadow")
    print(msgspec.json.format(msgspec.json.encode(said)).decode())  # noqa: T201 - it answers on standard output


def want(
    device: Name,
    settings: Annotated[str, typer.Argument(help='A JSON merge patch: {"every": 5}; null takes a setting away.')],
    url: Url = HERE,
    token_file: Token = None,
) -> None:
    """Say how a device is to be set: it is told at once, or when it is back."""
    try:
        desired = msgspec.json.decode(settings, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise typer.BadParameter(str(error), param_hint="SETTINGS") from None
    said = _asked("PATCH", f"/{device}", url, token_file, {"desired": desired}, of="shadow")
    print(msgspec.json.encode(said["delta"]).decode())  # noqa: T201 - it answers on standard output


def simulate(
    accounts: Annotated[Path, typer.Argument(help="A JSON file of names and passwords; who is missing is created.")],
    broker: Annotated[str, typer.Option(help="mqtt://HOST:PORT")] = "mqtt://127.0.0.1:1883",
    devices: Annotated[int, typer.Option(min=1, max=limits.SIMULATED_MOST)] = 100,
    readings: Annotated[int, typer.Option(min=1, help="Of each device.")] = 60,
    every: Annotated[float, typer.Option(min=0.001, help="Seconds between two of them.")] = 1.0,
    signal: Annotated[
        list[str] | None, typer.Option(help=f"climate, pump, {', '.join(FILES)}; several are dealt out in turn.")
    ] = None,
    duplicate: Share = 0.01,
    reorder: Share = 0.01,
    late: Share = 0.002,
    dropout: Share = 0.005,
    spike: Share = 0.001,
    seed: int = 1,
    url: Url = HERE,
    token_file: Token = None,
) -> None:
    """Run a fleet of devices over real MQTT, with faults on purpose."""
    try:
        signals = [_signal(name) for name in signal or ["climate", "pump"]]
    except NoData as error:
        raise typer.BadParameter(str(error), param_hint="--signal") from None
    known = _accounts(accounts, [f"sim-{n:04}" for n in range(devices)], url, token_file)
    plan = Plan(readings, every, Faults(duplicate, reorder, late, dropout, spike), seed)
    at = urlsplit(broker)
    console = Console()
    # A pipe gets the line as it is at the end. The last column alone wraps: where none does, all are cut.
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", table_column=Column()), console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task("readings", total=devices * readings, said="")

        def progress(tally: Tally) -> None:
            said = f"{tally.online} online, {tally.acknowledged}/{tally.sent} acknowledged, {tally.refused} refused"
            bar.update(task, completed=tally.made, said=said)

        try:
            tally = run(at.hostname or "127.0.0.1", at.port or 1883, known, signals, plan, progress=progress)
        except OSError as error:
            Console(stderr=True).print(f"error: {broker}: {error.strerror or error}")
            raise typer.Exit(1) from None
    console.print(
        f"{tally.made} readings, {tally.lost} lost on purpose; "
        f"{tally.acknowledged} of {tally.sent} messages acknowledged",
        soft_wrap=True,
    )
    if tally.acknowledged < tally.sent:
        raise typer.Exit(1)


def _signal(name: str) -> Callable[[random.Random], Iterator[Values]]:
    if name in FILES:
        return recorded(name)
    if name not in PRESETS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join([*PRESETS, *FILES])}", param_hint="--signal")
    return PRESETS[name]


def _accounts(file: Path, names: list[str], url: str, token_file: Path | None) -> dict[str, str]:
    """Return the passwords of ``names``; those that are not in ``file`` yet are created, and kept there."""
    known = msgspec.json.decode(file.read_bytes(), type=dict[str, str]) if file.exists() else {}
    try:
        for name in names:
            if name not in known:
                known[name] = _asked("POST", "/", url, token_file, {"device": name, "label": "simulated"})["password"]
    finally:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
            kept.write(msgspec.json.encode(known))
    return {name: known[name] for name in names}


def _asked(
    method: str, path: str, url: str, token_file: Path | None, body: object = None, *, of: str = "registry"
) -> Any:
    made = Path(os.environ.get("GATEWAY_DATA") or ".gateway") / "operator.token"
    token = "" if token_file else os.environ.get("GATEWAY_TOKEN", "")
    if not token and (token_file or made).is_file():
        token = (token_file or made).read_text().strip()
    if not token:
        raise typer.BadParameter("an operator's token is needed", param_hint="--token-file, GATEWAY_TOKEN")
    at, headers = f"{url}/devices/{of}{path}", {"authorization": f"Bearer {token}"}
    try:
        answer = httpx.request(method, at, json=body, headers=headers, timeout=30, trust_env=False)
        said: Any = answer.json() if answer.content else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        Console(stderr=True).print(f"error: {at}: {error}", markup=False)
        raise typer.Exit(1) from None
    if not answer.is_success:
        Console(stderr=True).print(f"error: {said.get('detail', answer.status_code)}", markup=False)
        raise typer.Exit(1)
    return said

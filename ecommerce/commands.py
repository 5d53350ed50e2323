"""``gateway ecommerce …``: what an operator types."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from ecommerce.simulation import Result, customer, run, stock_up


def simulate(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="How many are placed.")] = 100,
    customers: Annotated[int, typer.Option(min=1, max=1_000, help="By how many new customers.")] = 5,
    url: Annotated[str, typer.Option(envvar="GATEWAY_URL", help="The gateway.")] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None,
        typer.Option(help="An operator's token, for catalog and stock; by default GATEWAY_TOKEN, or of `gateway up`."),
    ] = None,
    within: Annotated[float, typer.Option(min=1, help="Seconds that an order may take to its end.")] = 120.0,
) -> None:
    """Let customers buy, and follow every order to its end."""
    made = Path(os.environ.get("GATEWAY_DATA") or ".gateway") / "operator.token"
    operator = "" if token_file else os.environ.get("GATEWAY_TOKEN", "")
    if not operator and (token_file or made).is_file():
        operator = (token_file or made).read_text().strip()
    if not operator:
        raise typer.BadParameter("an operator's token is needed", param_hint="--token-file, GATEWAY_TOKEN")
    try:
        result = asyncio.run(_day(url, operator, customers, orders, within))
    except* httpx.HTTPError as errors:
        Console(stderr=True).print(f"error: {errors.exceptions[0]}")
        raise typer.Exit(1) from None
    ends = ", ".join(f"{count} {end}" for end, count in sorted(result.ends.items()))
    said = f"{ends}; answered in {result.p50:.0f} ms (median), {result.p99:.0f} ms (99 %)"
    Console().print(said, soft_wrap=True)
    if result.ends.get("open"):
        raise typer.Exit(1)


def shown(console: Console) -> Progress:
    """Return how a day's progress looks; a pipe gets its lines as they are at the end."""
    # The last column alone wraps: where none does, all are cut.
    ends = TextColumn("{task.fields[ends]}", table_column=Column())
    columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), ends
    return Progress(*columns, console=console)


async def _day(url: str, operator: str, customers: int, orders: int, within: float) -> Result:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        await stock_up(http, operator, orders)
        tokens = [await customer(http) for _ in range(customers)]
        with shown(Console()) as bar:
            placing = bar.add_task("placed", total=orders, ends="")
            ending = bar.add_task("ended", total=orders, ends="")

            def progress(placed: int, ends: Counter[str]) -> None:
                bar.update(placing, completed=placed)
                bar.update(ending, completed=ends.total(), ends=" ".join(f"{n} {end}" for end, n in ends.most_common()))

            return await run(http, tokens, orders, within=within, progress=progress)

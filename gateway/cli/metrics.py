"""``gateway metrics``: a Grafana dashboard and Prometheus alert rules for what the processes count."""

from __future__ import annotations

import json

import typer

from gateway.cli.alerts import rules
from gateway.cli.dashboard import dashboard

application = typer.Typer(help="Grafana dashboard and Prometheus alert rules.", no_args_is_help=True)


@application.command("dashboard")
def print_dashboard() -> None:
    """Print a Grafana dashboard, in JSON, to import; it asks which Prometheus to read."""
    print(json.dumps(dashboard(), indent=2))


@application.command("alerts")
def print_alerts() -> None:
    """Print a rule file for Prometheus, in YAML; each alert says what to do."""
    print(rules(), end="")

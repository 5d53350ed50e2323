"""A Grafana dashboard over the gateway's metrics: rows of panels, each a few queries."""

from __future__ import annotations

from typing import Any, Final

import msgspec

_WIDTH, _HEIGHT, _PER_ROW = 8, 7, 3


class Panel(msgspec.Struct, frozen=True):
    """A chart over time. ``unit`` is Grafana's word; ``queries`` are legend → PromQL."""

    title: str
    unit: str
    queries: dict[str, str]


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def _quantiles(metric: str, by: str = "") -> dict[str, str]:
    legend = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    labels = f"le, {by}" if by else "le"
    return {
        f"p{percent}{legend}": f"histogram_quantile(0.{percent}, {_rate(f'{metric}_bucket', labels)})"
        for percent in (50, 99)
    }


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Clients": (
        Panel("Connections", "short", {"{{transport}} {{sdk}}": "sum by (transport, sdk) (gateway_connections)"}),
        Panel("Subscriptions", "short", {"{{transport}} {{sdk}}": "sum by (transport, sdk) (gateway_subscriptions)"}),
        Panel("Ping to pong", "s", _quantiles("gateway_ping_seconds")),
        Panel("Closes", "ops", {"{{by}} {{code}}": _rate("gateway_closes_total", "by, code")}),
        Panel("Resumes", "ops", {"{{recovered}} {{reason}}": _rate("gateway_resumes_total", "recovered, reason")}),
        Panel(
            "Refused, and too slow",
            "ops",
            {
                "{{code}}": _rate("gateway_refused_total", "code"),
                "too fast by {{door}}": _rate("gateway_rate_limited_total", "door"),
                "slow": _rate("gateway_slow_closes_total"),
            },
        ),
    ),
    "Events": (
        Panel(
            "Events published and offered",
            "ops",
            {"in {{via}}": _rate("gateway_published_total", "via"), "out": _rate("gateway_offered_total")},
        ),
        Panel(
            "Bytes",
            "Bps",
            {
                "events in {{via}}": _rate("gateway_published_bytes_total", "via"),
                "events out": _rate("gateway_offered_bytes_total"),
                "messages in": _rate("gateway_received_bytes_total"),
                "answers out": _rate("gateway_told_bytes_total"),
            },
        ),
        Panel("Ingest to socket", "s", _quantiles("gateway_ingest_to_socket_seconds")),
        Panel("Behind the log", "s", {"{{instance}}": "max by (instance) (gateway_tail_lag_seconds)"}),
        Panel("Requests that wait for a service", "short", {"{{instance}}": "sum by (instance) (gateway_requests)"}),
        Panel(
            "Filters and partitions read",
            "short",
            {"filters": "sum(gateway_filters)", "partitions": "sum(gateway_readers)"},
        ),
    ),
    "MQTT": (
        Panel(
            "Messages",
            "ops",
            {
                "received": _rate("gateway_mqtt_received_total"),
                "in the log": _rate("gateway_mqtt_appended_total"),
                "published": _rate("gateway_mqtt_published_total"),
                "unheard": _rate("gateway_mqtt_unheard_total"),
            },
        ),
        Panel(
            "Rejected and buried",
            "ops",
            {
                "in: {{reason}}": _rate("gateway_mqtt_rejected_total", "reason"),
                "out: {{reason}}": _rate("gateway_mqtt_buried_total", "reason"),
            },
        ),
        Panel(
            "In and out",
            "s",
            {
                **{f"in {name}": query for name, query in _quantiles("gateway_mqtt_append_seconds").items()},
                **{f"out {name}": query for name, query in _quantiles("gateway_mqtt_out_seconds").items()},
            },
        ),
    ),
    "Services": (
        Panel("Lag", "short", {"{{service}}": "sum by (service) (gateway_lag)"}),
        Panel("Oldest unfinished", "s", {"{{service}}": "max by (service) (gateway_oldest_unfinished_seconds)"}),
        Panel(
            "Pending and parked",
            "short",
            {
                "{{service}} pending": "sum by (service) (gateway_pending)",
                "{{service}} parked": "sum by (service) (gateway_parked)",
            },
        ),
        Panel("Deliveries", "ops", {"{{service}} {{end}}": _rate("gateway_deliveries_total", "service, end")}),
        Panel(
            "Dead letters", "ops", {"{{service}} {{reason}}": _rate("gateway_dead_letters_total", "service, reason")}
        ),
        Panel("Handlers", "s", _quantiles("gateway_handler_seconds", "service")),
        Panel("Open sagas", "short", {"{{saga}} {{state}}": "sum by (saga, state) (gateway_sagas)"}),
        Panel("Routes", "s", _quantiles("gateway_route_seconds", "service")),
        Panel("Outbox", "ops", {"{{service}}": _rate("gateway_relayed_total", "service")}),
    ),
    "Processes": (
        Panel("Event loop delay", "s", _quantiles("gateway_loop_delay_seconds", "instance")),
        Panel(
            "Reconnects",
            "ops",
            {
                "log {{instance}}": _rate("gateway_log_reconnects_total", "instance"),
                "broker {{instance}}": _rate("gateway_mqtt_reconnects_total", "instance"),
            },
        ),
        Panel("Partitions away", "short", {"{{instance}}": "max by (instance) (gateway_log_partitions_away)"}),
        Panel("Bridges that serve", "short", {"{{instance}}": "sum by (instance) (gateway_bridge_active)"}),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it; it asks which Prometheus to read."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        at = {"h": 1, "w": 24, "x": 0, "y": top}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": at})
        top += 1
        for n, panel in enumerate(row):
            x, y = n % _PER_ROW * _WIDTH, top + n // _PER_ROW * _HEIGHT
            panels.append(_panel(len(panels) + 1, panel, {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y}))
        top += -(-len(row) // _PER_ROW) * _HEIGHT
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "title": "Topic Gateway",
        "uid": "topic-gateway",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _panel(id: int, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend, "datasource": source}
        for n, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }

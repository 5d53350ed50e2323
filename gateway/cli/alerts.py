"""Prometheus alert rules over the gateway's metrics: what should wake somebody, and what to do then."""

from __future__ import annotations

import json
from typing import Final, Literal

import msgspec

_NIGHT, _DEAD = "what-to-look-at-at-night", "dead-letters"


class Alert(msgspec.Struct, frozen=True):
    """Fires when ``expr`` was true for so long (`for` of Prometheus)."""

    name: str
    expr: str
    wait: str
    severity: Literal["critical", "warning"]
    #: What it means and what to do.
    summary: str
    #: The heading of docs/operating.md to read.
    section: str = _NIGHT


def _grew(series: str, by: str) -> str:
    """A counter's first event counts, too: its series begins with it, and `increase` alone would see no growth."""
    return f"sum by ({by}) (({series} unless {series} offset 15m) or increase({series}[15m])) > 0"


ALERTS: Final = (
    Alert(
        "GatewayNoEdge",
        "absent(gateway_connections)",
        "2m",
        "critical",
        "No edge answers Prometheus: see whether edges run, and their logs.",
    ),
    Alert(
        "GatewayFailures",
        _grew("gateway_failures_total", "instance"),
        "0m",
        "warning",
        "An error in the gateway's own code: the edge's log has the traceback.",
    ),
    Alert(
        "GatewaySlow",
        "histogram_quantile(0.99, sum by (le) (rate(gateway_ingest_to_socket_seconds_bucket[5m]))) > 1",
        "5m",
        "warning",
        "Events reach watchers after more than a second: edges or the log server are short of CPU.",
    ),
    Alert(
        "GatewayTailLag",
        "max by (instance) (gateway_tail_lag_seconds) > 5",
        "1m",
        "critical",
        "An edge does not get to the end of the log: its log server is away, or it is short of CPU. Ask its /readyz.",
    ),
    Alert(
        "GatewayLoopDelay",
        "histogram_quantile(0.99, sum by (le, instance) (rate(gateway_loop_delay_seconds_bucket[5m]))) > 0.5",
        "5m",
        "warning",
        "A process does everything half a second late: give it a core, or start another one.",
    ),
    Alert(
        "GatewaySlowCloses",
        "sum(rate(gateway_slow_closes_total[5m])) > 1",
        "10m",
        "warning",
        "Clients are closed because they do not read what they watch. They resume; a filter may be too wide for them.",
    ),
    Alert(
        "GatewayEventsLost",
        _grew('gateway_resumes_total{reason="lost_epoch"}', "instance"),
        "0m",
        "critical",
        "The log server lost events that clients had seen, in a failover or a restart: ask gateway doctor.",
        "the-servers",
    ),
    Alert(
        "GatewayLogReconnects",
        "sum by (instance) (increase(gateway_log_reconnects_total[10m])) > 50",
        "5m",
        "warning",
        "Connections to the log server end again and again: ask gateway doctor, and the log server's log.",
    ),
    Alert(
        "GatewayLogAway",
        "max by (instance) (gateway_log_partitions_away) > 0",
        "1m",
        "critical",
        "A log server is away, or a node of its cluster: nothing is stored of what belongs there. Ask gateway doctor.",
        "the-servers",
    ),
    Alert(
        "GatewayLogCorrupt",
        _grew("gateway_log_corrupt_total", "instance"),
        "0m",
        "critical",
        "The log has entries that are damaged or of another program: gateway doctor names them, and what to do.",
    ),
    Alert(
        "GatewayBridgeAbsent",
        "sum(gateway_bridge_active) < 1",
        "30s",
        "critical",
        "No bridge serves the broker: devices' messages wait there. Ask /readyz of the bridges.",
        "bridges",
    ),
    Alert(
        "GatewayMqttRejected",
        'sum by (reason) (rate(gateway_mqtt_rejected_total{reason!="echo"}[10m])) > 1',
        "10m",
        "warning",
        "Devices publish what is not declared or not valid: gateway dead ls shows some of it.",
        _DEAD,
    ),
    Alert(
        "GatewayMqttBuried",
        _grew("gateway_mqtt_buried_total", "reason"),
        "0m",
        "warning",
        "The broker refuses what leaves: mend its rights or bounds, then gateway dead replay.",
        "bridges",
    ),
    Alert(
        "GatewayDeadLetters",
        _grew("gateway_dead_letters_total", "service, reason"),
        "0m",
        "warning",
        "A service gave events up: gateway dead ls says why; mend it, then gateway dead replay.",
        _DEAD,
    ),
    Alert(
        "GatewayServiceBehind",
        "max by (service) (gateway_oldest_unfinished_seconds) > 60",
        "5m",
        "warning",
        "A service's oldest event waits for over a minute: start more workers, or see why its handler waits.",
    ),
    Alert(
        "GatewayLeasesLost",
        "sum by (service) (increase(gateway_leases_lost_total[15m])) > 5",
        "0m",
        "warning",
        "Workers stall for longer than a lease: handlers that block the event loop, or no CPU.",
    ),
    Alert(
        "GatewayOutboxStands",
        "sum by (service) (gateway_relay_leads) < 1",
        "2m",
        "critical",
        "Nobody empties the service's outbox: ask /readyz of its workers, then its database.",
    ),
    Alert(
        "GatewayOutboxBuried",
        _grew("gateway_relay_buried_total", "service"),
        "0m",
        "warning",
        "The service emits what the log refuses: its log names the event.",
    ),
    Alert(
        "GatewaySagasStand",
        'sum by (service, saga, state) (gateway_sagas{state=~"overdue|stuck"}) > 0',
        "2m",
        "critical",
        "Sagas do not end by themselves: gateway doctor and gateway dead ls say which and why.",
    ),
    Alert(
        "GatewayRoutesFail",
        'sum by (service) (rate(gateway_route_seconds_count{status="5xx"}[5m])) > 0.1',
        "5m",
        "warning",
        "A service's own routes answer 5xx: see its log.",
    ),
    Alert(
        "GatewayConfigurationRefused",
        "max by (instance) (gateway_configuration_refused) > 0",
        "1m",
        "warning",
        "A process goes on as it was, and would not start with the new configuration: its log says why.",
        "changing-what-is-declared",
    ),
)


def rules() -> str:
    """Return a rule file for Prometheus. YAML's double-quoted strings are those of JSON (YAML 1.2, 1.3)."""
    lines = ["groups:", "  - name: topic-gateway", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expr)}",
            f"        for: {alert.wait}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook: docs/operating.md#{alert.section}",
        ]
    return "\n".join(lines) + "\n"

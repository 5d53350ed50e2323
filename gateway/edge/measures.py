"""What an edge tells Prometheus of what its parts count anyway: read at the scrape."""

from __future__ import annotations

from gateway.edge.shared import Shared


def export(edge: Shared) -> None:
    """Add them to the edge's metrics."""
    metrics, census, fanout = edge.metrics_of, edge.census, edge.fanout
    gauge, gauges, counter, kind = metrics.gauge, metrics.gauges, metrics.counter, ("transport", "sdk")

    def connections() -> list[tuple[tuple[str, str], float]]:
        return [((one.transport, one.sdk), one.connections) for one in census]

    def subscriptions() -> list[tuple[tuple[str, str], float]]:
        return [((one.transport, one.sdk), one.subscriptions) for one in census]

    gauges("gateway_connections", "Clients, by transport and SDK", kind, connections)
    gauges("gateway_subscriptions", "What they watch", kind, subscriptions)
    gauge("gateway_filters", "Filters that somebody watches", lambda: len(fanout))
    gauge("gateway_readers", "Partitions that this edge reads", lambda: len(edge.readers))
    gauge("gateway_requests", "Requests that wait for a service's reply", lambda: len(edge.requests))
    gauge("gateway_tail_lag_seconds", "Since the slowest reader had read all of its log", edge.readers.lag)
    counter("gateway_encoded", "Frames of events made, once per filter and codec", lambda: fanout.encoded)
    counter("gateway_offered", "Frames of events, times those they were for", lambda: fanout.offered)
    counter("gateway_offered_bytes", "Their bytes", lambda: fanout.offered_bytes)
    counter("gateway_received", "WebSocket messages from clients", lambda: census.received)
    counter("gateway_received_bytes", "Their bytes", lambda: census.received_bytes)
    counter("gateway_told", "Messages for one WebSocket client alone", lambda: census.told)
    counter("gateway_told_bytes", "Their bytes", lambda: census.told_bytes)

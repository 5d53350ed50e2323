"""What a process counts, for Prometheus. Labels are bounded: never a topic, a user or a device."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.store import SagaCount

#: Seconds from the door an event came through to the write to its watchers.
_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """A process's registry. What others count already is read when asked, not counted twice."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` returns at the moment of the scrape."""
        Gauge(name, help, registry=self.registry).set_function(read)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class EdgeMetrics(Metrics):
    """The counters of one edge process."""

    def __init__(self) -> None:
        super().__init__()
        to = self.registry
        self.refused = Counter("gateway_refused", "Requests refused, by error code", ["code"], registry=to)
        self.published = Counter("gateway_published", "Events published by clients of this edge", ["via"], registry=to)
        self.resumes = Counter("gateway_resumes", "Clients that came back with a position", ["recovered"], registry=to)
        self.slow_closes = Counter("gateway_slow_closes", "Clients closed because they did not read", registry=to)
        self.failures = Counter("gateway_failures", "Errors in our own code", registry=to)
        self.latency = Histogram(
            "gateway_ingest_to_socket_seconds",
            "From the door an event came through to its offer to watchers (newest of each batch)",
            buckets=_LATENCY,
            registry=to,
        )


class BridgeMetrics(Metrics):
    """The counters of one bridge process."""

    def __init__(self) -> None:
        super().__init__()
        to = self.registry
        self.received = Counter("gateway_mqtt_received", "MQTT messages from the broker", registry=to)
        self.redelivered = Counter("gateway_mqtt_redelivered", "Of these, marked as sent before (DUP)", registry=to)
        self.appended = Counter("gateway_mqtt_appended", "MQTT messages that are in the log", registry=to)
        self.rejected = Counter("gateway_mqtt_rejected", "MQTT messages refused, by reason", ["reason"], registry=to)
        self.published = Counter("gateway_mqtt_published", "Events that the broker acknowledged", registry=to)
        self.unheard = Counter("gateway_mqtt_unheard", "Of these, without a subscriber (0x10)", registry=to)
        self.buried = Counter("gateway_mqtt_buried", "Events the broker refused", ["reason"], registry=to)
        self.active = Gauge("gateway_bridge_active", "1: it serves the broker; 0: it stands by", registry=to)
        self.reconnects = Counter("gateway_mqtt_reconnects", "Connections to the broker that ended", registry=to)
        self.out = Histogram(
            "gateway_mqtt_out_seconds",
            "From the door an event came through to its PUBACK (oldest of each batch)",
            buckets=_LATENCY,
            registry=to,
        )
        self.latency = Histogram(
            "gateway_mqtt_append_seconds",
            "From the arrival of a message to its acknowledgement (oldest of each batch)",
            buckets=_LATENCY,
            registry=to,
        )


class WorkerMetrics(Metrics):
    """The counters of one worker; the service is its only label."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service
        to, labels = self.registry, ["service"]
        seconds = Histogram("gateway_handler_seconds", "One delivery", labels, buckets=_LATENCY, registry=to)
        self.seconds = seconds.labels(service)
        self._ended = Counter("gateway_deliveries", "Deliveries, by how they ended", [*labels, "end"], registry=to)
        self._dead = Counter("gateway_dead_letters", "Events given up, by reason", [*labels, "reason"], registry=to)
        self.done = self._ended.labels(service, "done")
        self.again = self._ended.labels(service, "again")
        self.given_up = self._ended.labels(service, "dead")
        self.fenced = Counter("gateway_leases_lost", "Leases that another took", labels, registry=to).labels(service)
        self._unanswered = Counter(
            "gateway_answers_refused", "Answers to devices that went nowhere", [*labels, "reason"], registry=to
        )
        self._sagas = Gauge("gateway_sagas", "Open sagas, by state", [*labels, "saga", "state"], registry=to)
        self._answers = Histogram(
            "gateway_route_seconds",
            "Answers of the service's own routes, by class of status",
            [*labels, "status"],
            buckets=_LATENCY,
            registry=to,
        )

    def answered(self, status: int, seconds: float) -> None:
        self._answers.labels(self._service, f"{status // 100}xx").observe(seconds)

    def unanswered(self, reason: str) -> None:
        self._unanswered.labels(self._service, reason).inc()

    def sagas(self, count: SagaCount) -> None:
        """``overdue`` and ``stuck`` are counted among the phases, too."""
        for state in ("running", "finishing", "compensating", "overdue", "stuck"):
            self._sagas.labels(self._service, count.saga, state).set(getattr(count, state))

    def dead(self, reason: str) -> None:
        self._dead.labels(self._service, reason).inc()

    def of_service(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` returns at the moment of the scrape, for this service."""
        Gauge(name, help, ["service"], registry=self.registry).labels(self._service).set_function(read)

"""What a process counts, for Prometheus. Labels are bounded: never a topic, a user or a device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway import limits
from gateway.adapters.log import Counters
from gateway.store import SagaCount

#: Seconds from the door an event came through to the write to its watchers.
_LATENCY = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

_Family = CounterMetricFamily | GaugeMetricFamily
#: Labels and value, for each series of a metric.
Read = Callable[[], Iterable[tuple[Sequence[str], float]]]


class _Read(Collector):
    """A metric that others count; read when asked."""

    def __init__(self, family: type[_Family], name: str, help: str, labels: Sequence[str], read: Read) -> None:
        self._family, self._about, self._labels, self._read = family, (name, help), labels, read

    def collect(self) -> Iterator[_Family]:
        family = self._family(*self._about, labels=self._labels)
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family


class Metrics:
    """A process's registry. What others count already is read when asked, not counted twice."""

    def __init__(self, log: Counters) -> None:
        self.registry = CollectorRegistry()
        self._delay = Histogram(
            "gateway_loop_delay_seconds",
            "How much later than asked the event loop did something",
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.counter("gateway_log_reconnects", "Connections to the log server that ended", lambda: log.reconnects)
        self.gauge("gateway_log_partitions_away", "Partitions whose log server is away", lambda: log.away())
        self.counter("gateway_log_corrupt", "Entries that are damaged, or not ours, when read", lambda: log.corrupt)
        self.counter("gateway_log_epoch_changes", "Histories that began anew", lambda: log.epoch_changes)

    async def watch_loop(self) -> None:
        """Look how late the event loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + limits.LOOP_LOOKED_AT_EVERY
            await asyncio.sleep(limits.LOOP_LOOKED_AT_EVERY)
            self._delay.observe(max(0.0, loop.time() - due))

    def counter(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` counted since the process began, as ``name_total``."""
        self.registry.register(_Read(CounterMetricFamily, name, help, (), lambda: [((), read())]))

    def gauges(self, name: str, help: str, labels: Sequence[str], read: Read) -> None:
        """Export what ``read`` returns at the moment of the scrape, by ``labels``."""
        self.registry.register(_Read(GaugeMetricFamily, name, help, labels, read))

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` returns at the moment of the scrape."""
        Gauge(name, help, registry=self.registry).set_function(read)

    def render(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class EdgeMetrics(Metrics):
    """The counters of one edge process."""

    def __init__(self, log: Counters) -> None:
        super().__init__(log)
        to = self.registry
        self.refused = Counter("gateway_refused", "Requests refused, by error code", ["code"], registry=to)
        self.rate_limited = Counter(
            "gateway_rate_limited", "Refused: one client asks too fast, or is there too often", ["door"], registry=to
        )
        self.published = Counter("gateway_published", "Events published by clients of this edge", ["via"], registry=to)
        self.published_bytes = Counter("gateway_published_bytes", "Their payloads", ["via"], registry=to)
        self._resumes = Counter(
            "gateway_resumes", "Who came back with a position, and why not", ["recovered", "reason"], registry=to
        )
        self.closes = Counter("gateway_closes", "WebSocket connections that ended", ["by", "code"], registry=to)
        self.ping = Histogram("gateway_ping_seconds", "From a ping to its answer", buckets=_LATENCY, registry=to)
        self.slow_closes = Counter("gateway_slow_closes", "Clients closed because they did not read", registry=to)
        self.failures = Counter("gateway_failures", "Errors in our own code", registry=to)
        self.latency = Histogram(
            "gateway_ingest_to_socket_seconds",
            "From the door an event came through to its offer to watchers (newest of each batch)",
            buckets=_LATENCY,
            registry=to,
        )

    def stored(self, via: str, size: int) -> None:
        self.published.labels(via).inc()
        self.published_bytes.labels(via).inc(size)

    def resumed(self, why_not: str) -> None:
        """``why_not`` is empty for who missed nothing."""
        self._resumes.labels("no" if why_not else "yes", why_not).inc()

    def closed(self, by: str, code: int) -> None:
        """A client may close with any code: only those of RFC 6455, 7.4.1, and of its SDK become labels."""
        known = by == "us" or 1000 <= code <= 1015 or code in (3000, 3001)
        self.closes.labels(by, str(code) if known else "other").inc()


class BridgeMetrics(Metrics):
    """The counters of one bridge process."""

    def __init__(self, log: Counters) -> None:
        super().__init__(log)
        to = self.registry
        self.received = Counter("gateway_mqtt_received", "MQTT messages from the broker", registry=to)
        self.received_bytes = Counter("gateway_mqtt_received_bytes", "Their payloads", registry=to)
        self.redelivered = Counter("gateway_mqtt_redelivered", "Of these, marked as sent before (DUP)", registry=to)
        self.appended = Counter("gateway_mqtt_appended", "MQTT messages that are in the log", registry=to)
        self.rejected = Counter("gateway_mqtt_rejected", "MQTT messages refused, by reason", ["reason"], registry=to)
        self.published = Counter("gateway_mqtt_published", "Events that the broker acknowledged", registry=to)
        self.published_bytes = Counter("gateway_mqtt_published_bytes", "Their payloads", registry=to)
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

    def __init__(self, service: str, log: Counters) -> None:
        super().__init__(log)
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

    def counted(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` counted since the process began, for this service, as ``name_total``."""
        one = [self._service]
        self.registry.register(_Read(CounterMetricFamily, name, help, ["service"], lambda: [(one, read())]))

    def of_service(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Export what ``read`` returns at the moment of the scrape, for this service."""
        Gauge(name, help, ["service"], registry=self.registry).labels(self._service).set_function(read)

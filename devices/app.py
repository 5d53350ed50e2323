"""The application ``devices``: ``apps = ["devices.app:app"]`` in gateway.toml."""

from __future__ import annotations

from devices.alerting.service import service as alerting
from devices.analytics.service import service as analytics
from devices.commands import create, delete, ls, resume, simulate, suspend
from devices.decoders import cbor
from devices.registry.service import service as registry
from devices.storage.service import service as storage
from devices.topics import TOPICS
from gateway import App

app = App(
    "devices",
    topics=TOPICS,
    services=[registry, storage, analytics, alerting],
    decoders={"application/cbor": cbor},
    commands=[create, ls, suspend, resume, delete, simulate],
)

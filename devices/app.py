"""The application ``devices``: ``apps = ["devices.app:app"]`` in gateway.toml."""

from __future__ import annotations

from devices.alerting.service import service as alerting
from devices.analytics.service import service as analytics
from devices.commands import create, delete, ls, resume, shadow, simulate, suspend, want
from devices.decoders import cbor
from devices.registry.service import service as registry
from devices.shadow.service import service as shadows
from devices.storage.service import service as storage
from devices.topics import TOPICS
from gateway import App

app = App(
    "devices",
    topics=TOPICS,
    services=[registry, storage, analytics, alerting, shadows],
    decoders={"application/cbor": cbor},
    commands=[create, ls, suspend, resume, delete, shadow, want, simulate],
)

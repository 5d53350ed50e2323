"""The application ``chat``: ``apps = ["chat.app:app"]`` in gateway.toml."""

from __future__ import annotations

from chat.keys import AUDIENCE, ISSUER
from chat.service import service
from chat.topics import TOPICS, WATCHED, watched
from gateway import App
from gateway.web import Issuer

app = App(
    "chat",
    topics=TOPICS,
    services=[service],
    issuers=[
        Issuer(
            "chat",
            jwks="/chat/rooms/.well-known/jwks.json",
            issuer=ISSUER,
            audience=AUDIENCE,
            opens=tuple(watched("+", name) for name in WATCHED),
        )
    ],
)

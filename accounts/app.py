"""The application ``accounts``: ``apps = ["accounts.app:app"]`` in gateway.toml."""

from __future__ import annotations

from accounts.service import users
from gateway import App, Topic
from gateway.web import Issuer

app = App(
    "accounts",
    topics=[
        Topic(pattern="accounts/users/{user}/registered", key="{user}", read=("operator",)),
        Topic(pattern="accounts/users/{user}/erased", key="{user}", read=("operator",)),
    ],
    services=[users],
    issuers=[
        Issuer(
            "accounts",
            jwks="/accounts/users/.well-known/jwks.json",
            issuer="accounts",
            audience="topic-gateway",
            roles=("user", "viewer", "operator"),
        )
    ],
)

"""The application ``accounts``: ``apps = ["accounts.app:app"]`` in gateway.toml."""

from __future__ import annotations

from accounts.service import users
from gateway import App, Topic

app = App(
    "accounts",
    topics=[
        Topic(pattern="accounts/users/{user}/registered", key="{user}", read=("operator",)),
        Topic(pattern="accounts/users/{user}/erased", key="{user}", read=("operator",)),
    ],
    services=[users],
)

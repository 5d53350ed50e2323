"""What an operator sets for the fleet: variables of the environment, read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.web import Unavailable


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where alerts go: an address, or a URL with the file of what its messages are signed with."""

    mail: str = ""
    url: str = ""
    secret_file: str = ""

    @property
    def secret(self) -> bytes:
        return Path(self.secret_file).read_bytes().strip()


class Settings(msgspec.Struct, frozen=True):
    """See README.md. Secrets are named by file."""

    #: ``smtp://HOST:PORT``, or ``smtps://``; with a user if it needs one.
    smtp: str
    smtp_password_file: str
    mail_from: str
    #: A TOML file of the channels, ``[NAME]`` each.
    channels_file: str
    #: Webhooks may lead into private networks, and to this machine.
    private: bool
    #: Where the broker has its files `passwords` and, by default, `mosquitto.pid`. Empty: it is told nothing.
    broker: str
    broker_pid_file: str

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Raises :class:`Unavailable` where the file is not good: nothing is lost until somebody mends it."""
        if not self.channels_file:
            return {}
        try:
            return msgspec.toml.decode(Path(self.channels_file).read_bytes(), type=dict[str, Channel])
        except (OSError, msgspec.MsgspecError) as error:
            raise Unavailable(f"{self.channels_file}: {error}", "mend DEVICES_CHANNELS_FILE") from None

    @property
    def smtp_password(self) -> str | None:
        return Path(self.smtp_password_file).read_text().strip() if self.smtp_password_file else None


def settings() -> Settings:
    said = os.environ
    broker = said.get("DEVICES_BROKER_FOLDER") or ""
    return Settings(
        said.get("DEVICES_SMTP") or "",
        said.get("DEVICES_SMTP_PASSWORD_FILE") or "",
        said.get("DEVICES_MAIL_FROM") or "devices@example.org",
        said.get("DEVICES_CHANNELS_FILE") or "",
        said.get("DEVICES_WEBHOOK_PRIVATE") == "1",
        broker,
        said.get("DEVICES_BROKER_PID_FILE", broker and str(Path(broker, "mosquitto.pid"))),
    )

"""What an operator sets for the shop: variables of the environment, read when they are needed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """See README.md. Secrets are named by file."""

    #: File of what the acquirer signs webhooks with; made by the first who needs it.
    webhook_file: Path
    #: ``smtp://HOST:PORT``, or ``smtps://``; with a user if it needs one, whose password is in ``smtp_password_file``.
    #: Empty: no mail is sent.
    smtp: str
    smtp_password_file: str
    mail_from: str
    #: ``https://HOST``: where readers of mails reach the shop, for the link that ends promotions; by default the
    #: gateway's origin.
    address: str
    #: Who hears of trouble: an address, and apprise URLs (SMS, chat, push), a line each.
    operator_mail: str
    apprise_file: str
    #: File of an apprise URL with ``{phone}`` in it, for short messages to customers.
    sms_file: str
    #: Seconds that the simulated warehouse packs, that its carrier drives, and that a slow bank thinks.
    packing: float
    driving: float
    thinking: float

    @property
    def smtp_password(self) -> str | None:
        return Path(self.smtp_password_file).read_text().strip() if self.smtp_password_file else None

    @property
    def webhook_secret(self) -> bytes:
        return _secret(self.webhook_file)


def settings() -> Settings:
    said, data = os.environ, Path(os.environ.get("GATEWAY_DATA") or ".gateway")
    return Settings(
        Path(said.get("ECOMMERCE_WEBHOOK_SECRET_FILE") or data / "ecommerce-webhook.secret"),
        said.get("ECOMMERCE_SMTP") or "",
        said.get("ECOMMERCE_SMTP_PASSWORD_FILE") or "",
        said.get("ECOMMERCE_MAIL_FROM") or "shop@example.org",
        (said.get("ECOMMERCE_ADDRESS") or "").rstrip("/"),
        said.get("ECOMMERCE_OPERATOR_MAIL") or "",
        said.get("ECOMMERCE_APPRISE_FILE") or "",
        said.get("ECOMMERCE_SMS_FILE") or "",
        float(said.get("ECOMMERCE_PACKING") or 2),
        float(said.get("ECOMMERCE_DRIVING") or 3),
        float(said.get("ECOMMERCE_THINKING") or 2),
    )


def _secret(path: Path) -> bytes:
    """Return what is in ``path``; the first of several processes makes it, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        draft.unlink()
    return path.read_bytes().strip()

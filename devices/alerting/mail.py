"""An alert as a mail, and the way to the mail server."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from urllib.parse import unquote, urlsplit

import aiosmtplib

from devices import limits
from devices.alerting.hook import Undelivered
from devices.events import Alert
from devices.settings import Settings
from gateway import Rejected


def letter(known: Settings, to: str, id: str, alert: Alert) -> EmailMessage:
    """Return the mail. ``id`` makes its Message-ID: one that is sent twice is seen to be one (RFC 5322, 3.6.4)."""
    mail = EmailMessage(policy=SMTP)
    domain = known.mail_from.rpartition("@")[2]
    mail["From"], mail["To"] = known.mail_from, to
    mail["Subject"] = f"[{alert.severity}] {alert.rule} {alert.what}: {alert.device}"
    mail["Message-ID"] = f"<{id}@{domain}>"
    # Mail programs show firing and resolved as one thread.
    mail["References"] = f"<{alert.fingerprint}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    value = "" if alert.value is None else f"Value: {alert.value:g}\n"
    mail.set_content(
        f"{alert.rule} is {alert.what} for {alert.device}.\n{value}"
        f"Occurred: {alert.occurred} ms\nDetected: {alert.detected} ms\n"
    )
    return mail


async def post(known: Settings, mail: EmailMessage) -> None:
    """Hand the mail to the server; raises :class:`Undelivered` to try again, `Rejected` where that is in vain."""
    at = urlsplit(known.smtp)
    if not at.hostname:
        raise Rejected("DEVICES_SMTP is not set")
    try:
        await aiosmtplib.send(
            mail,
            hostname=at.hostname,
            port=at.port,
            use_tls=at.scheme == "smtps",
            username=unquote(at.username) if at.username else None,
            password=known.smtp_password,
            timeout=limits.ASK_WITHIN,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        if all(500 <= one.code < 600 for one in error.recipients):
            raise Rejected("the mail server refuses this address") from None
        raise Undelivered("the mail server takes it later") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Undelivered(f"the mail server: {type(error).__name__}") from None

"""A mail: its words from templates, text and HTML, and the way to the mail server."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiosmtplib
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ecommerce import limits
from ecommerce.notifications.rules import Outcome, refused, shown
from ecommerce.settings import Settings
from gateway.web import Unavailable


class NoAddress(Unavailable):
    """Promotions without a link that ends them, which nobody may send: the operator's to mend, and they wait."""

    code, whose = "no_address", "operator"


def public(address: str) -> str:
    """Return ``address``; raises :class:`NoAddress` where the reader of a mail could not reach it (RFC 8058, 3.1)."""
    at = urlsplit(address)
    local = at.scheme == "http" and at.hostname in ("127.0.0.1", "::1", "localhost")
    if not (at.hostname and (local or at.scheme == "https")) or at.path or at.query or at.username:
        raise NoAddress("readers of mails cannot reach the shop's address", "ECOMMERCE_ADDRESS=https://HOST")
    return address


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    return made


def written(template: str, **words: object) -> tuple[str, str, str]:
    """Return subject, text and HTML; the first line of the text template is the subject."""
    text = _templates().get_template(f"{template}.txt").render(words)
    subject, _, rest = text.partition("\n")
    return subject.strip(), rest.lstrip("\n"), _templates().get_template(f"{template}.html").render(words)


def letter(known: Settings, to: str, id: str, words: tuple[str, str, str], unsubscribe: str = "") -> EmailMessage:
    """Return the mail. ``id`` makes its Message-ID: one that is sent twice is seen to be one (RFC 5322, 3.6.4)."""
    subject, text, html = words
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"], mail["Subject"] = known.mail_from, to, subject
    mail["Message-ID"] = f"<{id}@{known.mail_from.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    if unsubscribe:
        # RFC 8058: one click, by the mail program itself.
        mail["List-Unsubscribe"] = f"<{unsubscribe}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(text)
    mail.add_alternative(html, subtype="html")
    return mail


async def post(known: Settings, mail: EmailMessage) -> Outcome:
    """Hand the mail to the server; raises :class:`Unavailable` where it may be asked again."""
    if not known.smtp:
        return "unset"
    at = urlsplit(known.smtp)
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
        if all(refused(one.code) for one in error.recipients):
            return "refused"
        raise Unavailable("the mail server takes it later", "nothing: it is sent again") from None
    except aiosmtplib.SMTPResponseException as error:
        if refused(error.code):
            return "refused"
        raise Unavailable(f"the mail server answered {error.code}", "see what it says") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Unavailable(f"the mail server: {type(error).__name__}", "is it up?") from None
    return "sent"

"""What people may call themselves: addresses, names, numbers, passwords and roles."""

from __future__ import annotations

import unicodedata
from typing import Final, Literal, get_args

from accounts import limits

Role = Literal["customer", "viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


def principal(role: Role) -> str:
    """Return the kind that the gateway knows the bearer as; a role that is none of these has the least rights."""
    return {"viewer": "viewer", "operator": "operator", "admin": "operator"}.get(role, "user")


def mail(text: str) -> str:
    """Return the address that two spellings of it share; empty where it is none.

    Only what every mail server agrees on is asked. Whether somebody reads it, a letter tells and no grammar.
    """
    text = unicodedata.normalize("NFC", text).strip().lower()
    name, _, host = text.rpartition("@")
    if not name or "@" in name or "." not in host.strip(".") or host != host.strip(".") or ".." in host:
        return ""
    if (
        len(text.encode()) > limits.MAIL_MOST
        or not text.isprintable()
        or not {" ", ",", ";", "<", ">"}.isdisjoint(text)
    ):
        return ""
    return text


def fault(password: str, name: str, phone: str) -> str:
    """Say what is wrong with what a new account brings; empty where nothing is."""
    if not limits.PASSWORD_LEAST <= len(password) <= limits.PASSWORD_MOST:
        return f"a password has {limits.PASSWORD_LEAST} to {limits.PASSWORD_MOST} characters"
    if not 0 < len(name.strip()) <= limits.NAME_MOST or not name.isprintable():
        return f"a name has 1 to {limits.NAME_MOST} characters, and no control character"
    if phone and not (
        phone[0] == "+" and phone[1:].isdecimal() and phone.isascii() and len(phone) <= limits.PHONE_MOST
    ):
        return "a phone number is + and digits (E.164)"
    return ""

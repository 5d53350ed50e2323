"""How a process tells what it does: one line a record on standard error, never a payload, never a secret."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from gateway.settings import redacted

Form = Literal["text", "json"]


class Line(logging.Formatter):
    """A record as ``key=value`` pairs or as one JSON object; a traceback stays on its line."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` on one line; user and password of every URL in it are hidden."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"at": at, "level": record.levelname.lower(), "from": record.name, "says": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        fields = {name: redacted(text) for name, text in fields.items()}
        if self._form == "json":
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{name}={_quoted(text)}" for name, text in fields.items())


def configure(form: Form = "text", level: str = "info") -> None:
    """Send every record of ``level`` and above to standard error, and those of libraries from warnings on."""
    out = logging.StreamHandler()
    out.setFormatter(Line(form))
    logging.basicConfig(level=logging.WARNING, handlers=[out], force=True)
    logging.getLogger("gateway").setLevel(level.upper())
    logging.captureWarnings(True)


def _quoted(text: str) -> str:
    return text if text.isprintable() and not set(text) & set(' "=') and text else json.dumps(text, ensure_ascii=False)

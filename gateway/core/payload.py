"""What a payload may hold: strict JSON, UTF-8 text or bytes, bounded, and safe to splice into a line of JSON.

Every door asks here, so a payload that reached the log is valid for every reader. The bytes are kept as they came,
except that raw line breaks (legal in JSON only between tokens) become spaces: the JSON protocol ends a message with
a line break, and one pretty-printed payload would make every watcher of its topic drop the connection.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final, Literal

import msgspec

from gateway import limits
from gateway.errors import BadPayload, TooLarge

PayloadType = Literal["json", "text", "bytes"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# Without the look behind, each digit of a run that is just short enough would begin a search of its own.
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % (limits.JSON_DIGITS + 1))
_BREAKS = bytes.maketrans(b"\n\r", b"  ")


def check(data: bytes, type: PayloadType = "json", most: int = limits.PAYLOAD_BYTES) -> bytes:
    """Return ``data`` as the log may hold it.

    Raises :class:`TooLarge` beyond ``most`` bytes and :class:`BadPayload` where it is not what ``type`` says.
    """
    if len(data) > most:
        raise TooLarge(f"the payload has {len(data)} bytes", f"this topic takes at most {most}")
    if type == "json":
        return check_json(data)
    if type == "text":
        try:
            data.decode()
        except UnicodeDecodeError as e:
            raise BadPayload(f"the text is not UTF-8 at byte {e.start}", "send UTF-8") from None
    return data


def check_json(data: bytes) -> bytes:
    """Return ``data`` on one line if it is one strict JSON document (RFC 8259, I-JSON's RFC 7493 on duplicates)."""
    try:
        value = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise BadPayload(f"not JSON: {e}", "send one valid JSON document in UTF-8") from None
    except RecursionError:
        raise BadPayload("the JSON is nested too deep", f"use at most {limits.JSON_DEPTH} levels") from None
    if data.count(b"[") + data.count(b"{") > limits.JSON_DEPTH and _too_deep(value):
        raise BadPayload("the JSON is nested too deep", f"use at most {limits.JSON_DEPTH} levels")
    # Most senders write compact JSON. If ours reads the same, byte for byte, no key can have been doubled and no
    # number cut short, and the slow look below is spared (0.5 µs instead of 5 for 128 bytes).
    if _encode(value) != data or (len(data) > limits.JSON_DIGITS and _LONG_NUMBER.search(data)):
        _look_closely(data)
        if b"\n" in data or b"\r" in data:
            data = data.translate(_BREAKS)
    return data


def _look_closely(data: bytes) -> None:
    # What msgspec read is UTF-8, without NaN and not deep: of this reader only the two hooks can refuse.
    json.loads(data.decode(), object_pairs_hook=_no_twins, parse_int=_bounded)


def _no_twins(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        [(twin, _)] = Counter(names).most_common(1)
        # Two readers may take two different ones of them: the root of many an attack.
        raise BadPayload(f"the JSON has the key {twin[:40]!r} twice in one object", "send each key once")


def _bounded(digits: str) -> int:
    count = len(digits.lstrip("-"))
    if count > limits.JSON_DIGITS:
        raise BadPayload(f"a number has {count} digits", f"use at most {limits.JSON_DIGITS}, or a string")
    return 0


def _too_deep(value: Any) -> bool:
    """Say whether ``value`` has more levels than allowed; a level at a time, so without recursion."""
    level: list[Any] = [[value]]
    for _ in range(limits.JSON_DEPTH + 1):
        level = [
            child
            for one in level
            for child in (one.values() if one.__class__ is dict else one)
            if child.__class__ is dict or child.__class__ is list
        ]
        if not level:
            return False
    return True


#: What a payload is when nobody says more than its topic does already.
_PLAIN: Final[dict[PayloadType, str]] = {"json": "", "text": "text/plain", "bytes": "application/octet-stream"}
#: What clients send without meaning it.
_GENERIC: Final = ("", "application/json", "application/x-www-form-urlencoded", "application/octet-stream")


def kept_type(type: PayloadType, kind: str, data: bytes) -> str:
    """Return the MIME type under which ``data`` is kept: ``kind`` where it says more than the topic's ``type``.

    A reader may take a ``text/…`` for UTF-8, so what is not is kept as bytes.
    """
    if type == "json" or kind in _GENERIC:
        return _PLAIN[type]
    if kind.startswith("text/"):
        try:
            data.decode()
        except UnicodeDecodeError:
            return _PLAIN["bytes"]
    return kind

"""Tables of a TOML file and of the environment as frozen values: every problem at once, each with its place."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from gateway import limits
from gateway.errors import Misconfigured

T = TypeVar("T", bound=msgspec.Struct)

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

#: What Kubernetes puts into every container near a service named gateway or gateway-edge; the service is group 1.
_SERVICE_LINK = re.compile(r"(\w+?)_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


def duration(value: object) -> float:
    """Return the seconds of ``200ms``, ``30s``, ``1m``, ``24h`` or ``7d``; raises ValueError."""
    if not isinstance(value, str) or not (match := _DURATION.fullmatch(value)):
        raise ValueError('is no duration; write a whole number and its unit, such as "200ms", "30s", "1m", "24h", "7d"')
    return int(match[1]) * _SECONDS[match[2]]


def size(value: object) -> int:
    """Return the bytes of ``64KiB`` (or MiB, GiB, B) or of a whole number; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not (match := _SIZE.fullmatch(value)):
        raise ValueError('is no size; write whole bytes, or a number and its unit, such as "64KiB" or "1MiB"')
    return int(match[1]) * _BYTES[match[2]]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return advice for an unknown ``word``: the known one most like it, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


class Place(msgspec.Struct, frozen=True):
    """Where a key was set: file and line, or the variable."""

    name: str
    #: Key, such as ``edge.port`` or ``topics[2]``, to line.
    lines: dict[str, int] = {}
    #: Key to the variable that overrides it.
    variables: dict[str, str] = {}

    def say(self, key: str, text: str) -> str:
        """Return one line: the place of ``key``, the key, and ``text``."""
        return f"{self.at(key)} {text}"

    def at(self, key: str) -> str:
        """Return the place of ``key``, and the key: ``gateway.toml:12: topics[2]``."""
        if key in self.variables:
            return f"{self.variables[key]}: {key}"
        above = key
        while above and above not in self.lines:
            above = above[: max(above.rfind("."), above.rfind("["), 0)]
        line = f":{self.lines[above]}" if above else ""
        return f"{self.name}{line}: {key}"


class Reading:
    """One TOML document on its way to a value, gathering what is wrong with it."""

    def __init__(self, name: str, text: str, folder: Path) -> None:
        self._folder = folder
        self._overrides: dict[str, str] = {}
        self.problems: list[str] = []
        self.place = Place(name, _lines(text))
        try:
            self._data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            raise Misconfigured(f"{name} is not TOML: {e}", "nothing was applied") from None
        except RecursionError:
            raise Misconfigured(f"{name} is nested too deep", "no setting needs more than three levels") from None

    @classmethod
    def of_file(cls, path: str) -> Reading:
        """Read ``path``; raises :class:`Misconfigured` where there is no such TOML file."""
        try:
            with open(path, "rb") as file:
                data = file.read(limits.SETTINGS_BYTES + 1)
            text = data.decode()
        except OSError as e:
            raise Misconfigured(f"{path} cannot be read: {e.strerror}", "name another file") from None
        except UnicodeDecodeError as e:
            raise Misconfigured(f"{path} is not UTF-8 at byte {e.start}", "TOML is UTF-8") from None
        if len(data) > limits.SETTINGS_BYTES:
            raise Misconfigured(f"{path} is larger than {limits.SETTINGS_BYTES} bytes", "is it the right file?")
        return cls(path, text, Path(path).parent)

    def table(self, type: type[T], env: Mapping[str, str], names: Mapping[str, tuple[str, str]]) -> T | None:
        """Return the document as ``type``, overridden by the variables of ``env`` that ``names`` gives a key.

        Returns None with at least one more of ``problems``. An empty variable is as none. An unknown one that shares
        the prefix of the known ones is a problem, unless it is a service link of Kubernetes.
        """
        prefix = next(iter(names), "").partition("_")[0] + "_"
        for name, value in env.items():
            if not name.startswith(prefix) or not value or _linked(name, value, env, names):
                continue
            if name not in names:
                self.problems.append(f"{name}: the variable is unknown; {nearest(name, names)}")
                continue
            key = ".".join(names[name])
            self._overrides[key] = value
            self.place.variables[key] = name
        return self._struct(type, self._data, "")

    def _problem(self, key: str, text: str) -> None:
        self.problems.append(self.place.say(key, text))

    def _struct(self, type: type[T], data: object, at: str) -> T | None:
        if not isinstance(data, dict):
            header = f"[[{at[: at.rindex('[')]}]]" if at.endswith("]") else f"[{at}]"
            self._problem(at, f"is no table; write {header}")
            return None
        fields = {f.encode_name: f for f in msgspec.structs.fields(type)}
        before = len(self.problems)
        for name in data:
            if name not in fields:
                shown = name if re.fullmatch(r"[\w-]{1,64}", name) else repr(name[:64])
                self._problem(_join(at, shown), f"is unknown; {nearest(name, fields)}")
        values: dict[str, Any] = {}
        for name, field in fields.items():
            key = _join(at, name)
            if name in data or key in self._overrides:
                values[field.name] = self._value(field.type, data.get(name), key)
            elif isinstance(field.type, _StructMeta):
                values[field.name] = self._struct(field.type, {}, key)
            elif field.required:
                self._problem(key, "is missing; set it")
        return type(**values) if len(self.problems) == before else None

    def _value(self, type: Any, value: object, key: str) -> Any:
        inner = get_args(type)
        if isinstance(type, _StructMeta):
            return self._struct(type, value, key)
        if get_origin(type) is tuple and isinstance(inner[0], _StructMeta):
            if not isinstance(value, list):
                return self._problem(key, f"is no list of tables; write [[{key}]] above each")
            return tuple(self._struct(inner[0], row, f"{key}[{n}]") for n, row in enumerate(value))
        if get_origin(type) is dict:
            if not isinstance(value, dict):
                return self._problem(key, f"is no table of tables; write [{key}.NAME]")
            return {name: self._struct(inner[1], row, _join(key, name)) for name, row in value.items()}
        return self._leaf(type, value, key)

    def _leaf(self, type: Any, value: object, key: str) -> Any:
        variable = self._overrides.get(key)
        if variable is not None:
            listed = get_origin(type) is tuple
            value = [part.strip() for part in variable.split(",") if part.strip()] if listed else variable
        extra = _extra(type)
        try:
            if "read" in extra:
                return extra["read"](value)
            value = msgspec.convert(value, type, strict=variable is None)
        except msgspec.ValidationError as e:
            # The message names types, or the value of a choice; it never holds a value that may be secret.
            choices = [c for t in (type, *get_args(type)) if get_origin(t) is Literal for c in get_args(t)]
            return self._problem(key, f"is not one of {', '.join(choices)}" if choices else _plain(e))
        except ValueError as e:
            return self._problem(key, str(e))
        if extra.get("path") and value:
            # What a file names lies beside it; what a variable names, where the process was started.
            path = Path(str(value)).expanduser()
            return str(path if variable is not None else self._folder / path)
        return value


_StructMeta = type(msgspec.Struct)


def _linked(name: str, value: str, env: Mapping[str, str], names: Mapping[str, object]) -> bool:
    """Say whether ``name`` is of a service link: by its value, or, where it is no key of ours, by its siblings.

    The form of the name is not enough: ``GATEWAY_EGDE_PORT`` has it too.
    """
    link = _SERVICE_LINK.fullmatch(name)
    if link is None:
        return False
    whole = f"{link[1]}_SERVICE_HOST" in env or "://" in env.get(f"{link[1]}_PORT", "")
    return "://" in value or (whole and name not in names)


def _plain(error: msgspec.ValidationError) -> str:
    text = str(error).partition(" - at ")[0].replace("`", "").replace("Expected ", "must be ", 1)
    for ours, theirs in (("array", "a list"), ("str", "a text"), ("int", "a whole number"), ("bool", "true or false")):
        text = re.sub(rf"\b{ours}\b", theirs, text)
    return text


def _extra(type: Any) -> dict[str, Any]:
    for one in (type, *get_args(type)):
        if get_origin(one) is Annotated:
            return next((m.extra or {} for m in one.__metadata__ if isinstance(m, msgspec.Meta)), {})
    return {}


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _lines(text: str) -> dict[str, int]:
    """Return the line of every header and of every key that has a line of its own."""
    lines: dict[str, int] = {}
    rows: dict[str, int] = {}
    at = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            at = header[2].replace('"', "").replace("'", "")  # [services."shop.stock"]
            if header[1] == "[[":
                rows[at] = rows.get(at, -1) + 1
                at = f"{at}[{rows[at]}]"
            lines.setdefault(at, number)
        elif key := _KEY.match(line):
            lines.setdefault(_join(at, key[1]), number)
    return lines

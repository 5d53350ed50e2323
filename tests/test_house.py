"""The rules of the house, asked of every file; and each rule asked to find what was planted for it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.house import (
    CLIENTS,
    ROOT,
    RULES,
    Findings,
    Source,
    bounds_have_reasons,
    constants,
    files,
    keys_are_named,
    strays,
)

#: Below these versions a locked package has a hole that our doors reach.
FLOORS = {"starlette": "1.0.1", "h11": "0.16", "websockets": "9.1", "pyjwt": "2.13", "redis": "4.5.5"}

#: Nobody writes more than this by hand into one file.
TRACKED_BYTES = 200_000

LOCKS = ("requirements/run.txt", "requirements/data.txt", "requirements/dev.txt", "requirements/bench.txt")

CORE = "gateway/core/x.py"
EDGE = "gateway/edge.py"
DOC = '"""A noun."""\n'

#: rule -> what it must find: (where, what stands there).
PLANTED: dict[str, list[tuple[str, str]]] = {
    "core_is_pure": [
        (CORE, "async def f(): ..."),
        (CORE, "def f():\n    import time"),
        (CORE, "from datetime import datetime"),
        (CORE, "import random"),
        (CORE, "from os import environ"),
        (CORE, "from gateway.adapters import mqtt"),
        (CORE, "import redis"),
        (CORE, "from http import client"),
        (CORE, "open('x')"),
        (CORE, "partition = hash(topic) % 8"),
        (CORE, "x = [y async for y in z]"),
    ],
    "modules_are_short": [(EDGE, "x = 1\n" * 401)],
    "names_say_what": [
        ("gateway/utils.py", ""),
        ("gateway/helpers/x.py", ""),
        ("gateway/mqtt_handler.py", ""),
        (EDGE, "class SessionManager: ..."),
        (EDGE, "class HTTPHandler: ..."),
        (EDGE, "class BaseLog: ..."),
    ],
    "nothing_is_mocked": [
        ("tests/x.py", "from unittest import mock"),
        ("tests/x.py", "from unittest.mock import Mock"),
        ("tests/x.py", "import unittest.mock"),
        ("tests/x.py", "def test(mocker): ..."),
    ],
    "module_says_its_noun": [(EDGE, "x = 1"), (EDGE, '"""A sentence that\ngoes on."""'), (EDGE, "")],
    "clients_have_one_home": [
        (EDGE, "import redis.asyncio"),
        ("gateway/adapters/log/x.py", "import mqtt5"),
        ("gateway/adapters/http.py", "import never_heard_of"),
        (EDGE, "def f():\n    from starlette import routing"),
        ("ecommerce/orders/service.py", "import apprise"),
    ],
    "imports_respect_the_door": [
        (EDGE, "from gateway import App"),
        (EDGE, "import gateway"),
        ("gateway/cli/up.py", "from chat import app"),
        ("chat/app.py", "from devices.registry import Device"),
        ("chat/app.py", "from gateway.core.event import Event"),
        ("chat/app.py", "from gateway import errors"),
    ],
    "nothing_is_asserted": [(EDGE, "def f(x):\n    assert x"), ("chat/app.py", "assert True")],
    "tasks_have_owner_and_name": [
        (EDGE, "t = asyncio.create_task(f())"),
        (EDGE, "group.create_task(f())"),
        (EDGE, "asyncio.create_task(f(), name='lost')"),
        (EDGE, "asyncio.get_running_loop().create_task(f(), name='lost')"),
        (EDGE, "t = asyncio.ensure_future(f())"),
    ],
    "bounds_are_in_one_place": [(EDGE, "QUEUE = 7  # -> limits.py")],
    "exceptions_have_reasons": [
        (EDGE, "x = 1  # noqa: S603"),
        (EDGE, "x = 1  # noqa"),
        (EDGE, "x = 1  # type: ignore[attr-defined]"),
        (EDGE, "x = 1  # pragma: no cover"),
    ],
    "core_tests_are_plain": [
        ("tests/gateway/core/test_x.py", "async def test(): ..."),
        ("tests/gateway/core/test_x.py", "import pytest\n@pytest.fixture\ndef f(): ..."),
        ("tests/gateway/core/test_x.py", "import time"),
    ],
}

#: What no rule may find fault with.
ALLOWED = [
    (CORE, "from http import HTTPStatus\nfrom urllib.parse import quote\nimport msgspec\nfrom gateway import limits"),
    (EDGE, "from gateway import limits\nfrom gateway.core.topic import Topic\nimport asyncio"),
    (
        EDGE,
        "async def f():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(g(), name='tail 0')",
    ),
    (EDGE, "x = 1  # noqa: S603 - the arguments are ours"),
    (EDGE, "class DatabaseLimits: ...\nclass Handled: ...\nsay = '# noqa: S603'"),
    ("gateway/adapters/log/append.py", "import redis.asyncio"),
    ("gateway/cli/__init__.py", "from gateway import App"),
    ("chat/app.py", "from gateway import App\nfrom gateway.sql import Inbox\nfrom chat.rooms import Room"),
    ("tests/x.py", "def test():\n    assert 1"),
    ("chat/migrations/x.py", "x = 1\n" * 401),
]


def found(rule: Callable[[Source], Findings], sources: list[Source]) -> list[str]:
    return [f"{source.path}:{finding}" for source in sources for finding in rule(source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule: Callable[[Source], Findings]) -> None:
    broken = found(rule, files(".py"))
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_finds_what_is_planted(rule: Callable[[Source], Findings]) -> None:
    missed = [text for path, text in PLANTED[rule.__name__] if not found(rule, [Source(path, text)])]
    assert not missed


@pytest.mark.parametrize(("path", "text"), ALLOWED)
def test_no_rule_finds_fault_with_what_is_allowed(path: str, text: str) -> None:
    assert [finding for rule in RULES for finding in found(rule, [Source(path, DOC + text)])] == []


# --- the map ---------------------------------------------------------------------------------------------------------


def mapped(architecture: str) -> dict[str, str]:
    """Path -> its line in the table below `## The map of files`. A folder's path ends with `/`."""
    _, _, section = architecture.partition("\n## The map of files\n")
    return dict(re.findall(r"^\|\s*`([^`]+)`\s*\|\s*(.+?)\s*\|\s*$", section.partition("\n## ")[0], re.MULTILINE))


def plain(sentence: str) -> str:
    return sentence.replace("`", "").replace("\\|", "|").strip().rstrip(".")


def lies(rows: dict[str, str], sources: list[Source]) -> list[str]:
    """How the map differs from the files: rows from first lines, and modules of the gateway without a row."""
    by_path = {re.sub(r"__init__\.py$", "", source.path): source for source in sources}
    by_path |= {source.path: source for source in sources}
    wrong = []
    for path, line in rows.items():
        source = by_path.get(path)
        if source is None:
            if not (ROOT / path).exists():
                wrong.append(f"{path} is on the map, and nowhere else")
        elif plain((source.docstring or [""])[0]) != plain(line):
            wrong.append(f"{path}: the map says {line!r}, the file says {source.docstring[:1]}")
    for source in sources:
        if source.within("gateway/") and not {source.path, source.path.removesuffix("__init__.py")} & rows.keys():
            wrong.append(f"{source.path} is not on the map")
    return wrong


def test_the_map_of_files_is_true() -> None:
    rows = mapped((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert rows, "ARCHITECTURE.md has no table below `## The map of files`"
    wrong = lies(rows, files(".py", ".lua"))
    assert not wrong, "\n" + "\n".join(wrong)


def test_a_false_map_is_found() -> None:
    rows = mapped(
        "\n## The map of files\n\n| file | what |\n|---|---|\n| `gateway/a.py` | A noun. |\n| `gone.py` | X |\n"
    )
    assert rows == {"gateway/a.py": "A noun.", "gone.py": "X"}
    sources = [Source("gateway/a.py", '"""Another noun."""'), Source("gateway/b/__init__.py", DOC)]
    assert len(lies(rows, sources)) == 3
    assert not lies({"gateway/a.py": "A `noun`", "gateway/b/": "A noun."}, [Source("gateway/a.py", DOC), sources[1]])


# --- bounds, keys, the door, tests of core ---------------------------------------------------------------------------


def limits() -> Source:
    return Source("gateway/limits.py", (ROOT / "gateway/limits.py").read_text(encoding="utf-8"))


def test_every_bound_has_its_reason() -> None:
    assert found(bounds_have_reasons, [limits()]) == []
    assert found(bounds_have_reasons, [Source("x.py", "A = 1\n#: Why.\nB = 2\nC = 3\n\nD: Final = 4\n")]) == [
        "x.py:1: A has no `#:` above it: its reason, and what happens at it",
        "x.py:6: D has no `#:` above it: its reason, and what happens at it",
    ]


def test_every_bound_bounds_something() -> None:
    """A bound that nothing reads is a promise that nobody keeps."""
    used = set[str]().union(*(source.words for source in files(".py") if not source.within("tests/", "benchmarks/")))
    idle = [name for _, name in constants(limits()) if name not in used]
    assert not idle, f"nothing reads {', '.join(idle)}"


def test_every_lua_file_names_its_keys() -> None:
    assert found(keys_are_named, files(".lua")) == []


@pytest.mark.parametrize(
    "script",
    [
        "-- KEYS[1] the stream\nreturn redis.call('XLEN', KEYS[2])",
        "-- KEYS[1] the stream\n-- KEYS[2] the heads\nreturn redis.call('XLEN', KEYS[1])",
        "-- KEYS[1] the stream\nfor i = 1, #KEYS do redis.call('DEL', KEYS[i]) end return KEYS[1]",
        "-- KEYS[1] the stream\nreturn redis.call('HGET', KEYS[1] .. ':heads', 'x')",
    ],
)
def test_a_lua_file_that_hides_a_key_is_found(script: str) -> None:
    assert found(keys_are_named, [Source("x.lua", script)])


def test_the_door_is_narrow() -> None:
    door = Source("gateway/__init__.py", (ROOT / "gateway/__init__.py").read_text(encoding="utf-8"))
    listed = re.search(r"^__all__ = \[([^]]*)\]", door.text, re.MULTILINE)
    assert listed, "the door says what it exports: __all__ = [...]"
    names = re.findall(r'"(\w+)"', listed[1])
    assert 0 < len(names) < 10
    assert {name.rpartition(".")[2] for _, name in door.imports} - {"annotations"} <= set(names)


def test_every_folder_of_the_gateway_is_a_package() -> None:
    """A folder without `__init__.py` imports all the same, and import-linter does not see what is in it."""
    folders = {path.parent for path in (ROOT / "gateway").rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_every_file_of_core_has_its_test_file() -> None:
    modules = {path.stem for path in (ROOT / "gateway/core").glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests/gateway/core").glob("test_*.py")}
    untested = sorted(modules - tested)
    assert not untested, f"core files without a test file: {', '.join(untested)}"


# --- what we ship ----------------------------------------------------------------------------------------------------


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_holds_the_gateway_alone() -> None:
    wheel = pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["gateway"]
    assert not wheel.keys() & {"include", "force-include"}
    assert (ROOT / "gateway/py.typed").exists(), "without py.typed users' mypy takes our types for Any"


def test_every_dependency_has_a_home() -> None:
    """What we import we declare, and what we declare has one place that imports it."""
    modules = {"pyjwt": "jwt", "prometheus-client": "prometheus_client"}
    project = pyproject()["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {Requirement(line).name for line in lines}
    assert {modules.get(name, name) for name in declared} == CLIENTS.keys()


def test_every_exception_in_pyproject_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8-tidy-imports]")]
    codes = [
        line for line in lint.splitlines() if re.search(r'"(?:[A-Z]+\d*)"', line) and not line.startswith("select")
    ]
    assert codes
    assert [line for line in codes if not re.search(r"#\s*\w+.*\w", line)] == []


def locked(lock: str) -> dict[str, tuple[str, int]]:
    """Package -> its version and how many hashes it is locked with."""
    found: dict[str, tuple[str, int]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text(encoding="utf-8")):
        if pin := re.match(r"([\w.-]+)==(\S+)", block):
            found[pin[1]] = (pin[2], block.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_is_hashed_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(
        r"https?:|//|--(?:index|extra-index|find-links|trusted-host)|(?<=[a-z])\.(?:org|com|net|io)\b", text
    )
    assert [name for name, (_, hashes) in locked(lock).items() if not hashes] == []


@pytest.mark.parametrize("lock", ["requirements/run.txt", "requirements/dev.txt"])
def test_the_lock_holds_what_we_need_above_its_floor(lock: str) -> None:
    pins = locked(lock)
    for line in pyproject()["project"]["dependencies"]:
        need = Requirement(line)
        assert need.specifier.contains(pins[need.name][0]), f"{need} is locked as {pins[need.name][0]}: run tools/lock"
    for name, floor in FLOORS.items():
        assert Version(pins[name][0]) >= Version(floor), name


def test_the_locks_agree() -> None:
    """`make test` must try what `make run` runs."""
    run, dev = locked("requirements/run.txt"), locked("requirements/dev.txt")
    assert {name: version for name, (version, _) in run.items()} == {name: dev[name][0] for name in run}


@pytest.mark.parametrize("lock", files("package-lock.json"), ids=lambda lock: lock.path)
def test_no_lock_of_npm_names_a_host(lock: Source) -> None:
    packages = {path: package for path, package in json.loads(lock.text)["packages"].items() if path}
    assert packages
    assert [path for path, package in packages.items() if "resolved" in package or "integrity" not in package] == []


def test_no_file_names_a_registry_or_one_machine() -> None:
    ours = files(".py", ".lua", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".js", ".ts", ".conf", ".sh", ".c")
    ours += [Source(path, (ROOT / path).read_text(encoding="utf-8")) for path in ("Makefile", ".ci/run", "tools/lock")]
    assert found(strays, ours) == []
    assert found(strays, [Source("x.md", "see /" + "work/main, https://py" + "pi.org/simple and /" + "root/x")])


def foreign(tracked: dict[str, int]) -> list[str]:
    """Return the paths, each with its size in bytes, of what is built, of others, or too large to have been written."""
    made = re.compile(r"(^|/)(node_modules|dist|__pycache__)/|^gateway/pages/|\.min\.\w+$|\.(whl|pyc|so|map)$")
    locks = (*LOCKS, "package-lock.json")
    return [p for p, size in tracked.items() if made.search(p) or (size > TRACKED_BYTES and not p.endswith(locks))]


def test_nothing_built_or_foreign_is_committed() -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    tracked = {path: (ROOT / path).stat().st_size for path in listed.split("\0") if (ROOT / path).is_file()}
    if "Makefile" not in tracked:
        pytest.skip("no git, or not in its own repository: whoever has one looks")
    assert foreign(tracked) == []


def test_what_is_built_or_foreign_is_found() -> None:
    built = ("gateway/pages/index.html", "web/node_modules/x.js", "web/dist/a.js", "docs/d3.min.js", "a/b.whl")
    small = dict.fromkeys((*built, "web/src/chat/page.ts", "requirements/dev.txt"), 1)
    large = {"docs/film.mp4": TRACKED_BYTES + 1, "requirements/dev.txt": TRACKED_BYTES + 1}
    assert foreign(small | large) == [*built, "docs/film.mp4"]


def test_the_words_in_the_documents_are_the_words_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"setup", "check", "test", "run", "walk", "bench", "soak"} <= targets
    asked = re.compile(r"(?:^[ \t]*(?:\$ )?|`)make ([a-z]+)", re.MULTILINE)
    for path in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        assert set(asked.findall((ROOT / path).read_text(encoding="utf-8"))) <= targets, path
    assert {"run"} <= set(asked.findall((ROOT / "README.md").read_text(encoding="utf-8")))


def test_each_promise_names_tests_that_are_there() -> None:
    said = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    file, wrong = "", []
    for name in re.findall(r"`((?:…::|[\w/]+\.py)[^`]*)`", said):
        path, _, test = name.partition("::")
        file = file if path == "…" else path
        source = ROOT / "tests" / file
        if not source.is_file() or (test and f"def {test}(" not in source.read_text(encoding="utf-8")):
            wrong.append(f"{name} ({file})")
    assert wrong == []

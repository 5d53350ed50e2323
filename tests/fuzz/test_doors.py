"""Hostile bytes at every door: a value or a typed error, never another exception, and in bounded time."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway import limits
from gateway.errors import BadPayload, ServerMissing
from tests.fuzz.target import Broken, Target
from tests.fuzz.targets import TARGETS
from tests.servers import missing

#: Seconds of CPU, not of the clock, for one input of at most a few kilobytes: a guard against work that grows faster
#: than its input.
ONE_WITHIN = 5.0
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
#: Bytes that mean something at one door or another.
TOKENS = [
    b"{",
    b"}",
    b"[",
    b'"',
    b"\\",
    b"\n",
    b"\r\n",
    b"/",
    b"+",
    b"#",
    b"\x00",
    b"\xff",
    b"%",
    b"\xed\xa0\x80",
    b"=",
    b".",
]


@st.composite
def near(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some of it cut out, doubled, swapped, flipped, or put in from elsewhere."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 16))
        match draw(st.integers(0, 5)):
            case 0:
                del data[at : at + size]
            case 1:
                data[at:at] = data[at : at + size] * draw(st.integers(1, 50))
            case 2 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 3:
                data[at:at] = draw(st.sampled_from(TOKENS)) * draw(st.sampled_from([1, 2, 300]))
            case 4:
                data[at : at + size] = draw(st.binary(max_size=16))
            case _:
                data += draw(st.sampled_from(seeds))[at:]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_every_door_holds(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(near(target.seeds), st.binary(max_size=300), st.text(max_size=100).map(lambda s: s.encode())))
    @example(b"")
    def hold(data: bytes) -> None:
        began = time.thread_time()
        target(data)
        assert time.thread_time() - began < ONE_WITHIN

    hold()


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name](seed)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
@pytest.mark.parametrize("name", TARGETS)
def test_a_large_input_is_no_door_to_a_standstill(name: str, size: int) -> None:
    for token in (*TOKENS, b"a/", b"[1,", b'{"a":', b"a.", b"-1,", b"\x82\xa1a"):
        data = token * (size // len(token))
        began = time.thread_time()
        TARGETS[name](data)
        TARGETS[name](TARGETS[name].seeds[0] + data)
        assert time.thread_time() - began < 2 * ONE_WITHIN, token


def test_only_errors_of_ours_that_say_something_pass_a_target() -> None:
    def planted(error: Exception) -> Target:
        def door(data: bytes) -> None:
            raise error

        return Target(door, (b"",))

    planted(BadPayload("not JSON"))(b"")
    for error in (BadPayload(""), BadPayload("x" * (limits.PAYLOAD_BYTES + 1))):
        with pytest.raises(Broken):
            planted(error)(b"")
    with pytest.raises(ValueError, match="planted"):
        planted(ValueError("planted"))(b"")


def test_random_bytes_do_not_end_a_process() -> None:
    """Deeply nested input must not exhaust the C stack, which no exception would tell: another process tries it."""
    seed = random.randrange(2**32)
    ask = (
        "import random, sys\n"
        "from tests.fuzz.targets import TARGETS\n"
        f"chance = random.Random({seed})\n"
        "for name, target in TARGETS.items():\n"
        "    for token in (b'[', b'{\"a\":', b'\\x91', b'\\x81\\xa1a', b'\\x0a', b'a.', b'(', b'[['):\n"
        "        target(token * 200_000)\n"
        "    for _ in range(50):\n"
        "        target(chance.randbytes(chance.randrange(2_000)))\n"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", ask], cwd=root, capture_output=True, text=True, timeout=110, check=False
    )
    assert told.returncode == 0, f"seed {seed}: {told.stderr}"


def guided(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The fuzzer that follows the branches, let loose on one door, from its seeds."""
    if find_spec("atheris") is None:
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("atheris is not installed here, see pyproject.toml")
        missing(ServerMissing("atheris", ".venv/bin/pip install atheris"))
    inputs = folder / "inputs"
    inputs.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds if name in TARGETS else ()):
        (inputs / f"seed-{number}").write_bytes(seed)
    line = [sys.executable, "-m", "tests.fuzz.guided", name, *options, "-max_len=4096", "-timeout=10"]
    return subprocess.run(
        [*line, f"-artifact_prefix={folder}/", str(inputs)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def found_nothing(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-4000:]
    assert "cov:" in told.stderr


def test_the_fuzzer_runs_and_finds_what_is_planted_behind_three_branches(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    found_nothing(guided("filters", tmp_path / "whole", "-runs=200"))
    told = guided("planted", tmp_path, "-runs=200000", "-seed=1")
    assert "Broken: planted" in told.stdout + told.stderr
    assert told.returncode != 0
    assert [file.read_bytes()[:3] for file in tmp_path.glob("crash-*")] == [b"d/#"]


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_that_follows_the_branches_finds_nothing(name: str, tmp_path: Path) -> None:
    found_nothing(guided(name, tmp_path, f"-max_total_time={os.environ.get('FUZZ_SECONDS', '60')}"))

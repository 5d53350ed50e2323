"""Hostile bytes at every door: a value or a typed error, never another exception, and in bounded time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import Broken, Target
from tests.fuzz.targets import TARGETS

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


def test_a_door_that_breaks_is_noticed() -> None:
    def planted(data: bytes) -> None:
        if b"\xed" in data:
            raise UnicodeDecodeError("utf-8", data, 0, 1, "planted")

    target = Target(planted, (b"\xed",))
    with pytest.raises(UnicodeDecodeError):
        target(b"a\xedb")
    with pytest.raises(Broken):
        TARGETS["tokens"].__class__(lambda _: _broken(), (b"",))(b"")


def _broken() -> None:
    raise Broken("planted")


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


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_that_follows_the_branches_finds_nothing(name: str, tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris is missing: .venv/bin/pip install atheris")
    for number, seed in enumerate(TARGETS[name].seeds):
        (tmp_path / f"seed-{number}").write_bytes(seed)
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    line = [
        sys.executable,
        "-m",
        "tests.fuzz.guided",
        name,
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
    ]
    root = Path(__file__).parents[2]
    told = subprocess.run([*line, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-4000:]
    assert "cov:" in told.stderr

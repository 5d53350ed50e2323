"""One fuzz target under atheris: python -m tests.fuzz.guided TARGET [options of libFuzzer] [folder of inputs]

``planted`` is a door that breaks at three bytes in a row, which chance alone finds once in 16 million.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.target import Broken, Target
    from tests.fuzz.targets import TARGETS


@atheris.instrument_func  # type: ignore[untyped-decorator]  # atheris has no types
def _planted(data: bytes) -> None:
    if data[:1] == b"d" and data[1:2] == b"/" and data[2:3] == b"#":
        raise Broken("planted")


PLANTED = {"planted": Target(_planted, (b"",))}

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], (TARGETS | PLANTED)[name])
    atheris.Fuzz()

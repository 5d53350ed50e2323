"""Another process's time of day, hours off at the tester's word: a library of sixty lines, loaded before its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.errors import ServerMissing
from tests.servers import missing

#: Only the time of day is moved: pauses and deadlines that are measured by CLOCK_MONOTONIC go on as they were.
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
    close(file);
}

int clock_gettime(clockid_t which, struct timespec *at) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, at);
    if (!failed && ahead && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return (time_t)-1;
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The time of day of whoever is started in its ``environment``; right until it is moved."""

    def __init__(self, folder: Path, library: Path, name: str) -> None:
        self._file = folder / f"{name}.clock"
        self._write(0)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "FAULT_CLOCK": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        """Move it to so many seconds before the right time; negative: behind."""
        self._write(seconds)

    def _write(self, seconds: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def library(folder: Path) -> Path:
    """Compile it into ``folder``; skips where there is no Linux or no compiler (with ``CI=true``, fails)."""
    if sys.platform != "linux":
        pytest.skip("a clock of its own is given to a process by LD_PRELOAD, which is of Linux")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        missing(ServerMissing("a C compiler", "apt install gcc libc6-dev"))
    source, made = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made

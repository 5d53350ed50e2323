"""A server from an image, where Docker answers and the machine has no package: a `Server` by testcontainers.

The container has the plan of the child process, its folder, and the machine's network and process ids; so ports, Unix
sockets, signals, kills and restarts are the same. Written for machines without the packages, and not run where it was
written: no Docker engine ran there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from requests.exceptions import ConnectionError, ReadTimeout
from testcontainers.core.container import DockerContainer

from gateway.adapters.child import Child, Plan, Server

IMAGES = {"redis": "redis:7", "valkey": "valkey/valkey:9", "mosquitto": "eclipse-mosquitto:2"}


def docker_answers() -> bool:
    """Is there a Docker engine to start containers on?"""
    program = shutil.which("docker")
    if program is None:
        return False
    try:
        return subprocess.run([program, "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class Contained(Server):
    """A server of the image of its name."""

    def _launch(self) -> Child:
        plan = self._plan
        container = DockerContainer(IMAGES[plan.name], network_mode="host", pid_mode="host")
        container.with_volume_mapping(str(plan.data), str(plan.data), "rw").with_command(list(plan.argv[1:]))
        # Its own entry point would change the owner of the folder, or write over the configuration.
        container.with_kwargs(entrypoint=[plan.argv[0]], user=f"{os.getuid()}:{os.getgid()}")
        return _Inside(container, plan)


class _Inside:
    """The one process of a container, as `subprocess.Popen` would show it."""

    def __init__(self, container: DockerContainer, plan: Plan) -> None:
        self._plan = plan
        self._started = container.start()
        self._container: Any = self._started.get_wrapped_container()
        self._container.reload()
        self.pid = int(self._container.attrs["State"]["Pid"])
        self._ended: int | None = None

    def poll(self) -> int | None:
        if self._ended is None:
            self._container.reload()
            if self._container.status == "exited":
                return self.wait()
        return self._ended

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            self._container.kill(signal=int(sig))

    def kill(self) -> None:
        self.send_signal(9)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, keep what it printed, and remove the container."""
        if self._ended is None:
            try:
                self._ended = int(self._container.wait(timeout=timeout)["StatusCode"])
            except (ReadTimeout, ConnectionError) as error:  # which of the two depends on the engine's transport
                raise subprocess.TimeoutExpired(self._plan.name, timeout or 0.0) from error
            (self._plan.data / f"{self._plan.name}.log").write_bytes(self._container.logs())
            self._started.stop()
        return self._ended

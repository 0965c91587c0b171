"""One of the repository's Compose files, started by podman-compose as a person would start it with Docker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from stack.prometheus_api import wait

from deploy.environment import make
from deploy.native.stack import ROOT, write_secret

from .engine import Podman
from .images import BUSYBOX

COMPOSE = str(Path(sys.executable).with_name("podman-compose"))
OTLP_URL = "http://127.0.0.1:4318"
"""In the tests' own network the customary ports are free."""


class Project:
    """``file`` is a path in the repository; ``folder`` gets the ``.env`` that ``make compose-up`` would make."""

    otlp_url = OTLP_URL
    prometheus_url = "http://127.0.0.1:9090"
    jaeger_url = "http://127.0.0.1:16686"

    def __init__(self, podman: Podman, file: str, folder: Path) -> None:
        self.podman = podman
        self._text = (ROOT / file).read_text()
        content: dict[str, Any] = yaml.safe_load(self._text)
        self.name: str = content["name"]
        self.services = [name for name in content["services"] if name != "grafana"]
        self.settings = folder / "env"
        make(self.settings)
        self.token = dict(line.split("=") for line in self.settings.read_text().splitlines())["OTLP_TOKEN"]
        self.token_file = folder / "token"
        write_secret(self.token_file, self.token)

    def compose(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``docker compose WORDS`` from the root of the repository, whose own ``.env`` is not read."""
        # A file's folder would be the project's; --project-directory is Docker's alone.
        options = ("--in-pod", "false", "--env-file", str(self.settings), "--file", "-")
        return self.podman.run(COMPOSE, *options, *words, cwd=ROOT, stdin=self._text, **variables)

    def up(self, *services: str, **variables: str) -> None:
        done = self.compose("up", "--detach", *services, **variables)
        assert done.returncode == 0, done.stdout + done.stderr

    def container(self, service: str) -> str:
        return f"{self.name}_{service}_1"

    def state(self, service: str) -> dict[str, Any]:
        return self.podman.inspect(self.container(service))["State"]

    def pid(self, service: str) -> int:
        """The container's main process."""
        return int(self.state(service)["Pid"])

    def address(self, service: str, network: str) -> str:
        networks = self.podman.inspect(self.container(service))["NetworkSettings"]["Networks"]
        return str(networks[network]["IPAddress"])

    def from_network(self, network: str, script: str) -> subprocess.CompletedProcess[str]:
        """A shell in a container of its own there."""
        # The shell stays the first process, since that one cannot be ended by a time limit.
        return self.podman.run("podman", "run", "--rm", "--network", network, BUSYBOX, "sh", "-c", f"{script}\nexit $?")

    def until_running(self, service: str, other_than: int = 0) -> int:
        """The main process' id, once there is one; ``other_than`` is one that has been killed."""
        pid = wait(lambda: self.pid(service), lambda pid: pid not in (0, other_than))
        assert pid not in (0, other_than), self.podman.logs(self.container(service))
        return pid

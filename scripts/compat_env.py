"""Builds one virtual environment per old OpenHands release, once, from pins that are in the repository.

    python scripts/compat_env.py [VERSION ...]          build what is missing or out of date; print its interpreters
    python scripts/compat_env.py --servers              the same for releases whose agent server is tested
    python scripts/compat_env.py --pairs                the same for releases that fail with a newer litellm
    python scripts/compat_env.py --lock [VERSION ...]   resolve the pins anew (needs uv and the package index)

Each release gets the dependencies of its day, except OpenTelemetry's, which are of the day this was locked: the plugin
wants new ones, and a user who updates it gets those. Environments stand in ``.cache/compat/VERSION``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "tests" / "compat" / "requirements"
CACHE = ROOT / ".cache" / "compat"
UNTIL = {
    "1.0.0": "2025-11-07",
    "1.5.2": "2025-12-12",
    "1.10.0": "2026-01-27",
    "1.21.0": "2026-05-08",
    "1.30.0": "2026-07-02",
    "1.43.1": "2026-08-22",
    "1.49.1": "2026-09-18",
}
"""Releases that are tested, and the day after each came out: what is newer does not count when it is resolved."""
SERVER = "server-"
SERVERS_UNTIL = {f"{SERVER}1.1.0": "2025-11-12", f"{SERVER}1.15.0": "2026-03-27"}
"""The same for agent servers and their clients. An old server does not start with a FastAPI of today."""
PAIR = "pair-"
PAIRS_UNTIL = {f"{PAIR}1.49.1": "2026-11-22"}
"""Releases together with what Agent Canvas, which starts them without pins, had beside them on that day."""
ALL_UNTIL = UNTIL | SERVERS_UNTIL | PAIRS_UNTIL
LMNR = ("lmnr", "lmnr-claude-code-proxy")
NEEDS_NEW_LMNR = frozenset({"1.21.0", "1.43.1"})
"""Laminar of that day pins an OpenTelemetry that the plugin does not support; a newer one is allowed."""
NEEDS_OVERRIDE = frozenset({"1.30.0"})
"""No Laminar that the release allows goes with an OpenTelemetry that the plugin supports, so its pin is ignored."""
CAPPED = {
    f"{PAIR}1.49.1": ("agent-client-protocol<0.11",),
    # It calls ``set_session_model``, which 0.11 took away.
    "1.43.1": ("agent-client-protocol<0.11",),
    # It takes ``cache_creation_tokens`` for there where 1.95 has deleted it, and raises at each answer.
    "1.49.1": ("litellm<1.95",),
}
"""What a release allows but does not work with."""
OPENTELEMETRY_UNTIL = "2026-11-22"
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")


class BuildError(Exception):
    """What happened and what to do, in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", metavar="VERSION", nargs="*", help=f"of {', '.join(ALL_UNTIL)}")
    parser.add_argument("--servers", action="store_true", help="those with an agent server, where none is named")
    parser.add_argument("--pairs", action="store_true", help="those with a newer litellm, where none is named")
    parser.add_argument("--lock", action="store_true", help="resolve the pins anew")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.versions) - set(ALL_UNTIL)
    if unknown:
        parser.error(f"unknown release: {', '.join(sorted(unknown))}")
    try:
        kind = SERVERS_UNTIL if arguments.servers else PAIRS_UNTIL if arguments.pairs else UNTIL
        versions = arguments.versions or list(kind)
        if arguments.lock:
            for version in versions:
                lock(version)
        # Several at once: what takes time is the network and the disk.
        with ThreadPoolExecutor(4) as builders:
            for python in builders.map(build, versions):
                print(python, flush=True)
    except BuildError as error:
        print(f"compat_env: {error}", file=sys.stderr)
        return 1
    return 0


def lock(version: str) -> None:
    """Write the pins of one release."""
    uv = shutil.which("uv")
    if uv is None:
        raise BuildError("--lock needs uv on PATH: pip install uv")
    number = version.removeprefix(SERVER).removeprefix(PAIR)
    release = [f"openhands-sdk=={number}", f"openhands-tools=={number}", *CAPPED.get(version, ())]
    # What tests a server runs in the newest environment.
    beside = (f"openhands-agent-server=={number}",) if version.startswith(SERVER) else TEST_TOOLS
    wanted = [*release, *own_requirements(), *beside]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        if version in NEEDS_OVERRIDE:
            overrides.write("\n".join((*opentelemetry_requirements(), "opentelemetry-semantic-conventions>=0.64b0")))
            overrides.flush()
        resolved = run([*compile_command(uv, version), f"--override={overrides.name}"], given="\n".join(wanted))
    PINS.mkdir(parents=True, exist_ok=True)
    (PINS / f"{version}.txt").write_text(resolved)


def build(version: str) -> Path:
    """Make the environment agree with its pins; returns its interpreter."""
    pins = PINS / f"{version}.txt"
    if not pins.exists():
        raise BuildError(f"no pins for {version}: run 'python scripts/compat_env.py --lock {version}'")
    place = CACHE / version
    python = place / "bin" / "python"
    stamp = place / "built-from"
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaging = [own["build-system"], own["project"], own["tool"]["hatch"]]
    wanted = hashlib.sha256(f"{pins.read_text()}{json.dumps(packaging)}{sys.version}".encode()).hexdigest()
    if stamp.exists() and python.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv is not None:
        run([uv, "venv", "--quiet", f"--python={sys.executable}", str(place)])
        install = [uv, "pip", "install", "--quiet", f"--python={python}"]
    else:
        run([sys.executable, "-m", "venv", str(place)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*install, "--no-deps", "-r", str(pins)])
    run([*install, "--no-deps", "-e", str(ROOT)])
    stamp.write_text(wanted)
    return python


def own_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["otlp"], *extras["spans"]]


def opentelemetry_requirements() -> list[str]:
    return [requirement for requirement in own_requirements() if requirement.startswith("opentelemetry-")]


def opentelemetry_packages() -> list[str]:
    """All of them that the newest environment has."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    names = {package["name"] for package in packages}
    return sorted(name for name in names if name.startswith("opentelemetry-") and not name.endswith("-ai"))


def compile_command(uv: str, version: str) -> list[str]:
    exempt = [*opentelemetry_packages(), *(LMNR if version in NEEDS_NEW_LMNR else ())]
    return [
        *(uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
        *("--prerelease=allow", f"--python={sys.executable}", f"--exclude-newer={ALL_UNTIL[version]}"),
        *(f"--exclude-newer-package={name}={OPENTELEMETRY_UNTIL}" for name in exempt),
        "-",
    ]


def run(words: Sequence[str], given: str | None = None) -> str:
    done = subprocess.run(words, input=given, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or done.stdout.strip()
        raise BuildError(f"'{' '.join(words[:3])} ...' failed:\n{reason}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

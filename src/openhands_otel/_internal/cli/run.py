"""``openhands-otel run``: a command under auto-instrumentation, with defaults that suit the viewer of this machine.

This process becomes the command: process id, signals, exit code and standard streams are the command's. What it gives
to the command is an environment, and all that is started below inherits it, as under ``opentelemetry-instrument``:
variables, and in PYTHONPATH the ``site`` of a bundle that is kept in the user's cache (``launch/bundle.py``). There a
Python finds a ``sitecustomize`` that waits for OpenHands, whether this package is installed there or not. It is taken
out again where OpenHands starts something for the agent (``launch/tool_environment.py``). A Python that does
not look at PYTHONPATH (``-I``, ``-E``, ``-S``) gets ``launch/bootstrap.py`` in front of its program.

Two other ways were tried. Running a Python program inside this very process cannot give it another interpreter, nor
options such as ``-u`` or ``-X``. The bootstrap for every Python, and nothing in PYTHONPATH, loses the application's
own children: pytest's and joblib's workers, ``subprocess.run([sys.executable, ...])``, servers that execute themselves
anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from openhands_otel._internal import launch
from openhands_otel._internal.cli import PROGRAM, CommandError
from openhands_otel._internal.export.config_file import CONFIG_FILE
from openhands_otel._internal.export.otlp_config import ENDPOINT, TRACES_ENDPOINT, Protocol
from openhands_otel._internal.host.network import VIEWER_URL
from openhands_otel._internal.launch import bundle
from openhands_otel._internal.launch.command import PythonProgram, find, is_frozen, read_python, with_bootstrap
from openhands_otel._internal.launch.footprint import COMMAND, MARKER, Footprint

GRPC_PORT: Final = 4317

_METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_OWN_ONLY = "OPENHANDS_OTEL_OWN_VIEWER_ONLY"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_METRICS_PROTOCOL = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{PROGRAM} run [options] -- CMD ..."
    parser.epilog = "OTEL_* variables that are set already stay; an option given here wins over them."
    parser.add_argument("--endpoint", metavar="URL", help=f"where telemetry goes (default: {VIEWER_URL})")
    parser.add_argument("--protocol", choices=("http/protobuf", "grpc"), help="how (default: by the endpoint's port)")
    parser.add_argument("--service-name", metavar="NAME", help="service.name (default: the command's name)")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token that the receiver wants")
    parser.add_argument("words", metavar="CMD ...", nargs=argparse.REMAINDER, help="the command and its arguments")


def run(arguments: argparse.Namespace) -> int:
    words: list[str] = list(arguments.words)
    if words[:1] == ["--"]:
        del words[0]
    if not words:
        raise CommandError(f"no command given: {PROGRAM} run [options] -- CMD ...", code=2)
    file = found(words[0])
    python = read_python(file, words)
    way = way_in()
    if way.problem:
        print(f"{PROGRAM}: measures only where openhands-otel is installed: {way.problem}", file=sys.stderr)
    if is_frozen(file):
        print(f"{PROGRAM}: {words[0]} is a frozen program: it is not measured, Pythons that it starts are "
              "(start it from its source: docs/launching.md)", file=sys.stderr)  # fmt: skip
    environment = environment_of(words, python, arguments, way)
    if python is not None and python.passes_sitecustomize:
        _become(python.interpreter, with_bootstrap(python, way.launch), environment)
    _become(file, words, environment)


@dataclass(frozen=True, slots=True)
class Way:
    """How Pythons come to us: what PYTHONPATH names, where the bootstrap stands, and why it is no bundle if so."""

    site: Path
    launch: Path
    problem: str | None = None


def way_in() -> Way:
    """The bundle in the cache; what is installed here where that cannot be had."""
    try:
        folder = bundle.kept()
    except (bundle.BundleError, OSError) as error:
        installed = Path(launch.__file__).parent
        return Way(installed / "site", installed, f"{error} (set XDG_CACHE_HOME to a folder that can be written)")
    return Way(bundle.site_of(folder), bundle.launch_of(folder))


def environment_of(
    words: Sequence[str], python: PythonProgram | None, options: argparse.Namespace | None, way: Way
) -> dict[str, str]:
    """What the command gets; without options what it gets where none is given."""
    options = options or argparse.Namespace(endpoint=None, protocol=None, service_name=None, token_file=None)
    return instrumented(os.environ, wanted(options, os.environ, _name(words, python)), way)


def wanted(options: argparse.Namespace, environment: Mapping[str, str], name: str) -> dict[str, str]:
    """Variables that the options ask for, and defaults for those that nobody has set."""
    configured = environment.get(CONFIG_FILE, "").strip()
    if configured and (options.endpoint or options.protocol or options.service_name):
        raise CommandError(f"{CONFIG_FILE} is set and would win over the option: unset it, or say it there", code=2)
    for option, variable in ((options.endpoint, _METRICS_ENDPOINT), (options.protocol, _METRICS_PROTOCOL)):
        if option and environment.get(variable):
            raise CommandError(f"{variable} is set and would win over the option: unset one of them", code=2)
    asked: dict[str, str | None] = {
        ENDPOINT: _checked_url(options.endpoint),
        _PROTOCOL: options.protocol,
        "OTEL_SERVICE_NAME": options.service_name,
        "OPENHANDS_OTEL_TOKEN_FILE": _checked_file(options.token_file),
    }
    chosen = {variable: value for variable, value in asked.items() if value}
    if configured:
        # It stands in the place of all variables that would be set here.
        return chosen
    known = {**environment, **chosen}
    defaults = {
        ENDPOINT: None if known.get(_METRICS_ENDPOINT) else VIEWER_URL,
        _PROTOCOL: _protocol_for(known.get(_METRICS_ENDPOINT) or known.get(ENDPOINT) or VIEWER_URL),
        "OTEL_SERVICE_NAME": None if "service.name=" in known.get("OTEL_RESOURCE_ATTRIBUTES", "") else name,
        # Whoever else listens there gets nothing: nobody has named it.
        _OWN_ONLY: None if known.get(ENDPOINT) or known.get(_METRICS_ENDPOINT) else "true",
        "OTEL_METRICS_EXPORTER": "otlp",
        # The distribution would turn these on, and nobody has asked for them.
        "OTEL_TRACES_EXPORTER": "none",
        # Ours go where metrics go, or to an endpoint of their own.
        "OPENHANDS_OTEL_TRACES": "otlp" if _have_place_for_spans(known) else None,
        "OTEL_LOGS_EXPORTER": None if known.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT") else "none",
    }
    return {variable: value for variable, value in defaults.items() if value and not known.get(variable)} | chosen


def _have_place_for_spans(known: Mapping[str, str]) -> bool:
    """Whether it is known where spans go, and nobody has said otherwise."""
    named = known.get(ENDPOINT) or known.get(TRACES_ENDPOINT) or not known.get(_METRICS_ENDPOINT)
    return bool(named) and not known.get("OTEL_TRACES_EXPORTER")


def instrumented(environment: Mapping[str, str], chosen: Mapping[str, str], way: Way) -> dict[str, str]:
    """``environment`` with ``chosen`` and the way to us, and a note of what it was, for those who must not see it."""
    plain, outer = dict(environment), Footprint.decoded(environment.get(MARKER, ""))
    if outer is not None:
        # A ``run`` below a ``run``: what the outer one set was nobody's wish either.
        plain = outer.removed_from(environment, {MARKER: environment[MARKER]})
        chosen = {**outer.still_in(environment), **chosen}
    path = os.pathsep.join(filter(None, (str(way.site), plain.get("PYTHONPATH"))))
    chosen = {**chosen, "PYTHONPATH": path, COMMAND: str(os.getpid())}
    before = {name: (value, plain.get(name)) for name, value in chosen.items() if plain.get(name) != value}
    directory = None if outer is None else outer.directory
    return {**plain, **chosen, MARKER: Footprint(before, directory).encoded()}


def found(word: str) -> str:
    """The file that ``word`` starts. Raises CommandError."""
    file = find(word)
    if file is not None:
        return file
    if os.sep in word and Path(word).exists():
        raise CommandError(f"{word}: cannot be executed, check its permissions", code=126)
    raise CommandError(f"{word}: command not found", code=127)


def _become(file: str, words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    if os.name == "nt":
        # exec would give the prompt back while the command still runs.
        raise SystemExit(subprocess.call(list(words), executable=file, env=dict(environment)))
    try:
        os.execve(file, list(words), dict(environment))
    except OSError as error:
        raise CommandError(f"{words[0]}: cannot be executed: {error.strerror}", code=126) from None


def _name(words: Sequence[str], python: PythonProgram | None) -> str:
    if python is None:
        return Path(words[0]).name
    if python.kind == "script":
        return Path(python.program).resolve().stem or python.program
    return python.program if python.kind == "module" else Path(python.words[0]).name


def _protocol_for(endpoint: str) -> Protocol:
    try:
        return "grpc" if urlsplit(endpoint).port == GRPC_PORT else "http/protobuf"
    except ValueError:
        return "http/protobuf"


def is_http_url(url: str) -> bool:
    """Whether it is one that can be sent to."""
    with suppress(ValueError):
        return urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).netloc)
    return False


def _checked_url(url: str | None) -> str | None:
    if url is None or is_http_url(url):
        return url
    raise CommandError(f"--endpoint {url!r} is no URL: give one such as {VIEWER_URL}", code=2)


def _checked_file(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.access(name, os.R_OK):
        raise CommandError(f"--token-file {name}: cannot be read", code=2)
    return str(Path(name).resolve())

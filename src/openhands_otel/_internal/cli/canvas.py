"""``openhands-otel canvas``: the page of what was spent inside Agent Canvas, put in and taken out.

The agent server that Canvas runs keeps its extensions, and reads them from a folder of its own machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openhands_otel._internal.canvas.agent_server import AGENT_SERVER_URL, AgentServer, AgentServerError
from openhands_otel._internal.canvas.backend import Backend, backend_elsewhere, backend_here
from openhands_otel._internal.canvas.extension import EXTENSION_NAME, PAGE_PATH, write
from openhands_otel._internal.canvas.variables import variables_of
from openhands_otel._internal.cli import PROGRAM, CommandError
from openhands_otel._internal.host.state_folder import state_folder
from openhands_otel._internal.host.token_file import TokenError, read_token
from openhands_otel._internal.launch.bundle import BundleError
from openhands_otel._internal.terminal_text import printable
from openhands_otel._internal.version import __version__
from openhands_otel.settings import SettingsError, ViewerSettings, load

KEY_FILE: Final = Path("~/.openhands/agent-canvas/api-key.txt")
"""Where Canvas keeps the key that it made for its servers."""
FOLDER: Final = "canvas-extension"
ORIGINS: Final = "OPENHANDS_OTEL_VIEWER_ORIGINS"


def configure(parser: argparse.ArgumentParser) -> None:
    """One command for each thing to do."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    writing = actions.add_parser("write", help="write it into a folder, for an agent server on another machine")
    writing.add_argument("folder", type=Path, metavar="FOLDER", help="where to: made if it is missing")
    writing.add_argument("--viewer", action="store_true", help="with the viewer, for an agent server from 1.58 on")
    for name, (_, about) in _ACTIONS.items():
        action = actions.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        action.add_argument(
            "url", nargs="?", default=AGENT_SERVER_URL, metavar="URL", help=f"Agent Canvas ({AGENT_SERVER_URL})"
        )
        action.add_argument("--key-file", type=Path, metavar="FILE", help=f"file with its API key ({KEY_FILE})")
        if name == "install":
            action.add_argument(
                "--source", metavar="FOLDER", help="folder or git address as the agent server reads it (one made here)"
            )
            action.add_argument("--page-only", action="store_true", help="without the viewer, which you start yourself")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked, and say so."""
    if arguments.action == "write":
        viewer = _viewer_elsewhere() if arguments.viewer else None
        print(f"{EXTENSION_NAME} {__version__} is in {printable(_written(arguments.folder, viewer))}")
        return 0
    try:
        server = AgentServer(arguments.url, *_key(arguments.key_file)).greet()
        _ACTIONS[arguments.action][0](server, arguments)
    except AgentServerError as error:
        raise CommandError(str(error)) from None
    return 0


def _install(server: AgentServer, arguments: argparse.Namespace) -> None:
    viewer = None if arguments.page_only or arguments.source else _viewer_here(server.url)
    replaced = server.install(EXTENSION_NAME, arguments.source or _written(None, viewer))
    place = f"the agent server at {server.shown} ({server.version})"
    print(f"{'replaced' if replaced else 'installed'} {EXTENSION_NAME} {__version__} in {place}")
    server.enable(EXTENSION_NAME)
    print(f"enabled it: the page is {server.shown}{_page()}, 'Spend' in Canvas' navigation")
    by_hand = f"{PROGRAM} view --origins {','.join(_origins(server.url))}"
    backend = server.backend(EXTENSION_NAME)
    if backend is None:
        print(f"let that page read the viewer: {by_hand}")
        return
    started = server.start_backend(EXTENSION_NAME, backend.revision)
    if started is not None and started.state == "ready":
        print("the agent server runs the viewer now, and starts it again when somebody opens Canvas")
    else:
        why = "it does not say why" if started is None else started.why
        print(f"the agent server could not start the viewer ({why}); start it yourself: {by_hand}")


def _uninstall(server: AgentServer, arguments: argparse.Namespace) -> None:
    if server.installed(EXTENSION_NAME) is None:
        print(f"{EXTENSION_NAME} is not installed at {server.shown}")
        return
    server.uninstall(EXTENSION_NAME)
    print(f"took {EXTENSION_NAME} out of the agent server at {server.shown}")


def _status(server: AgentServer, arguments: argparse.Namespace) -> None:
    found = server.installed(EXTENSION_NAME)
    if found is None:
        print(
            f"{EXTENSION_NAME} is not installed at {server.shown} ({server.version}):"
            f" '{PROGRAM} canvas install' does it"
        )
        return
    state = "enabled" if found.enabled else "disabled"
    newer = "" if found.version == __version__ else f"; this is {__version__}: '{PROGRAM} canvas install' updates it"
    print(f"{EXTENSION_NAME} {found.version} is installed and {state} at {server.shown}{_page()}{newer}")
    backend = server.backend(EXTENSION_NAME)
    if backend is not None:
        why = f": {backend.why}" if backend.why else ""
        print(f"its viewer is {_BACKEND_STATES.get(backend.state, backend.state)}{why}")


_ACTIONS: Final[dict[str, tuple[Callable[[AgentServer, argparse.Namespace], None], str]]] = {
    "install": (_install, "put the page into Canvas, or a newer one into its place"),
    "uninstall": (_uninstall, "take the page out of Canvas"),
    "status": (_status, "whether the page is there, and which"),
}


_BACKEND_STATES: Final = {
    "ready": "running",
    "stopped": f"not running: to open Canvas in a browser starts it, as does '{PROGRAM} canvas install'",
    "unhealthy": "not running",
}


def _viewer_here(url: str) -> Backend:
    """The viewer as it would be in this terminal, which Canvas at ``url`` may read. Raises CommandError."""
    try:
        settings, variables = load(ViewerSettings), variables_of(ViewerSettings)
        folder = state_folder()
    except SettingsError as error:
        raise CommandError(
            f"{error}: name a file, or start the viewer yourself ('canvas install --page-only')"
        ) from None
    except RuntimeError:
        raise CommandError("there is no home directory to keep the history in: set XDG_STATE_HOME") from None
    if settings.tls_cert_file is not None:
        raise CommandError(
            "an agent server asks the viewer by plain HTTP: unset OPENHANDS_OTEL_VIEWER_TLS_CERT_FILE,"
            " or start the viewer yourself ('canvas install --page-only')"
        )
    variables[ORIGINS] = ",".join(sorted({*settings.origins, *_origins(url)}))
    homes = {"HOME": str(Path.home()), "XDG_STATE_HOME": str(folder.parent)}
    return backend_here(sys.executable, {**variables, **homes})


def _viewer_elsewhere() -> Backend:
    """The viewer for an agent server on another machine; its history is in that one's folder. Raises CommandError."""
    try:
        return backend_elsewhere(
            {ORIGINS: ",".join(sorted(load(ViewerSettings).origins or _origins(AGENT_SERVER_URL)))}
        )
    except (SettingsError, BundleError, OSError) as error:
        raise CommandError(f"the viewer cannot be taken along: {printable(str(error))}") from None


def _page() -> str:
    return f"/extensions/{EXTENSION_NAME}{PAGE_PATH}"


def _origins(url: str) -> list[str]:
    """The origins under which browsers know Canvas there."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    hosts = ["localhost", "127.0.0.1"] if parts.hostname in ("localhost", "127.0.0.1") else [str(parts.hostname)]
    return [f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}" for host in hosts]


def _key(file: Path | None) -> tuple[str | None, str]:
    """The key, if there is one, and what it was read from."""
    path = (KEY_FILE if file is None else file).expanduser()
    if file is None and not path.exists():
        return None, f"{KEY_FILE} is not there"
    try:
        return read_token(path), printable(str(path))
    except TokenError as error:
        raise CommandError(str(error)) from None


def _written(folder: Path | None, viewer: Backend | None) -> str:
    """The extension as a folder of this machine: the one that is named, or one of ours."""
    try:
        place = state_folder() / FOLDER if folder is None else folder.absolute()
        write(place, viewer)
    except (RuntimeError, OSError) as error:
        why = getattr(error, "strerror", None) or "there is no home directory"
        raise CommandError(
            f"the extension cannot be written ({why}): name a folder of yours, or XDG_STATE_HOME"
        ) from None
    return str(place)

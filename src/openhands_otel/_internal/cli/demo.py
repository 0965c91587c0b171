"""``openhands-otel demo``: the main job on one machine, with no key, no Docker and no network.

A real OpenHands agent works against a scripted LLM provider while its cost is read back from the viewer; at the end
the provider's bill, OpenHands' own total and what the viewer received are held against each other.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from rich.console import Console

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.demo.children import ChildFailed
from openhands_otel._internal.demo.display import comparison, delays, display_for
from openhands_otel._internal.demo.scenario import EXPECTED_CALLS
from openhands_otel._internal.demo.session import SessionResult, session
from openhands_otel._internal.doctor.surroundings import version_of
from openhands_otel._internal.doctor.versions import apart
from openhands_otel._internal.terminal_text import printable

_NEEDED = {"openhands.sdk": "openhands-sdk", "openhands.tools": "openhands-tools"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--serve", action="store_true", help="keep the viewer open afterwards, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    _require_openhands()
    _stop_on_signals()
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="openhands-otel-demo-") as directory:
            return _demo(console, Path(directory).resolve(), serve=arguments.serve)
    except ChildFailed as failure:
        _quote(failure.log)
        raise CommandError(f"the demo's {failure}: see its last lines above; {_cure()}") from None


def _demo(console: Console, directory: Path, *, serve: bool) -> int:
    with session(directory) as running:
        console.print(f"Viewer: {running.viewer}", highlight=False)
        console.print("Starting a real OpenHands agent under opentelemetry-instrument ...")
        with display_for(console, EXPECTED_CALLS) as display:
            outcome = running.run(display.show)
        console.print("The agent has finished.")
        _report(console, outcome)
        if serve:
            console.print(f"Still there to look at: {running.viewer} (Ctrl-C ends it)", highlight=False)
            _wait_for_ctrl_c()
    return 1 if outcome.differences else 0


def _report(console: Console, outcome: SessionResult) -> None:
    accounts = {
        "provider's bill": outcome.bill,
        "OpenHands' total": outcome.own,
        "viewer received": outcome.viewer,
    }
    console.print()
    console.print(comparison(accounts))
    console.print()
    console.print(delays(outcome.freshness), highlight=False)
    if outcome.differences:
        _quote(outcome.agent_log)
        differences = ", ".join(outcome.differences)
        console.print(f"The three totals differ ({differences}): see the agent's last lines above.", style="bold red")
    else:
        console.print("The three totals agree.", style="bold green")


def _quote(log: list[str]) -> None:
    for line in log:
        print(f"  | {printable(line)}", file=sys.stderr)


def _require_openhands() -> None:
    missing = [package for module, package in _NEEDED.items() if not _is_installed(module)]
    if missing:
        there = None if "openhands-sdk" in missing else version_of("openhands-sdk")
        # For the tools alone pip may put the SDK back to some old release.
        wanted = missing if there is None else [f"{package}=={there}" for package in _NEEDED.values()]
        raise CommandError(f"the demo runs a real agent and needs more packages: pip install {' '.join(wanted)}")


def _cure() -> str:
    """What to do where the agent failed: what is known to fail is named."""
    found = apart({package: version_of(package) for package in _NEEDED.values()})
    return f"{found[0].said}: {found[0].cure}" if found else "run it again once mended"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _stop_on_signals() -> None:
    """Leave as on an error, so that nothing that was started stays behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def _wait_for_ctrl_c() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return

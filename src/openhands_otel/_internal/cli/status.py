"""``openhands-otel status``: one line about now, for prompts, status bars and editors.

Such a line is asked for every few seconds, so the command imports nothing but the standard library: pydantic and httpx
alone take longer to import than the answer takes. "Today" is the viewer's, in its time zone.
"""

from __future__ import annotations

import argparse
import json
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.facts import FAILURES
from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import tls_context, without_secrets
from openhands_otel._internal.host.state_folder import unasked_token
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.money import money
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import RunOutcome

DEFAULT_URL: Final = "http://127.0.0.1:4318"
LINE: Final = "{today} today, {hour}/h, {running} running"
WAITS_FOR_A_PERSON: Final = FAILURES | {RunOutcome.WAITING}
"""How a run ended that goes on only when a person does something: confirms, or looks what is wrong."""
_TIMEOUT_S: Final = 2.0
_FIELDS: Final = "today, hour, total (money), running, needs_you (numbers)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("url", nargs="?", default=DEFAULT_URL, metavar="URL", help=f"the viewer ({DEFAULT_URL})")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON: dollars and counts as numbers")
    shape.add_argument("--format", metavar="TEXT", help=f"a line of one's own, such as '{{today}}'; has {_FIELDS}")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to show")


def run(arguments: argparse.Namespace) -> int:
    """Print the line."""
    try:
        token = None if arguments.token_file is None else read_token(arguments.token_file)
    except TokenFileError as error:
        raise CommandError(str(error)) from None
    status = _status(_Viewer(arguments.url, token))
    print(json.dumps(status) if arguments.json else _line(status, arguments.format))
    return 0


def _line(status: dict[str, Any], wanted: str | None) -> str:
    needs_you = status["needs_you"]
    fields = {
        "today": money(status["cost_today"]),
        "hour": money(status["cost_per_hour"]),
        "total": money(status["cost_total"]),
        "running": status["running"],
        "needs_you": needs_you,
    }
    if wanted is None:
        needs = "" if not needs_you else f", {needs_you} need{'s' if needs_you == 1 else ''} you"
        return LINE.format(**fields) + needs
    try:
        return printable(wanted.format(**fields))
    except (LookupError, ValueError, AttributeError, TypeError):
        raise CommandError(f"--format has {_FIELDS}, in braces", code=2) from None


def _status(viewer: _Viewer) -> dict[str, Any]:
    totals = viewer.ask("/api/v1/totals")["totals"]
    today = viewer.ask("/api/v1/spend?since=today&until=today")["total"]
    waiting = [
        conversation
        for outcome in WAITS_FOR_A_PERSON
        for conversation in viewer.ask(f"/api/v1/conversations?outcome={outcome}")
        if not (conversation["closed"] or conversation["stale"])
    ]
    viewer.close()
    return {
        "cost_today": today["accumulated_cost"],
        "cost_per_hour": totals["burn"]["per_hour"],
        "cost_total": totals["accumulated_cost"],
        "running": totals["conversations_running"],
        "needs_you": len(waiting),
        "unix_s": time.time(),
    }


class _Viewer:
    """One connection to a viewer. Raises CommandError where the viewer cannot be asked."""

    def __init__(self, url: str, token: str | None) -> None:
        self._shown = printable(without_secrets(url), 200)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if not host or parts.scheme not in ("http", "https"):
            raise CommandError(f"{self._shown} is no address of a viewer: it should look like {DEFAULT_URL}", code=2)
        tls = parts.scheme == "https"
        stranger = stranger_at(host, port or 80) if token is None else None
        if stranger is not None:
            raise CommandError(f"{stranger}: it is asked nothing without a token")
        shown = unasked_token(url) if token is None else token
        self._headers = {} if shown is None else {"authorization": f"Bearer {shown}"}
        self._path = parts.path.rstrip("/")
        self._http = (
            HTTPSConnection(host, port or 443, timeout=_TIMEOUT_S, context=tls_context(None))
            if tls
            else HTTPConnection(host, port or 80, timeout=_TIMEOUT_S)
        )

    def ask(self, path: str) -> Any:
        """What stands at ``path``, read as JSON."""
        try:
            self._http.request("GET", self._path + path, headers=self._headers)
            response = self._http.getresponse()
            body = response.read()
            answer = json.loads(body) if response.status == 200 else None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            hint = "start one with 'openhands-otel view', or name its URL"
            raise CommandError(f"no viewer answers at {self._shown} ({reason}): {hint}") from None
        if response.status in (401, 403):
            raise CommandError(f"{self._shown} asks for a token: name its file with --token-file")
        if answer is None:
            raise CommandError(f"{self._shown} answered {response.status}: is it a viewer, and as new as this command?")
        return answer

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

"""``openhands-otel status``: one line about now, for prompts, status bars and editors.

Such a line is asked for every few seconds, so the command imports nothing but the standard library: pydantic and httpx
alone take longer to import than the answer takes. "Today" is the viewer's, in its time zone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from openhands_otel._internal import api_paths
from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.host.network import VIEWER_URL, without_secrets
from openhands_otel._internal.host.plain_http import NoAnswer, Stranger, get
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.money import money
from openhands_otel._internal.terminal_text import printable

LINE: Final = "{today} today, {hour}/h, {running} running"
_TIMEOUT_S: Final = 2.0
_NUMBERS: Final = ("cost_today", "cost_per_hour", "cost_total", "running", "needs_you")
_FIELDS: Final = "today, hour, total (money), running, needs_you (numbers)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("url", nargs="?", default=VIEWER_URL, metavar="URL", help=f"the viewer ({VIEWER_URL})")
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
    status = _ask(arguments.url, token)
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


def _ask(url: str, token: str | None) -> dict[str, Any]:
    """A ``stats.Glance``. Raises CommandError where the viewer cannot be asked."""
    shown = printable(without_secrets(url), 200)
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        known, parts = False, urlsplit("")
    if not known or parts.scheme not in ("http", "https"):
        raise CommandError(f"{shown} is no address of a viewer: it should look like {VIEWER_URL}", code=2)
    try:
        code, body = get(url, api_paths.GLANCE, token, _TIMEOUT_S)
        answer = _glance_of(json.loads(body)) if code == 200 else None
    except Stranger as stranger:
        raise CommandError(f"{stranger}: it is asked nothing without a token") from None
    except (NoAnswer, ValueError) as error:
        reason = error if isinstance(error, NoAnswer) else "what answers is no viewer"
        hint = "start one with 'openhands-otel view', or name its URL"
        raise CommandError(f"no viewer answers at {shown} ({reason}): {hint}") from None
    if code in (401, 403):
        raise CommandError(f"{shown} asks for a token: name its file with --token-file")
    if answer is None:
        raise CommandError(f"{shown} answered {code}: is it a viewer, and as new as this command?")
    return answer


def _glance_of(answer: Any) -> dict[str, Any] | None:
    """What a viewer has said; None where whatever answers is none."""
    if not isinstance(answer, dict):
        return None
    said = cast(dict[str, Any], answer)
    numbers = (said.get(name) for name in _NUMBERS)
    return said if all(isinstance(each, int | float) for each in numbers) else None

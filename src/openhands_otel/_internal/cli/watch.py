"""``openhands-otel watch``: a viewer's numbers in this terminal, live; or once, for programs."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from openhands_otel._internal.cli import PIPE_WIDTH, CommandError
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.once import render
from openhands_otel._internal.terminal.words import left_alone, outcome_of, short_id, spent
from openhands_otel._internal.terminal_text import printable, printable_json
from openhands_otel.client import DEFAULT_URL, AsyncStatsClient, StatsClient, StatsError
from openhands_otel.stats import ConversationUpdate, Update

_OF_SIGNAL = 128
"""What a shell adds to the number of a signal for an exit code."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("url", nargs="?", default=DEFAULT_URL, metavar="URL", help=f"the viewer ({DEFAULT_URL})")
    parser.add_argument("--once", action="store_true", help="show the state once and end")
    parser.add_argument("--json", action="store_true", help="JSON: the state, or one line per update")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to show")


def run(arguments: argparse.Namespace) -> int:
    """Show the state, once or until interrupted."""
    try:
        token = None if arguments.token_file is None else read_token(arguments.token_file)
        if not arguments.once and not arguments.json and _is_screen():
            return asyncio.run(_on_screen(arguments.url, token))
        with StatsClient(arguments.url, token) as client:
            if arguments.once:
                _show_once(client, arguments.json)
            else:
                _follow(client, arguments.json)
    except (StatsError, TokenFileError) as error:
        raise CommandError(str(error)) from None
    except KeyboardInterrupt:
        return 0
    return 0


def _is_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


async def _on_screen(url: str, token: str | None) -> int:
    # It takes half a second to import, and what is printed needs none of it.
    from openhands_otel._internal.terminal.app import WatchApp

    async with AsyncStatsClient(url, token) as client:
        app = WatchApp(client)
        await app.run_async()
    if app.failure is not None:
        raise app.failure
    return 0 if app.signal in (None, signal.SIGINT) else _OF_SIGNAL + app.signal


def _show_once(client: StatsClient, as_json: bool) -> None:
    state = client.state()
    if as_json:
        print(printable_json(state.model_dump_json(indent=2)))
        return
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(render(Live.of(state), console.width))


def _follow(client: StatsClient, as_json: bool) -> None:
    for update in client.stream(on_connection=_say_connection):
        if as_json:
            print(printable_json(update.model_dump_json()), flush=True)
        else:
            _print_line(update)


def _say_connection(problem: StatsError | None) -> None:
    """On standard error: what is printed is for others to read."""
    print("connected again" if problem is None else f"cut off, trying again: {problem}", file=sys.stderr, flush=True)


def _print_line(update: Update) -> None:
    if not isinstance(update, ConversationUpdate):
        return
    stats = update.conversation
    clock = time.strftime("%H:%M:%S", time.localtime(update.received_unix_nano / 1e9))
    tokens = stats.accumulated_token_usage
    state = "closed" if stats.closed else left_alone(stats) or stats.status
    doing = printable(stats.activity or state or "", 80)
    outcome = outcome_of(stats)
    if outcome not in ("", doing) and not stats.activity:
        doing = f"{doing}, {outcome}"
    cost = spent(stats.accumulated_cost, stats.unpriced_calls)
    print(
        f"{clock}  {short_id(stats.conversation_id)}  {cost:>12}  {stats.llm_calls:>5} calls"
        f"  {tokens.prompt_tokens:>10,} in  {tokens.completion_tokens:>9,} out  {doing}",
        flush=True,
    )

"""``openhands-otel watch``: a collector's numbers in this terminal, live; or once, for programs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.cli.watch_table import LiveState, cost_of, left_alone, outcome_of, render, short_id
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.terminal_text import printable, printable_json
from openhands_otel.client import DEFAULT_URL, StatsClient, StatsError
from openhands_otel.stats import ConversationUpdate, Update

_REDRAW_PER_S = 4
_PIPE_WIDTH = 160


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


def _show_once(client: StatsClient, as_json: bool) -> None:
    state = client.state()
    if as_json:
        print(printable_json(state.model_dump_json(indent=2)))
        return
    # A pipe has no width: what reads it wants whole lines.
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    console.print(render(LiveState.of(state), time.time(), None, console.width))


def _follow(client: StatsClient, as_json: bool) -> None:
    if as_json:
        _each(client, lambda update: print(printable_json(update.model_dump_json()), flush=True))
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _follow_on_terminal(client)
    else:
        _each(client, _print_line)


def _each(
    client: StatsClient,
    show: Callable[[Update], None],
    on_connection: Callable[[StatsError | None], None] | None = None,
) -> None:
    for update in client.stream(on_connection=on_connection or _say_connection):
        show(update)


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
    print(
        f"{clock}  {short_id(stats.conversation_id)}  {cost_of(stats):>12}  {stats.llm_calls:>5} calls"
        f"  {tokens.prompt_tokens:>10,} in  {tokens.completion_tokens:>9,} out  {doing}",
        flush=True,
    )


def _follow_on_terminal(client: StatsClient) -> None:
    console = Console()
    state = LiveState()

    def draw() -> Group:
        return render(state, time.time(), max(3, console.height - 6), console.width)

    with Live(get_renderable=draw, console=console, refresh_per_second=_REDRAW_PER_S, screen=True):
        _each(client, state.apply, state.note_connection)

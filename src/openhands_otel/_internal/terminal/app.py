"""The application: follows a stream, draws some times a second, and leaves the terminal as it was."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from typing import ClassVar, Final

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from openhands_otel._internal.terminal.detail import Detail
from openhands_otel._internal.terminal.help import Help
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.overview import Overview
from openhands_otel._internal.terminal.rows import Rows
from openhands_otel._internal.terminal.size import LEAST_COLUMNS, LEAST_LINES
from openhands_otel.client import AsyncStatsClient, StatsError

_TALL: Final = 30
"""From this height on there is room between the parts, lines."""
_TICK_S: Final = 0.25
_TICKS_A_SECOND: Final = 4
_TURN: Final = 64
"""Updates that are taken in a row before others have their turn."""
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANGUP: Final = getattr(signal, "SIGHUP", None)


class WatchApp(App[None]):
    """Shows one source until it is left.

    Args:
        client: Whom it asks.
        period: One of period.NAMED_PERIODS, to begin with.
    """

    TITLE = "openhands-otel watch"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    .-tall #where, .-tall #conversations { margin-top: 1; }
    .small { display: none; width: 100%; height: 100%; }
    .-narrow .whole, .-low .whole { display: none; }
    .-narrow .small, .-low .small { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (LEAST_COLUMNS, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LEAST_LINES, "-high"), (_TALL, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f10,q", "leave", "quit", key_display="q"),
        Binding("ctrl+c,ctrl+q", "leave", "quit", show=False, priority=True),
    ]

    def __init__(self, client: AsyncStatsClient, period: str = "today") -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self._client = client
        self._period = period
        self.live = Live()
        self.failure: StatsError | None = None
        """Why it ended by itself."""
        self.signal: int | None = None
        """What ended it from outside."""
        self._ticks = 0

    def get_default_screen(self) -> Screen[None]:
        return Overview(self.live, self._client, self._period)

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Not in a thread, and not on Windows.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._end_by, number)
                if number == _HANGUP:
                    # Heard by the loop and, whatever the loop waits for, here.
                    signal.signal(number, _die_with_the_terminal)
        self.run_worker(self._follow())
        self.set_interval(_TICK_S, self._tick)

    def _end_by(self, number: int) -> None:
        self.signal = number
        self.exit()

    async def _follow(self) -> None:
        taken = 0
        try:
            async for update in self._client.stream(on_connection=self.live.note_connection):
                self.live.apply(update)
                taken += 1
                if taken % _TURN == 0:
                    await asyncio.sleep(0)
        except StatsError as error:
            self.failure = error
            self.exit()

    def _tick(self) -> None:
        self._ticks += 1
        changed, self.live.changed = self.live.changed, False
        if changed or self._ticks % _TICKS_A_SECOND == 0:
            screen = self.screen
            if isinstance(screen, Overview | Detail):
                screen.tick(changed)

    def on_overview_opened(self, event: Overview.Opened) -> None:
        """Show one conversation."""
        self.push_screen(Detail(self.live, self._client, event.entry))

    def action_leave(self) -> None:
        """End."""
        self.exit()

    def action_help(self) -> None:
        """Show the keys of what is on the screen."""
        screen = self.screen
        if isinstance(screen, Overview | Detail):
            self.push_screen(Help(screen.BINDINGS, Rows.BINDINGS, self.BINDINGS))


def _die_with_the_terminal(number: int, _: object) -> None:
    """End at once where the window was closed: nothing is left to be put back, and textual waits for its own threads,
    which wait for it, on the way to try."""
    if sys.__stdin__ is None:
        return
    try:
        os.get_terminal_size(sys.__stdin__.fileno())
    except OSError as error:
        if error.errno == errno.EIO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

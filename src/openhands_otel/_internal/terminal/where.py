"""The panel that says where the money of a period went, and asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message

from openhands_otel._internal.facts import DIMENSIONS, TITLES
from openhands_otel._internal.terminal.block import is_closing
from openhands_otel._internal.terminal.choices import Choice, Choices
from openhands_otel._internal.terminal.layout import Layout
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.parts import (
    BY_CONVERSATION,
    PartRow,
    condition,
    parts_columns,
    parts_of,
)
from openhands_otel._internal.terminal.period import NAMED_PERIODS, asked_since, hour_before, until_then
from openhands_otel._internal.terminal.repeated import Repeated
from openhands_otel._internal.terminal.rows import Rows
from openhands_otel._internal.terminal_text import printable
from openhands_otel.client import AsyncStatsClient, StatsError
from openhands_otel.stats import Budget, Spend, SpendGroup

SIZES: Final = ("few", "many", "none")
_NAME_LIMIT: Final = 24


class Where(Vertical):
    """Rows by one dimension, all others, and the total."""

    DEFAULT_CSS = """
    Where { height: auto; }
    Where Rows { height: 3; }
    """

    class Answered(Message):
        """There are new figures, or a reason why there are none."""

    class Only(Message):
        """A row was chosen: only what it stands for is to be shown."""

        def __init__(self, name: str, value: str) -> None:
            super().__init__()
            self.name = name
            self.value = value

    def __init__(self, live: Live, client: AsyncStatsClient, period: str, **names: Any) -> None:
        super().__init__(**names)
        self._live = live
        self._client = client
        self.period = period
        self.by = DIMENSIONS[0]
        self.where: tuple[tuple[str, str], ...] = ()
        self.spend: Spend | None = None
        """Of this period and these conditions; None until it was told."""
        self.before: SpendGroup | None = None
        """Of as much of the period before; None where there is none, or nobody knows."""
        self.budgets: tuple[Budget, ...] = ()
        self._begins: dict[tuple[str, float], float] = {}
        """Of periods before, by the period and its begin, unix seconds."""
        self.problem = ""
        self._parts: list[PartRow] = []
        self._layout = Layout(parts_columns(self.by))
        self._extent = SIZES[0]
        self._asked_most = 0
        self._asking = Repeated(self._ask)

    def compose(self) -> ComposeResult:
        yield Choices(id="by")
        yield Rows(id="parts")

    def on_mount(self) -> None:
        self.run_worker(self._asking.run())
        self._asking.want()
        self._draw()

    # ---------------------------------------------------------------- what is wanted

    def refresh_soon(self) -> None:
        """Money may have moved."""
        self._asking.want()

    def choose_period(self, period: str) -> None:
        """One of PERIODS."""
        self.period, self.spend, self.before = period, None, None
        self._asking.hurry()

    def choose_by(self, by: str) -> None:
        """Group by something else."""
        self.by = by
        self._parts = []
        self._layout = Layout(parts_columns(TITLES.get(by, by)))
        self._asking.hurry()
        self._draw()

    def step_by(self, steps: int) -> None:
        """Group by the next, or the one before."""
        names = self.names()
        self.choose_by(names[(names.index(self.by) + steps) % len(names)])

    def only(self, where: Iterable[tuple[str, str]]) -> None:
        """Count only what these hold for."""
        self.where, self.spend, self.before = tuple(where), None, None
        self._asking.hurry()

    def next_size(self) -> None:
        """More rows, none, or few again."""
        self._extent = SIZES[(SIZES.index(self._extent) + 1) % len(SIZES)]
        self._asking.hurry()
        self._draw()

    # ---------------------------------------------------------------- asking and drawing

    @property
    def _most(self) -> int:
        """How many rows there are at most, others not counted."""
        height = self.screen.size.height
        if self._extent == "many":
            return max(3, height // 2 - 4)
        return 3 if height < 30 else 5 if height < 45 else 8

    async def _ask(self) -> None:
        asked = (self.period, self.by, self.where)
        self._asked_most = self._most
        since, until = asked_since(self.period, self._live.now())
        conditions = [condition(name, value) for name, value in self.where]
        try:
            spend = await self._client.spend([self.by], since=since, until=until, where=conditions, top=self._most)
            before = await self._ask_before(spend, conditions)
            budgets = await self._ask_budgets()
        except StatsError as error:
            if asked == (self.period, self.by, self.where):
                self.problem = str(error)
                # Nobody may say that it is well again: money need not move.
                self._asking.want()
                self._said()
            return
        if asked != (self.period, self.by, self.where):
            return
        self.spend, self.before, self.budgets, self.problem = spend, before, budgets, ""
        self._parts = parts_of(spend)
        self._said()

    async def _ask_before(self, spend: Spend, where: list[str]) -> SpendGroup | None:
        """None where there is none, or the source does not tell."""
        if spend.since is None:
            return None
        try:
            begin = await self._begin_before(self.period, spend.since)
            since, until = until_then(begin, spend.since, self._live.now())
            return None if until <= since else (await self._client.spend(since=since, until=until, where=where)).total
        except StatsError:
            return None

    async def _begin_before(self, period: str, since: float) -> float:
        back = NAMED_PERIODS[period].back
        if back is None:
            return hour_before(since)
        known = (period, since)
        if known not in self._begins:
            begin = (await self._client.spend(since=back[0], until=back[1])).since
            self._begins[known] = since if begin is None else begin
        return self._begins[known]

    async def _ask_budgets(self) -> tuple[Budget, ...]:
        """None where the source has none, or does not tell this person."""
        try:
            return await self._client.budgets()
        except StatsError:
            return ()

    def _said(self) -> None:
        self._draw()
        self.post_message(self.Answered())

    def names(self) -> list[str]:
        """What it can be grouped by."""
        return [*DIMENSIONS, *self._live.label_names(), BY_CONVERSATION]

    def _draw(self) -> None:
        if is_closing(self):
            return
        names = self.names()
        if self.by not in names:
            names.append(self.by)
        words = [Choice("", Text("by", style="dim"))]
        words += [Choice(name, Text(printable(TITLES.get(name, name), _NAME_LIMIT)), name == self.by) for name in names]
        self.query_one("#by", Choices).have(words)
        rows = self.query_one("#parts", Rows)
        rows.display = self._extent != "none"
        if self.problem or not self._parts:
            rows.styles.height = 2
            text = Text(
                printable(self.problem, self.size.width) or "asking ...", style="red" if self.problem else "dim"
            )
            rows.show(0, lambda _: Text(), text)
            return
        lines = self._layout.fit(self._parts, self._live.now(), max(1, self.size.width))
        last = len(self._parts) - 1
        rows.styles.height = len(self._parts) + 1
        rows.show(last, lines.row, lines.heading(), [lines.row(last)])

    def on_resize(self) -> None:
        if self._most != self._asked_most:
            self._asking.hurry()
        self._draw()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        event.stop()
        part = self._parts[event.index]
        if part.value is not None:
            self.post_message(self.Only(self.by, part.value))

    def on_choices_chosen(self, event: Choices.Chosen) -> None:
        event.stop()
        self.choose_by(event.name)


def period_choices(period: str) -> list[Choice]:
    """The periods as words."""
    return [Choice(name, Text(each.title), name == period) for name, each in NAMED_PERIODS.items()]

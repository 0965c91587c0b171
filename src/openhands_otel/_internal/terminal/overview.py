"""The first screen: is all well, what does it cost, whose is it; and all conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Input

from openhands_otel._internal.facts import FAILURES, TITLES
from openhands_otel._internal.money import money
from openhands_otel._internal.spend.zones import ZoneError, zone_of
from openhands_otel._internal.terminal.attention import CHIPS
from openhands_otel._internal.terminal.block import Block, is_closing
from openhands_otel._internal.terminal.chips import FILTER, FRESH, chips_of
from openhands_otel._internal.terminal.choices import Choices
from openhands_otel._internal.terminal.columns import COLUMNS, SORT_KEYS, TEXTS, columns_of
from openhands_otel._internal.terminal.commands import BadCommand, one_of, read_command
from openhands_otel._internal.terminal.entry import Entry
from openhands_otel._internal.terminal.headline import budget_lines, connection, spent_line
from openhands_otel._internal.terminal.in_period import InPeriod
from openhands_otel._internal.terminal.layout import Layout, Lines
from openhands_otel._internal.terminal.listing import BY_COST, Listing, Row, View
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.period import NAMED_PERIODS
from openhands_otel._internal.terminal.repeated import Repeated
from openhands_otel._internal.terminal.rows import Rows
from openhands_otel._internal.terminal.size import TooSmall
from openhands_otel._internal.terminal.trouble import trouble_lines
from openhands_otel._internal.terminal.where import Where, period_choices
from openhands_otel._internal.terminal.words import dimmed, spent
from openhands_otel._internal.terminal_text import printable
from openhands_otel.client import AsyncStatsClient, StatsError

_SORTS: Final = ("", *SORT_KEYS)
_BUDGETS: Final = 3


class Overview(Screen[None]):
    """Periods, figures, chips, where it went, and the table."""

    DEFAULT_CSS = """
    Overview #top { height: 1; }
    Overview #periods { width: 1fr; }
    Overview #connection { width: auto; }
    Overview Input { dock: bottom; height: 1; border: none; padding: 0; margin-bottom: 1; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1,question_mark", "app.help", "help", key_display="F1"),
        Binding("f3,slash", "prompt('search')", "search", key_display="/"),
        Binding("colon", "prompt('command')", "command", key_display=":", show=False),
        Binding("less_than_sign,comma", "sort(-1)", "sort by the column before", show=False),
        Binding("greater_than_sign,full_stop", "sort(1)", "sort", key_display="<>", tooltip="sort by the next column"),
        Binding("f6,s", "reverse", "turn", key_display="s", tooltip="turn the order; by cost at first"),
        Binding("f5,r", "order", "renew", key_display="F5", tooltip="sort anew, and take in what is new"),
        Binding("p", "period(1)", "period", key_display="p", tooltip="the next period"),
        Binding("P", "period(-1)", "the period before", show=False),
        Binding("b", "by(1)", "by", key_display="b", tooltip="group where it went by something else"),
        Binding("B", "by(-1)", "by the one before", show=False),
        Binding("w", "where_size", "more or less of where it went", show=False),
        Binding("space,plus,minus", "fold_or_not", "show or hide sub-agents", key_display="space", show=False),
        Binding("asterisk", "fold_all", "show or hide all sub-agents", show=False),
        Binding("right,l", "fold(False)", "show sub-agents", show=False),
        Binding("left,h", "fold(True)", "hide sub-agents", show=False),
        Binding("escape", "back", "take a filter away", show=False),
        Binding("0", "chip(-1)", "all conversations", show=False),
        *(Binding(str(at + 1), f"chip({at})", f"only: {name}", show=False) for at, name in enumerate(CHIPS)),
    ]

    class Opened(Message):
        """A conversation was chosen."""

        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self, live: Live, client: AsyncStatsClient, period: str) -> None:
        super().__init__()
        self._live = live
        self._client = client
        self._listing = Listing(live, dict(SORT_KEYS))
        self._layout = Layout(COLUMNS)
        self._where = Where(live, client, period, id="where")
        self._in_period = InPeriod(live, client)
        self._rows_asking = Repeated(self._ask_rows)
        self._told = ""
        """What is to be said of the last command."""
        self._lines: Lines[Row] | None = None
        self._first = 0
        self._spent_before: object = None
        self._ordered_for = period
        self._costs_of: object = None
        """Of which period, and by which filter, costs were told last."""

    def compose(self) -> ComposeResult:
        yield TooSmall(classes="small")
        with Vertical(classes="whole"):
            with Horizontal(id="top"):
                yield Choices(id="periods")
                yield Block(id="connection")
            yield Block(id="figures")
            yield Block(id="notes")
            yield Choices(id="chips")
            yield self._where
            yield Rows(id="conversations")
            yield Input(id="command", placeholder="today, week, by NAME, sort COLUMN, c ID, help, q", compact=True)
            yield Input(id="search", placeholder="search: words of names, ids, models, people, labels", compact=True)
            yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        table = self._table
        table.top_changed = self._draw_table
        table.focus()
        self.run_worker(self._rows_asking.run())
        self.draw()

    @property
    def _table(self) -> Rows:
        return self.query_one("#conversations", Rows)

    # ---------------------------------------------------------------- drawing

    def tick(self, changed: bool) -> None:
        """Show what is newest; called some times a second at most."""
        if changed:
            self._listing.update()
            totals = self._live.totals
            told = (self._live.started, totals.accumulated_cost, totals.llm_calls)
            if told != self._spent_before:
                self._spent_before = told
                self._where.refresh_soon()
                self._rows_asking.want()
            if self._live.left:
                self._rows_asking.want()
        self.draw()

    async def _ask_rows(self) -> None:
        """What the rows of the period cost, and those of the past: below what is in memory, so not before that."""
        where, listing = self._where, self._listing
        if not self._live.started:
            return
        asked = (where.period, where.where)
        try:
            is_new = await self._in_period.ask(*asked, listing.view.search)
        except StatsError:
            # The connection's state is said where it is looked after.
            return
        costs = self._in_period.costs
        if costs.period != listing.costs.period:
            self._layout = Layout(columns_of(costs.period))
        listing.costs = costs
        if asked != self._costs_of and listing.view.sort == BY_COST:
            # A person chose the period, or a filter: the order is by what they cost there.
            listing.order()
        elif is_new:
            listing.take_past()
        else:
            listing.arrange()
        self._costs_of = asked
        self.draw()

    def draw(self) -> None:
        """All but where it went, which draws itself when it is told something."""
        if not self.is_mounted or is_closing(self):
            return
        width = self.size.width
        self.query_one("#periods", Choices).have(period_choices(self._where.period))
        self.query_one("#connection", Block).show(connection(self._live, width // 2))
        self.query_one("#figures", Block).show(self._figures(width))
        self.query_one("#notes", Block).show(*self._notes(width))
        self.query_one("#chips", Choices).have(chips_of(self._listing))
        self._draw_table()

    def _figures(self, width: int) -> Text:
        where = self._where
        failed = sum(stats.outcome in FAILURES for stats in self._live.stats)
        spend = None if where.spend is None else where.spend.total
        period = NAMED_PERIODS[where.period]
        return self._aged(spent_line(self._live.totals, period, spend, failed, width, where.before))

    def _aged(self, text: Text) -> Text:
        """Figures of a viewer that does not answer look like it."""
        return dimmed(text) if self._live.problem else text

    def _notes(self, width: int) -> list[Text]:
        notes = [Text(printable(self._told, 2 * width), style="yellow")] if self._told else list[Text]()
        where = self._where
        if where.budgets and where.spend is not None:
            try:
                zone = zone_of(where.spend.timezone)
            except ZoneError:
                zone = zone_of(None)
            notes += [self._aged(line) for line in budget_lines(where.budgets[:_BUDGETS], zone, width)]
        return notes + trouble_lines(self._live.receiver, self._live.now(), width)

    def _draw_table(self) -> None:
        table, listing = self._table, self._listing
        width = table.scrollable_content_region.width or self.size.width
        rows = listing.rows
        # As many as may be in sight once it is laid out; those alone are looked at.
        self._first = int(table.scroll_offset.y)
        seen = rows[self._first : self._first + max(1, table.size.height)]
        lines = self._lines = self._layout.fit(seen, self._live.now(), width)
        table.show(len(rows), self._line, lines.heading(listing.view.sort, listing.view.descending), self._feet(lines))

    def _line(self, index: int) -> Text:
        at = index - self._first
        if self._lines is None or not 0 <= at < len(self._lines.cells):
            return Text()
        text = self._lines.row(at)
        if self._listing.rows[index].left or self._live.problem:
            return dimmed(text)
        return text

    def _feet(self, lines: Lines[Row]) -> Sequence[Text]:
        sums = self._listing.sums
        if not sums.count and not sums.rest:
            return [Text("no conversation is like that" if self._live.entries else "no conversation yet", style="dim")]
        count = f"{sums.count:,} conversation{'' if sums.count == 1 else 's'}"
        feet = [lines.foot(count, "cost", spent(sums.cost, sums.unpriced))]
        if sums.rest:
            feet.append(lines.foot("not in these rows: earlier, or of no conversation", "cost", money(sums.rest)))
        return feet

    # ---------------------------------------------------------------- what a person does

    def _look(self, **changes: object) -> None:
        self._layout.forget()
        if self._in_period.has_more and "search" in changes:
            self._rows_asking.want()
        self._listing.look(replace(self._listing.view, **changes))  # pyright: ignore[reportArgumentType]
        self._table.point(0)
        self.draw()

    def action_order(self) -> None:
        """Take in what is new."""
        self._in_period.renew()
        self._rows_asking.hurry()
        self._look()

    def action_reverse(self) -> None:
        """Turn the order."""
        view = self._listing.view
        if view.sort:
            self._look(descending=not view.descending)
        else:
            self._look(sort="cost", descending=True)

    def action_sort(self, steps: int) -> None:
        """Sort by another column that can be seen."""
        shown = {column.name for column in self._lines.columns} if self._lines is not None else set[str]()
        names = [name for name in _SORTS if not name or name in shown]
        view = self._listing.view
        at = names.index(view.sort) if view.sort in names else 0
        sort = names[(at + steps) % len(names)]
        self._look(sort=sort, descending=sort not in TEXTS)

    def action_chip(self, at: int) -> None:
        """Show only these, or all."""
        name = CHIPS[at] if at >= 0 else ""
        self._look(show="" if self._listing.view.show == name else name)

    def action_period(self, steps: int) -> None:
        """The next, or the one before."""
        names = list(NAMED_PERIODS)
        self._choose_period(names[(names.index(self._where.period) + steps) % len(names)])

    def _choose_period(self, period: str) -> None:
        self._where.choose_period(period)
        self._rows_asking.hurry()
        self.draw()

    def action_by(self, steps: int) -> None:
        """Group by something else."""
        self._where.step_by(steps)

    def action_where_size(self) -> None:
        """More of where it went, none, or little."""
        self._where.next_size()

    def action_fold_or_not(self) -> None:
        """Show or hide sub-agents."""
        row = self._pointed()
        if row is not None and row.children:
            self._fold(row, not row.folded)

    def action_fold(self, fold: bool) -> None:
        """Hide or show sub-agents."""
        row = self._pointed()
        if row is not None and row.children and row.folded is not fold:
            self._fold(row, fold)

    def action_fold_all(self) -> None:
        """Show or hide all sub-agents."""
        self._listing.fold_all()
        self.draw()

    def _fold(self, row: Row, fold: bool) -> None:
        self._listing.fold(row, fold)
        self.draw()

    def _pointed(self) -> Row | None:
        rows, at = self._listing.rows, self._table.cursor
        return rows[at] if at < len(rows) else None

    def action_prompt(self, name: str) -> None:
        """Type what to look for, or a command."""
        self._end_prompts()
        self._told = ""
        prompt = self.query_one(f"#{name}", Input)
        prompt.display = True
        prompt.value = self._listing.view.search if name == "search" else ""
        prompt.focus()

    def action_back(self) -> None:
        """Take away what was asked for last: the search, a filter, the chip, the order."""
        view = self._listing.view
        if self._told or self.query_one("#command", Input).display:
            self._told = ""
            self._end_prompts()
            self.draw()
        elif self.query_one("#search", Input).display:
            self._end_prompts()
            self._look(search="")
        elif view.search:
            self._look(search="")
        elif view.where:
            self._filter(view.where[:-1])
        elif view.show:
            self._look(show="")
        elif view.sort:
            self._look(sort="", descending=True)

    def _end_prompts(self) -> None:
        for prompt in self.query(Input):
            prompt.display = False
        self._table.focus()

    async def _run(self, text: str) -> None:
        """Do what was typed."""
        self._told = ""
        try:
            command = read_command(text)
            await self._do(command.name, command.argument)
        except (BadCommand, StatsError) as error:
            self._told = str(error)
        self.draw()

    async def _do(self, name: str, argument: str) -> None:
        if name in NAMED_PERIODS:
            self._choose_period(name)
        elif name == "by":
            names = {TITLES.get(name, name): name for name in self._where.names()}
            self._where.choose_by(names[one_of(argument, names, "name")])
        elif name == "sort":
            sort = one_of(argument, SORT_KEYS, "column")
            self._look(sort=sort, descending=sort not in TEXTS)
        elif name == "c":
            entry = self._live.called(argument)
            if entry is None:
                # One of the past that has no row, by its whole id.
                entry = Entry(await self._client.conversation(argument), self._live.now())
            self.post_message(self.Opened(entry))
        elif name == "help":
            await self.run_action("app.help")
        else:
            await self.run_action("app.leave")

    def _filter(self, where: tuple[tuple[str, str], ...]) -> None:
        self._where.only(where)
        self._rows_asking.hurry()
        self._look(where=where)

    # ---------------------------------------------------------------- what widgets say

    def on_where_answered(self) -> None:
        """The period has a begin now: what went wrong before it is old."""
        spend = self._where.spend
        since = 0.0 if spend is None or spend.since is None else spend.since
        moved = since != self._listing.since
        self._listing.since = since
        if moved and (self._listing.view == View() or self._ordered_for != self._where.period):
            self._listing.order()
        self._ordered_for = self._where.period
        self.draw()

    def on_where_only(self, event: Where.Only) -> None:
        """Filter by what a row stands for."""
        others = tuple(each for each in self._listing.view.where if each[0] != event.name)
        self._filter((*others, (event.name, event.value)))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Rows follow what is typed."""
        if event.input.id == "search" and event.input.display:
            self._look(search=event.value.strip())

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """What was typed holds on, or is done."""
        self._end_prompts()
        if event.input.id == "command" and event.value.strip():
            await self._run(event.value)

    def on_choices_chosen(self, event: Choices.Chosen) -> None:
        """A word was clicked."""
        if event.choices.id == "periods":
            self._choose_period(event.name)
        elif event.name == FRESH:
            self.action_order()
        elif event.name == FILTER:
            self.action_back()
        else:
            self.action_chip(CHIPS.index(event.name))

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Open the conversation."""
        row = self._pointed()
        if row is not None:
            self.post_message(self.Opened(row.entry))

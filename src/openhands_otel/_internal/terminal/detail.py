"""The screen of one conversation: what it does over time, its calls, and all that is known of it."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Footer

from openhands_otel._internal.money import money
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel._internal.terminal.about import FACT_COLUMNS, facts_about
from openhands_otel._internal.terminal.attention import life_of
from openhands_otel._internal.terminal.block import Block, is_closing
from openhands_otel._internal.terminal.call_table import SORTS, CallRow, call_columns, call_rows
from openhands_otel._internal.terminal.choices import Choice, Choices
from openhands_otel._internal.terminal.columns import COLUMNS
from openhands_otel._internal.terminal.entry import Entry
from openhands_otel._internal.terminal.headline import connection, joined
from openhands_otel._internal.terminal.layout import Column, Layout
from openhands_otel._internal.terminal.listing import Row
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.repeated import Repeated
from openhands_otel._internal.terminal.rows import Rows
from openhands_otel._internal.terminal.size import TooSmall
from openhands_otel._internal.terminal.waterfall import Scale, Waterfall
from openhands_otel._internal.terminal.words import LONGEST_TEXT, short_id, state_text, whose
from openhands_otel._internal.terminal_text import printable
from openhands_otel.client import AsyncStatsClient, StatsError
from openhands_otel.stats import Calls, ConversationStats, Timeline, TimelineRow

TABS: Final = ("timeline", "calls", "facts")
_PAGE: Final = 1_000
_MOST_ROWS: Final = 5_000
_CELLS: Final[dict[str, Column[Row]]] = {column.name: column for column in COLUMNS}
_SAID: Final = (
    ("cost", ""),
    ("burn", "/h"),
    ("tokens", " tokens"),
    ("context", " ctx"),
    ("calls", " calls"),
    ("age", " old"),
)


class Detail(Screen[None]):
    """Follows one conversation until it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back", key_display="esc"),
        Binding("f1,question_mark", "app.help", "help", key_display="F1"),
        Binding("tab", "tab(1)", "next", key_display="tab", priority=True, tooltip="timeline, calls, facts"),
        Binding("shift+tab", "tab(-1)", "the one before", show=False, priority=True),
        *(Binding(name[0], f"open('{name}')", name) for name in TABS),
        Binding("f6,s", "reverse", "turn", key_display="s", tooltip="turn the order of the calls"),
        Binding("greater_than_sign,full_stop", "sort(1)", "sort calls by next", key_display=">", show=False),
        Binding("less_than_sign,comma", "sort(-1)", "sort calls by the one before", key_display="<", show=False),
        Binding("left,h", "left", "fold, or go up", show=False),
        Binding("right,l", "right", "unfold", show=False),
    ]

    def __init__(self, live: Live, client: AsyncStatsClient, entry: Entry) -> None:
        super().__init__()
        self._live = live
        self._client = client
        self._entry = entry
        self._zone = zone_of(None)
        self._tab = TABS[0]
        self._sort = "begun"
        self._descending = True
        self._waterfall = Waterfall()
        self._timeline: Timeline | None = None
        self._calls: list[CallRow] | None = None
        self._call_layout = Layout(call_columns(self._zone))
        self._fact_layout = Layout(FACT_COLUMNS)
        self._problem = ""
        self._asked_of: ConversationStats | None = None
        self._asking = Repeated(self._ask)

    def compose(self) -> ComposeResult:
        yield TooSmall(classes="small")
        with Vertical(classes="whole"):
            yield Block(id="title")
            yield Choices(id="tabs")
            yield Rows(id="rows")
            yield Block(id="note")
            yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self._rows.top_changed = self.draw
        self._rows.focus()
        self.run_worker(self._asking.run())
        self._asking.want()
        self.draw()

    @property
    def _rows(self) -> Rows:
        return self.query_one("#rows", Rows)

    @property
    def _stats(self) -> ConversationStats:
        # One that left the viewer's memory and came again has an entry of its own; one that left keeps its last state.
        known = self._live.entries.get(self._entry.stats.conversation_id)
        self._entry = known or self._entry
        return self._entry.stats

    # ---------------------------------------------------------------- asking

    async def _ask(self) -> None:
        name = self._stats.conversation_id
        self._asked_of = self._stats
        try:
            if self._tab == "calls":
                sort = f"{'-' if self._descending else ''}{SORTS[self._sort]}"
                self._take_calls(await self._client.calls(name, sort=sort, limit=_PAGE))
            else:
                self._take_timeline(await self._whole_timeline(name))
            self._problem = ""
        except StatsError as error:
            self._problem = str(error)
        if self.is_mounted:
            self.draw()

    async def _whole_timeline(self, name: str) -> Timeline:
        """All of its pages; no more than can be gone through."""
        timeline = await self._client.timeline(name, limit=_PAGE)
        rows = list(timeline.rows)
        while len(rows) < min(timeline.count, _MOST_ROWS):
            more = await self._client.timeline(name, limit=_PAGE, offset=len(rows))
            if not more.rows:
                break
            rows += more.rows
        return timeline.model_copy(update={"rows": tuple(rows)})

    def _take_timeline(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._waterfall.take(timeline.rows)

    def _take_calls(self, calls: Calls) -> None:
        self._calls = call_rows(calls)

    def tick(self, changed: bool) -> None:
        """Show what is newest; called some times a second at most."""
        if self._stats is not self._asked_of or life_of(self._stats) == "running":
            self._asking.want()
        self.draw()

    # ---------------------------------------------------------------- drawing

    def draw(self) -> None:
        """All of it."""
        if not self.is_mounted or is_closing(self):
            return
        width = self.size.width
        self.query_one("#title", Block).show(*self._title(width))
        tabs = [Choice(name, Text(name), name == self._tab) for name in TABS]
        self.query_one("#tabs", Choices).have(tabs)
        self.query_one("#note", Block).show(*self._note(width))
        {"timeline": self._draw_timeline, "calls": self._draw_calls, "facts": self._draw_facts}[self._tab]()

    def _title(self, width: int) -> list[Text]:
        stats, now = self._stats, self._live.now()
        name = printable(stats.name or stats.agent or "", LONGEST_TEXT)
        first = Text(no_wrap=True).append(short_id(stats.conversation_id), style="dim").append(f" {name}", style="bold")
        if told := whose(stats):
            first.append(f" ({told})")
        old = connection(self._live, width // 2)
        first.truncate(max(0, width - old.cell_len - 1), overflow="ellipsis", pad=True)
        row = Row(self._entry)
        said = {name: _CELLS[name].cell(row, now).plain for name, _ in _SAID}
        state = state_text(stats)
        doing = _CELLS["now"].cell(row, now)
        second = Text(no_wrap=True).append(state)
        if doing:
            second.append("  ").append(doing)
        if stats.descendants:
            said["cost"] += f" ({money(stats.tree_cost)} with sub-agents)"
        figures = joined(((said[each] + unit if said[each] else "", "") for each, unit in _SAID), width)
        if self._live.problem:
            figures.stylize("dim")
        if second.cell_len + 2 + figures.cell_len <= width:
            second.append("  ").append(figures)
            return [first.append(" ").append(old), second]
        return [first.append(" ").append(old), second, figures]

    def _note(self, width: int) -> list[Text]:
        if self._problem:
            return [Text(printable(self._problem, width), style="red")]
        timeline = self._timeline
        if self._tab != "timeline" or timeline is None or not timeline.rows:
            return []
        running = sum(row.ended is None for row in timeline.rows)
        left = timeline.left_out + max(0, timeline.count - len(timeline.rows))
        told = [f"{len(timeline.rows):,} rows", f"{running:,} running" if running else ""]
        told.append(f"{left:,} more have no room here" if left else "")
        return [Text(", ".join(each for each in told if each), style="dim")]

    def _draw_timeline(self) -> None:
        if self._timeline is None or not self._waterfall.rows:
            text = "asking ..." if self._timeline is None and not self._problem else "No spans of it are kept here."
            return self._rows.show(0, lambda _: Text(), Text(text, style="dim"))
        scale = Scale.of(self._waterfall, self._width, self._live.now())
        shown = self._waterfall.shown
        return self._rows.show(
            len(shown), lambda index: scale.line(shown[index], self._waterfall.is_folded(shown[index])), scale.axis()
        )

    def _draw_calls(self) -> None:
        if self._calls is None:
            return self._rows.show(0, lambda _: Text(), Text("" if self._problem else "asking ...", style="dim"))
        rows = self._rows
        calls = [row for row in self._calls if row.call is not None]
        sums = self._calls[len(calls) :]
        first = int(rows.scroll_offset.y)
        seen = calls[first : first + max(1, rows.size.height)]
        lines = self._call_layout.fit([*seen, *sums], self._live.now(), self._width)

        def draw(index: int) -> Text:
            at = index - first
            return lines.row(at) if 0 <= at < len(seen) else Text()

        feet = [lines.foot(row.name, "cost", money(row.cost or 0.0)) for row in sums]
        return rows.show(len(calls), draw, lines.heading(self._sort, self._descending), feet)

    def _draw_facts(self) -> None:
        trace = next((row.trace_id for row in self._waterfall.rows if row.trace_id), None)
        url = self._timeline.trace_url if self._timeline is not None else None
        link = url.replace("{trace_id}", trace) if url and trace else None
        facts = facts_about(self._stats, self._zone, link)
        lines = self._fact_layout.fit(facts, self._live.now(), self._width)
        self._rows.show(len(facts), lines.row, lines.heading())

    @property
    def _width(self) -> int:
        return self._rows.scrollable_content_region.width or self.size.width

    # ---------------------------------------------------------------- what a person does

    def action_open(self, tab: str) -> None:
        """One of TABS."""
        if tab != self._tab:
            self._tab = tab
            self._rows.point(0)
            self._asking.hurry()
        self.draw()

    def action_tab(self, steps: int) -> None:
        """The next, or the one before."""
        self.action_open(TABS[(TABS.index(self._tab) + steps) % len(TABS)])

    def action_reverse(self) -> None:
        """Turn the order of the calls."""
        self._sort_calls(self._sort, not self._descending)

    def action_sort(self, steps: int) -> None:
        """Sort the calls by another column."""
        names = list(SORTS)
        self._sort_calls(names[(names.index(self._sort) + steps) % len(names)], True)

    def _sort_calls(self, sort: str, descending: bool) -> None:
        if self._tab == "calls":
            self._sort, self._descending = sort, descending
            self._call_layout.forget()
            self._asking.hurry()

    def action_left(self) -> None:
        """Fold what is below, or go to what is above."""
        row = self._pointed()
        if row is None:
            return
        if row.below and not self._waterfall.is_folded(row):
            self._waterfall.fold(row, True)
        else:
            self._rows.point(self._waterfall.above(self._rows.cursor))
        self.draw()

    def action_right(self) -> None:
        """Unfold what is below."""
        row = self._pointed()
        if row is not None:
            self._waterfall.fold(row, False)
            self.draw()

    def on_rows_chosen(self) -> None:
        """Fold or unfold."""
        row = self._pointed()
        if row is not None:
            self._waterfall.fold(row, not self._waterfall.is_folded(row))
            self.draw()

    def on_choices_chosen(self, event: Choices.Chosen) -> None:
        """A tab was clicked."""
        self.action_open(event.name)

    def _pointed(self) -> TimelineRow | None:
        shown, at = self._waterfall.shown, self._rows.cursor
        return shown[at] if self._tab == "timeline" and at < len(shown) else None

"""A list of lines of which only those in sight are drawn, with one that is pointed at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from openhands_otel._internal.terminal.block import strip_of

_POINTED: Final = Style(reverse=True)


class Rows(ScrollView, can_focus=True):
    """Draws lines when they come into sight, however many there are; heading and feet stay where they are."""

    DEFAULT_CSS = "Rows { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "up", show=False),
        Binding("down,j", "step(1)", "down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "a page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "a page down", show=False),
        Binding("home,g", "step(-1000000000)", "first", show=False),
        Binding("end,G", "step(1000000000)", "last", show=False),
        Binding("enter", "choose", "open", show=False),
    ]

    class Chosen(Message):
        """Enter was pressed on a line, or it was clicked while it was pointed at."""

        def __init__(self, rows: Rows, index: int) -> None:
            super().__init__()
            self.rows = rows
            self.index = index

        @property
        def control(self) -> Rows:
            return self.rows

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self.count = 0
        self.cursor = 0
        self.top_changed: Callable[[], object] | None = None
        """Called when other lines come into sight."""
        self._draw: Callable[[int], Text] = lambda index: Text(str(index))
        self._heading = Text()
        self._feet: Sequence[Text] = ()

    def show(self, count: int, draw: Callable[[int], Text], heading: Text, feet: Sequence[Text] = ()) -> None:
        """Draw these from now on.

        Args:
            count: How many lines there are.
            draw: The text of a line by its number.
            heading: Stands above them.
            feet: Stand below them.
        """
        self.count, self._draw, self._heading, self._feet = count, draw, heading, feet
        self.cursor = max(0, min(self.cursor, count - 1))
        size = Size(self.size.width, count + 1 + len(feet))
        if size != self.virtual_size:
            self.virtual_size = size
        self.refresh()

    @property
    def in_sight(self) -> range:
        """Numbers of the lines that can be seen."""
        first = int(self.scroll_offset.y)
        return range(min(first, self.count), min(self.count, first + self._room))

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 1 - len(self._feet))

    def render_line(self, y: int) -> Strip:
        """One line of the screen, as textual asks for it."""
        width = self.size.width
        below = y - (self.size.height - len(self._feet))
        if y == 0:
            return strip_of(self._heading, width, self.rich_style)
        short = self.count < self._room
        if short:
            # Few lines: the feet stand right below them.
            below = y - 1 - self.count
        if 0 <= below < len(self._feet):
            return strip_of(self._feet[below], width, self.rich_style)
        index = int(self.scroll_offset.y) + y - 1
        if below >= 0 or not 0 <= index < self.count:
            return Strip.blank(width, self.rich_style)
        strip = strip_of(self._draw(index), width, self.rich_style)
        return strip.apply_style(_POINTED) if index == self.cursor and self.has_focus else strip

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.top_changed is not None and int(old_value) != int(new_value):
            self.top_changed()
        self.refresh()

    def action_step(self, lines: int) -> None:
        """Point at another line."""
        self.point(self.cursor + lines)

    def action_page(self, pages: int) -> None:
        """Point at a line as far away as can be seen at once."""
        self.point(self.cursor + pages * self._room)

    def point(self, index: int) -> None:
        """Point at a line, and bring it into sight."""
        self.cursor = max(0, min(index, self.count - 1))
        first, room = int(self.scroll_offset.y), self._room
        if self.cursor < first:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= first + room:
            self.scroll_to(y=self.cursor - room + 1, animate=False)
        self.refresh(Region(0, 0, self.size.width, self.size.height))

    def action_choose(self) -> None:
        """Open the line that is pointed at."""
        if self.count:
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: Click) -> None:
        """The first click points at a line, the next one opens it."""
        index = int(self.scroll_offset.y) + event.y - 1
        if event.y == 0 or index not in self.in_sight:
            return
        if index == self.cursor and event.chain > 1:
            self.action_choose()
        else:
            self.point(index)

"""Lines of text on the screen, styled as rich styles them: in the terminal's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

from rich.console import Console
from rich.style import Style
from rich.text import Text
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

_CONSOLE: Final = Console(file=StringIO())
"""Knows what styles are called; nothing is written to it."""


def strip_of(text: Text, width: int, style: Style) -> Strip:
    """One line of the screen: cut, or filled up in a style."""
    # What rich makes of a text without parts has lost its style.
    return Strip(list(Text().append(text).render(_CONSOLE))).crop_extend(0, width, style)


def is_closing(widget: Widget) -> bool:
    """Whether its application closes: parts of the screen are gone already, and nothing can be drawn any more."""
    return not widget.app.is_running  # pyright: ignore[reportUnknownMemberType]


class Block(Widget):
    """As high as it has lines."""

    DEFAULT_CSS = "Block { height: auto; }"

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._shown: Sequence[Text] = ()

    def show(self, *lines: Text) -> None:
        """Have these lines; without any it takes no room."""
        before = (len(self._shown), _width(self._shown))
        self._shown = lines
        self.refresh(layout=before != (len(lines), _width(lines)))

    def lines(self, width: int) -> Sequence[Text]:
        """What stands in each line in a terminal of this width."""
        return self._shown

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return _width(self.lines(container.width))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines(width))

    def render_line(self, y: int) -> Strip:
        """One line, as textual asks for it."""
        width = self.size.width
        lines = self.lines(width)
        return strip_of(lines[y] if y < len(lines) else Text(), width, self.rich_style)


def _width(lines: Sequence[Text]) -> int:
    return max((line.cell_len for line in lines), default=0)

"""Words in a line of which some hold: chips, periods, tabs. They are chosen by keys, or clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text
from textual.events import Click
from textual.message import Message

from openhands_otel._internal.terminal.block import Block

_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """A word; one without a name only says something."""

    name: str
    text: Text
    held: bool = False
    """Whether it is what is shown now."""


class Choices(Block):
    """As many lines as its words take."""

    class Chosen(Message):
        """A word was clicked."""

        def __init__(self, choices: Choices, name: str) -> None:
            super().__init__()
            self.choices = choices
            self.name = name

        @property
        def control(self) -> Choices:
            return self.choices

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._words: Sequence[Choice] = ()

    def have(self, words: Sequence[Choice]) -> None:
        """Have these words."""
        if words == self._words:
            return
        before = len(self.lines(self.size.width))
        self._words = words
        self.refresh(layout=len(self.lines(self.size.width)) != before)

    def lines(self, width: int) -> Sequence[Text]:
        """The words, in as many lines as they take."""
        return [Text(" " * _GAP).join(map(_drawn, line)) for line in _lines(self._words, width)]

    def on_click(self, event: Click) -> None:
        lines = _lines(self._words, self.size.width)
        place = 0
        for word in lines[event.y] if event.y < len(lines) else []:
            end = place + word.text.cell_len
            if place <= event.x < end and word.name:
                self.post_message(self.Chosen(self, word.name))
            place = end + _GAP


def _drawn(word: Choice) -> Text:
    text = word.text.copy()
    if word.held:
        text.stylize("reverse")
    return text


def _lines(words: Sequence[Choice], width: int) -> list[list[Choice]]:
    """Broken where the next word has no room."""
    lines: list[list[Choice]] = [[]]
    place = 0
    for word in words:
        length = word.text.cell_len
        if lines[-1] and place + length > width:
            lines.append([])
            place = 0
        lines[-1].append(word)
        place += length + _GAP
    return lines

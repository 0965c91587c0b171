"""How large a terminal has to be, and what one sees that is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from openhands_otel._internal.terminal.block import Block

LEAST_COLUMNS: Final = 40
LEAST_LINES: Final = 14


class TooSmall(Block):
    """Says so, in as few words as there is room for."""

    def lines(self, width: int) -> Sequence[Text]:
        """The one line."""
        return [Text(f"too small: {width}x{self.screen.size.height}, needs {LEAST_COLUMNS}x{LEAST_LINES}")]

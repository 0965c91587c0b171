"""A collector's problems and refusals as lines for a terminal."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from openhands_otel._internal.terminal.durations import duration_text
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import ReceiverStats, Refusal

_SHOWN: Final = 3
_NAME_LIMIT: Final = 60


def trouble_lines(receiver: ReceiverStats | None, now: float, width: int) -> list[Text]:
    """No line where nothing is wrong."""
    if receiver is None:
        return []
    lines = [Text(printable(problem, width), style="red", no_wrap=True) for problem in receiver.problems]
    lines += [Text(_line(one, now, width), style="yellow", no_wrap=True) for one in receiver.refusals[:_SHOWN]]
    if (more := len(receiver.refusals) - _SHOWN) > 0:
        lines.append(Text(f"and {more} more refusals (--once --json has them)", style="dim"))
    return lines


def _line(refusal: Refusal, now: float, width: int) -> str:
    named = ", ".join(printable(name, _NAME_LIMIT) for name in (refusal.service, refusal.instance) if name)
    amounts = ((refusal.points, "point"), (refusal.requests, "request"))
    amount = " and ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in amounts if count)
    ago = duration_text(now - refusal.last_unix_nano / 1e9)
    return printable(
        f"not taken from {named or 'an unknown sender'}: {amount}, last {ago} ago: {refusal.reason}", width
    )

"""What needs a person and what runs as counted words, and the filters that hold: each is chosen, or taken away."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from openhands_otel._internal.facts import NEEDS, TITLES, Tone
from openhands_otel._internal.terminal.attention import CHIPS
from openhands_otel._internal.terminal.choices import Choice
from openhands_otel._internal.terminal.listing import Listing
from openhands_otel._internal.terminal.words import STYLES
from openhands_otel._internal.terminal_text import printable

FRESH: Final = "fresh"
FILTER: Final = "filter"
_AWAY: Final = "\u00d7"
_LIMIT: Final = 40


def chips_of(listing: Listing) -> list[Choice]:
    """By what they filter; what is new, and a filter that holds, by FRESH and FILTER."""
    tally, view = listing.tally(), listing.view
    words: list[Choice] = []
    needed = [name for name in NEEDS if tally[name] or view.show == name]
    if needed:
        words.append(Choice("", Text("needs you:", style="bold")))
    elif listing.live.entries:
        words.append(Choice("", Text("nothing needs you", style="green")))
    for at, name in enumerate(CHIPS):
        if name in NEEDS and name not in needed:
            continue
        tone = NEEDS.get(name) or (Tone.RUN if name == "running" else Tone.REST)
        text = Text().append(f"{at + 1}:", style="dim").append(f"{name} {tally[name]:,}", style=STYLES[tone])
        words.append(Choice(name, text, view.show == name))
    for name, value in view.where:
        title = printable(TITLES.get(name, name), _LIMIT)
        words.append(Choice(FILTER, Text(f"{title}={printable(value, _LIMIT)} {_AWAY}"), True))
    if view.search:
        words.append(Choice(FILTER, Text(f"/{printable(view.search, _LIMIT)} {_AWAY}"), True))
    if fresh := listing.fresh:
        words.append(Choice(FRESH, Text(f"{fresh:,} new: F5", style="bold cyan")))
    return words

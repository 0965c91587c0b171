"""How numbers, times and states read in the terminal; ``viewer/format.js`` has the same forms."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from rich.cells import set_cell_size
from rich.text import Text

from openhands_otel._internal.facts import OUTCOMES, STATES, Tone, ValueWord
from openhands_otel._internal.money import money, percent
from openhands_otel._internal.terminal.durations import duration_text
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import ConversationStats, TokenUsage

LONGEST_TEXT: Final = 120
"""Characters of a stranger's text that are looked at."""
STYLES: Final[Mapping[Tone, str]] = {Tone.RUN: "green", Tone.WAIT: "yellow", Tone.BAD: "red", Tone.REST: ""}
_SCALES: Final = ((10**3, "K"), (10**6, "M"), (10**9, "B"), (10**12, "T"))
_LEAST_SHORT: Final = 10_000
_WORD_LIMIT: Final = 16


def short(number: int) -> str:
    """``9,876``, ``12.3K``, ``4M``: three or four characters of a count."""
    if number < _LEAST_SHORT:
        return f"{number:,}"
    parts = ((Decimal(number) / scale, letter) for scale, letter in _SCALES)
    rounded = [(part.quantize(Decimal("0.1"), ROUND_HALF_UP), letter) for part, letter in parts]
    part, letter = next((each for each in rounded if each[0] < 1000), rounded[-1])
    return f"{part.normalize():f}{letter}"


def brief(seconds: float) -> str:
    """A stretch of time for narrow places: ``45s``, ``3m36s``, ``2h05m``, ``4d3h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def bar(full: int, width: int, style: str) -> Text:
    """A bar of which so many columns are full, the others dim."""
    return Text("█" * full, style=style).append("░" * (width - full), style="dim")


def took(seconds: float) -> str:
    """How long a call took: ``850 ms``, ``3.14 s``, ``120 s``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def lasting(seconds: float) -> str:
    """A time that something takes in all: ``12.5 s``, then as ``duration_text`` has it."""
    return f"{seconds:.1f} s" if seconds < 100 else duration_text(seconds)


def cached(usage: TokenUsage) -> str:
    """The part of the input that came from a cache; nothing where there was no input."""
    return percent(usage.cache_read_tokens, usage.prompt_tokens) if usage.prompt_tokens else ""


def dimmed(text: Text) -> Text:
    """A line that holds no longer."""
    return Text(text.plain, style="dim", no_wrap=True)


def spent(amount: float, unpriced_calls: float) -> str:
    """What was spent as far as prices are known: a lower bound looks like one, and nothing does not look free."""
    if not unpriced_calls:
        return money(amount)
    return f"{money(amount)}+" if amount else "no price"


def short_id(conversation_id: str) -> str:
    """The beginning of an id, in eight columns of a terminal whatever it is made of."""
    return set_cell_size(printable(conversation_id[:8]), 8)


def whose(stats: ConversationStats) -> str:
    """The person and what the conversation is for, as far as its labels say."""
    labels = stats.labels
    told = (labels.get("user"), labels.get("project") or labels.get("workspace"))
    return " · ".join(printable(each, LONGEST_TEXT) for each in told if each)


def status_of(stats: ConversationStats) -> str:
    """Its state, or what became of it or of its process."""
    return "closed" if stats.closed else left_alone(stats) or stats.status or "open"


def left_alone(stats: ConversationStats) -> str:
    """What became of the process of an open conversation, if it is not there."""
    return "gone" if stats.gone else "ended" if stats.ended else "silent" if stats.stale else ""


def outcome_of(stats: ConversationStats) -> str:
    """How its last run ended, in a word or two; nothing where that is not known."""
    return _word(OUTCOMES, stats.outcome).in_terminal


def state_text(stats: ConversationStats) -> Text:
    """Its status, and how its last run ended where the status does not say that."""
    word = _word(STATES, status_of(stats))
    text = Text(word.in_terminal, style="dim" if stats.closed else STYLES[word.tone])
    outcome = _word(OUTCOMES, stats.outcome)
    if outcome.in_terminal not in {"", text.plain}:
        # An ending takes no result back.
        text.append(", ", style="dim").append(outcome.in_terminal, style=STYLES[outcome.tone])
    return text


def worst_text(stats: ConversationStats) -> Text:
    """How its last run ended if that asks for somebody, else its status."""
    outcome = _word(OUTCOMES, stats.outcome)
    if outcome.in_terminal and outcome.tone is not Tone.REST:
        return Text(outcome.in_terminal, style=STYLES[outcome.tone])
    word = _word(STATES, status_of(stats))
    return Text(word.in_terminal, style="dim" if stats.closed else STYLES[word.tone])


def _word(words: Mapping[str, ValueWord], value: str | None) -> ValueWord:
    return words.get(value or "") or ValueWord(printable(value or "", _WORD_LIMIT))

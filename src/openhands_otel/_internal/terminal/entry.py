"""One conversation as the terminal knows it: its newest state, and what it spent of late."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from openhands_otel._internal.facts import TOLD_BY
from openhands_otel._internal.spend.conditions import named
from openhands_otel._internal.spend.rows import BURN_WINDOW_S
from openhands_otel._internal.terminal.attention import life_of
from openhands_otel.stats import ConversationStats

_LEAST_WINDOW_S: Final = 30.0
_LEAST_STEP_S: Final = 1.0
"""Between two samples, seconds: a conversation that changes a hundred times a second has no more of them."""


class Entry:
    """Keeps itself small: at most a sample for each second of the window."""

    def __init__(self, stats: ConversationStats, now: float) -> None:
        self.past = False
        """Whether it has left the viewer's memory."""
        self._samples: deque[tuple[float, float]] = deque()
        began = stats.started_unix_nano / 1e9
        if now - began < BURN_WINDOW_S:
            # At its begin nothing was spent, so one that is new is measured from there.
            self._samples.append((began, 0.0))
        self.update(stats, now)

    def update(self, stats: ConversationStats, now: float) -> None:
        """Take its new state, heard at ``now`` (unix seconds)."""
        self.stats = stats
        self._words: str | None = None
        samples = self._samples
        if not samples or now - samples[-1][0] >= _LEAST_STEP_S:
            samples.append((now, stats.accumulated_cost))
        while len(samples) > 2 and samples[1][0] < now - BURN_WINDOW_S:
            samples.popleft()

    def burn(self, now: float) -> float | None:
        """US dollars an hour of late; None where that is not known."""
        samples = self._samples
        if life_of(self.stats) != "running" or not samples:
            return None
        while len(samples) > 1 and samples[1][0] <= now - BURN_WINDOW_S:
            samples.popleft()
        began, cost = samples[0]
        span = min(now - began, BURN_WINDOW_S)
        return None if span < _LEAST_WINDOW_S else 3600 * (self.stats.accumulated_cost - cost) / span

    @property
    def search_text(self) -> str:
        """What a search looks through, in small letters."""
        if self._words is None:
            stats = self.stats
            models = [word for part in stats.calls_by_model for word in (part.model, part.provider)]
            labels = [f"{name}={value}" for name, value in stats.labels.items()]
            told = (stats.conversation_id, stats.name, stats.agent, stats.model_name, *models, stats.service)
            states = (stats.activity, stats.status, stats.outcome, stats.error_type)
            self._words = " ".join(word for word in (*told, *states, *labels) if word).lower()
        return self._words

    def has(self, name: str, value: str) -> bool:
        """Whether a fact or label has this value in part of the conversation."""
        return any(named(name, {name: each or ""}) == value for each in self._values(name))

    def _values(self, name: str) -> Iterable[str | None]:
        stats = self.stats
        told = TOLD_BY.get(name)
        if told is None:
            return [stats.labels.get(name)]
        parts = (getattr(part, each) for several, each in told.parts for part in getattr(stats, several))
        return [*(getattr(stats, each) for each in told.own), *parts]

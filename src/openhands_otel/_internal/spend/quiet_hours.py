"""Hours in which nobody is told anything; what happened in them is told when they are over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, tzinfo
from typing import Final

_FORM: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])\s*-\s*([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one time of day to another, which may be on the next day."""

    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """``22:00-07:00``; raises ValueError."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError("write two times of day, as in 22:00-07:00")
        hour, minute, end_hour, end_minute = map(int, found.groups())
        if (hour, minute) == (end_hour, end_minute):
            raise ValueError("they begin and end at the same time: leave them out for none")
        return cls(time(hour, minute), time(end_hour, end_minute))

    def hold(self, unix_s: float, zone: tzinfo) -> bool:
        """Whether a moment lies in them, by the clock of ``zone``."""
        now = datetime.fromtimestamp(unix_s, zone).time()
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

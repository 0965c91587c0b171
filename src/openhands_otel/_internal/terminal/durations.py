"""Durations as text for people."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """``5 s``, ``3 min``, ``2.5 h``."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

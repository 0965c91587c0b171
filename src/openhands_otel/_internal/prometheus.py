"""Prometheus' names for OpenTelemetry's, as Prometheus' own OTLP receiver makes them.

The strategy is the one called UnderscoreEscapingWithSuffixes, so a dashboard works whether the data came through
``/metrics`` here or through a Prometheus that takes OTLP.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_CACHE_SIZE: Final = 4_096
"""Names come from senders, so there is no end to them."""
_UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
_PER_UNITS: Final = {
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "mo": "month",
    "y": "year",
}


@lru_cache(_CACHE_SIZE)
def metric_name(name: str, kind: str, unit: str) -> str:
    """``openhands.llm.cost``, a counter of USD, becomes ``openhands_llm_cost_USD_total``."""
    words = [word for word in re.split(r"[^a-zA-Z0-9:]+", name) if word]
    main, per = _unit_words(unit)
    if main and main not in words:
        words.append(main)
    if per and per not in words:
        words += ["per", per]
    if kind == "counter":
        words = [*(word for word in words if word != "total"), "total"]
    if unit == "1" and kind in {"gauge", "updowncounter"}:
        words = [*(word for word in words if word != "ratio"), "ratio"]
    joined = "_".join(words) or "_"
    return f"_{joined}" if joined[0].isdigit() else joined


def family_name(name: str, kind: str, unit: str) -> str:
    """The name that OpenMetrics gives to a metric as a whole: without what its samples end in."""
    # A colon is Prometheus' mark of a recording rule; the library writes it in one place and replaces it in another.
    full = metric_name(name, kind, unit).replace(":", "_")
    return full.removesuffix("_total") if kind == "counter" else full


def unit_name(unit: str, kind: str) -> str:
    """The unit as it stands at the end of a name."""
    if unit == "1":
        return "ratio" if kind in {"gauge", "updowncounter"} else ""
    main, per = _unit_words(unit)
    return f"{main}_per_{per}" if per else main


def _unit_words(unit: str) -> tuple[str, str]:
    main, _, per = unit.partition("/")
    return _clean(_UNITS.get(main.strip(), main)), _clean(_PER_UNITS.get(per.strip(), per))


def _clean(word: str) -> str:
    # What stands in braces counts things; it is no unit.
    if "{" in word or "}" in word:
        return ""
    return re.sub(r"[^a-zA-Z0-9]+", "_", word).strip("_")


@lru_cache(_CACHE_SIZE)
def label_name(name: str) -> str:
    """``gen_ai.request.model`` becomes ``gen_ai_request_model``; ``__name__`` and the like belong to Prometheus."""
    label = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    if label[:1].isdigit() or not label:
        return f"key_{label}"
    belongs_to_prometheus = label.startswith("__") and label.endswith("__")
    return f"key{label}" if belongs_to_prometheus or (label[0] == "_" and label[:2] != "__") else label

"""What a person knows a conversation by: its labels, and a name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.combining.told import Attributes, ProcessSeries, ToldSeries
from openhands_otel._internal.labels import ACP_SERVER, AUTOMATION_NAME, LABEL_LIMIT

NAME_LABEL: Final = "name"
"""The label that names a conversation."""
_LABELLED: Final = (semconv.CONVERSATION_COST, semconv.CONVERSATION_CALLS, semconv.CONVERSATION_TOKENS)
_LIMIT: Final = 2 * LABEL_LIMIT
"""Labels of one conversation: those of its processes and its own; a foreign sender may have more."""


def labels_in(attributes: Attributes) -> dict[str, str]:
    """The labels among some attributes."""
    prefix = semconv.LABEL_PREFIX
    return {name.removeprefix(prefix): str(value) for name, value in attributes if name.startswith(prefix)}


def labels_of(series: ToldSeries[Any], of_processes: Mapping[str, str]) -> dict[str, str]:
    """Those of its processes, and over them those of its calls; of several values what was heard last."""

    def age(held: ProcessSeries[Any]) -> tuple[tuple[int, int], int]:
        return held.heard, held.series.time

    found = dict(of_processes)
    for held in sorted((held for metric in _LABELLED for held in series.of(metric)), key=age):
        found |= labels_in(held.attributes)
    return dict(sorted(found.items())[:_LIMIT])


def who_began(labels: Mapping[str, str], service: str | None) -> str | None:
    """Its automation or ACP server, where Agent Canvas names one, or else its service."""
    return labels.get(AUTOMATION_NAME) or labels.get(ACP_SERVER) or service


def name_of(
    labels: Mapping[str, str], title: str | None, service: str | None, started_unix_nano: int, zone: tzinfo | None
) -> str | None:
    """Its label, else its title where that was allowed, else who began it and when.

    When is by the clock of ``zone`` (None for this machine's).
    """
    if NAME_LABEL in labels or title:
        return labels.get(NAME_LABEL) or title
    who = who_began(labels, service)
    began = datetime.fromtimestamp(started_unix_nano / 1e9, zone).strftime("%H:%M") if started_unix_nano else ""
    return " ".join(filter(None, (who, began))) or None

"""Attribute sets of fleet metrics, in the words of ``semconv.py``."""

from __future__ import annotations

from openhands_otel import semconv
from openhands_otel._internal.ledger.ledger import OVERFLOW_KEY, FleetKey

Attributes = dict[str, str | bool]


def sendable(text: str) -> str:
    """``text`` as protobuf takes it: half a character, as an environment or a model's name may have it, is escaped.

    One that is not would break each request of the process from then on.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


OVERFLOW: Attributes = {semconv.METRIC_OVERFLOW: True}


def fleet_attributes(key: FleetKey) -> Attributes:
    """Attributes of one fleet series. What is an agent's and no LLM's has neither provider nor model nor role."""
    if key == OVERFLOW_KEY:
        return OVERFLOW
    attributes: Attributes = {}
    if key.model:
        attributes[semconv.OPERATION_NAME] = key.operation.value
        attributes[semconv.PROVIDER_NAME] = sendable(key.provider)
        attributes[semconv.REQUEST_MODEL] = sendable(key.model)
        attributes[semconv.LLM_ROLE] = key.role.value
    if key.agent:
        attributes[semconv.AGENT_NAME] = sendable(key.agent)
    if key.fallback:
        attributes[semconv.LLM_FALLBACK] = True
    if key.source is not None:
        attributes[semconv.COST_SOURCE] = key.source.value
    return attributes

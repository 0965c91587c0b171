"""How OpenHands' name of a model, litellm's ``route/model``, becomes a model and a provider in the words of GenAI."""

from __future__ import annotations

from typing import Final

from openhands_otel.semconv import UNKNOWN

WELL_KNOWN: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""litellm's provider names where the conventions have another (``gen_ai.provider.name``)."""


def by_route(model: str) -> tuple[str, str]:
    """(model, litellm's name of the provider) by nothing but the name; ``unknown`` where there is no route in it."""
    route, _, rest = model.partition("/")
    return (rest, route) if rest else (model, UNKNOWN)

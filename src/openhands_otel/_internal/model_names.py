"""How OpenHands' name of a model, litellm's ``route/model``, becomes a model and a provider in the words of GenAI."""

from __future__ import annotations

import re
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


_PATH: Final = re.compile(r"(?:^|/)(?:~[^/\\]*|\.{1,2}|file:/?|[A-Za-z]:)?[/\\]")
"""At the beginning, or behind a route or two."""


def without_path(model: str) -> str:
    """What a model is called whose server calls it by the folder that it was loaded from, as vLLM does unless told
    otherwise: the last part. What stands before that is a path, and may have a person's name in it."""
    if _PATH.search(model) is None:
        return model
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1] or UNKNOWN


def by_route(model: str) -> tuple[str, str]:
    """(model, litellm's name of the provider) by nothing but the name; ``unknown`` where there is no route in it."""
    route, _, rest = model.partition("/")
    if not (route and rest) or _PATH.match(model):
        return without_path(model), UNKNOWN
    return without_path(rest), route

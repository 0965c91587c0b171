"""Model and provider of an LLM, in the words of the GenAI conventions.

OpenHands names models the way litellm does, with the route in front (``openai/gpt-4o``,
``litellm_proxy/anthropic/claude-...``). litellm itself says which part is the provider; it is asked once per model and
address, through the SDK's own parsed view where there is one (``LLM._provider_info``, 1.40 on).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from openhands_otel._internal import fork_gate
from openhands_otel._internal.host.network import PORTS
from openhands_otel._internal.model_names import WELL_KNOWN, by_route, without_path
from openhands_otel.semconv import UNKNOWN

_CACHE_LIMIT = 1024
_cache: dict[tuple[str, str | None], tuple[str, str]] = {}


def model_and_provider(llm: Any) -> tuple[str, str]:
    """(``gen_ai.request.model``, ``gen_ai.provider.name``) of an ``LLM``; ``unknown`` where it does not say."""
    model = getattr(llm, "model", None)
    if not isinstance(model, str) or not model:
        return UNKNOWN, UNKNOWN
    base_url = getattr(llm, "base_url", None)
    key = (model, base_url if isinstance(base_url, str) else None)
    return _remembered(llm, key)


def named(model: str) -> tuple[str, str]:
    """The same of nothing but the name of a model, as OpenHands writes it."""
    return _remembered(None, (model, None))


def server_of(llm: Any) -> tuple[str, int] | None:
    """Host and port of the server that an ``LLM`` names as its own; None where it leaves that to litellm."""
    base_url = getattr(llm, "base_url", None)
    return _server(base_url) if isinstance(base_url, str) and base_url else None


@lru_cache(_CACHE_LIMIT)
def _server(base_url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(base_url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None
    # The name alone: a user and a password may stand before it.
    return (parts.hostname, port) if parts.hostname and port else None


def _remembered(llm: Any, key: tuple[str, str | None]) -> tuple[str, str]:
    found = _cache.get(key)
    if found is None:
        found = _parse(llm, *key)
        if len(_cache) < _CACHE_LIMIT:
            _cache[key] = found
    return found


def _parse(llm: Any, model: str, base_url: str | None) -> tuple[str, str]:
    info = getattr(llm, "_provider_info", None)
    name, parsed = getattr(info, "name", None), getattr(info, "model", None)
    if not isinstance(name, str) or not isinstance(parsed, str):
        parsed, name = _ask_litellm(model, base_url)
    # litellm takes a path's first slash for one between a provider and a model.
    whole = without_path(model)
    return (without_path(parsed) if whole == model else whole), WELL_KNOWN.get(name, name) or UNKNOWN


def _ask_litellm(model: str, base_url: str | None) -> tuple[str, str]:
    litellm = sys.modules.get("litellm")
    if litellm is not None:
        try:
            with fork_gate.imports.closed():
                parsed, name, *_ = litellm.get_llm_provider(model=model, api_base=base_url)
            return str(parsed), str(name)
        except Exception:
            # litellm raises where it knows no provider; the name itself is all there is then.
            pass
    return by_route(model)

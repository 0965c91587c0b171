"""Pages of other origins that may read the API: those that are configured, and nothing but its answers to GET.

A browser sends such a page's requests anyway, and asks here whether the page may see the answer. So no origin is let
in by this, and the token is asked for as of anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders

from openhands_otel import semconv
from openhands_otel._internal import api_paths

_WANTED: Final = "access-control-request-method"
_PREFLIGHT_S: Final = "600"


@dataclass(frozen=True, slots=True)
class Readers:
    """``origins`` as browsers name them."""

    origins: frozenset[str]

    def may_ask(self, method: str, path: str, headers: Headers) -> bool:
        """Whether a request is a browser's question (a preflight) for such a page."""
        return method == "OPTIONS" and _WANTED in headers and self._may_read(method, path, headers)

    def answer(self, answer: MutableHeaders, method: str, path: str, headers: Headers) -> None:
        """Say in the headers of an answer that its page may read it, if it may."""
        answer.add_vary_header("origin")
        if not self._may_read(method, path, headers):
            return
        answer["access-control-allow-origin"] = headers["origin"]
        if method == "OPTIONS":
            answer["access-control-allow-methods"] = "GET"
            answer["access-control-allow-headers"] = "authorization, last-event-id"
            answer["access-control-max-age"] = _PREFLIGHT_S
        else:
            answer["access-control-expose-headers"] = semconv.KEEP_ALIVE_HEADER

    def _may_read(self, method: str, path: str, headers: Headers) -> bool:
        wanted = headers.get(_WANTED) if method == "OPTIONS" else method
        return wanted == "GET" and headers.get("origin") in self.origins and path.startswith(api_paths.API)


NO_READERS: Final = Readers(frozenset())

"""The live page: plain HTML, CSS and JavaScript out of this package, nothing from elsewhere."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from openhands_otel import semconv
from openhands_otel._internal.facts import (
    DIMENSIONS,
    FACTS,
    NEED_OF_OUTCOME,
    NEED_OF_STATUS,
    NEEDS,
    OUTCOMES,
    REASONS,
    STATES,
    TITLES,
    TOLD_BY,
    Tone,
)
from openhands_otel.semconv import Status
from openhands_otel.stats import ConversationStats

ASSETS: Final = "/assets/"

_FACTS: Final = "facts.js"
_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ASSETS: Final = tuple(
    sorted(file.name for file in resources.files(__name__).iterdir() if file.name.endswith((".css", ".js", ".svg")))
)


def routes() -> list[Route]:
    """The page and its few files."""
    assets = [_file(ASSETS + name, name, _MEDIA_TYPES[name.rpartition(".")[2]]) for name in _ASSETS]
    facts = _route(ASSETS + _FACTS, facts_module().encode(), _MEDIA_TYPES["js"])
    return [_route("/", _page(), "text/html"), *assets, facts]


def _page() -> bytes:
    """The page, with all of its modules named: else a browser learns of each from the one that imports it."""
    modules = [name for name in _ASSETS if name.endswith(".js")] + [_FACTS]
    links = "".join(f'  <link rel="modulepreload" href="{ASSETS[1:]}{name}">\n' for name in modules)
    page = resources.files(__name__).joinpath("page.html").read_text(encoding="utf-8")
    return page.replace("</head>", f"{links}</head>").encode()


def facts_module() -> str:
    """What the page takes from ``facts.py`` and ``semconv.py``, as JavaScript."""
    exported = {
        "REMARKS": [
            {
                "field": fact.field,
                "format": fact.format,
                "remark": fact.remark,
                "quiet": fact.quiet,
                "nothing": _default(fact.field),
            }
            for fact in FACTS
            if fact.field and fact.remark
        ],
        "OUTCOMES": {name: word.text for name, word in OUTCOMES.items()},
        "OUTCOME_TONES": {name: word.tone for name, word in OUTCOMES.items() if word.tone is not Tone.REST},
        "STATES": {name: word.text for name, word in STATES.items()},
        "TONES": {name: word.tone for name, word in STATES.items()},
        "NEEDS": NEEDS,
        "NEED_OF_OUTCOME": NEED_OF_OUTCOME,
        "NEED_OF_STATUS": NEED_OF_STATUS,
        "TOLD_BY": {name: {"own": told.own, "parts": told.parts} for name, told in TOLD_BY.items()},
        "DIMENSIONS": DIMENSIONS,
        "TITLES": TITLES,
        "REASONS": REASONS,
        "STATUS": {status.name: status.value for status in Status},
        "LLM_ACTIVITY": semconv.LLM_ACTIVITY,
        "KEEP_ALIVE_HEADER": semconv.KEEP_ALIVE_HEADER,
        "STREAM_PATIENCE": semconv.STREAM_PATIENCE,
        "STREAM_SILENCE_S": semconv.STREAM_SILENCE_S,
    }
    return "".join(f"export const {name} = {json.dumps(value)};\n" for name, value in exported.items())


def _default(field: str) -> Any:
    return ConversationStats.model_fields[field].default


def _file(path: str, name: str, media_type: str) -> Route:
    return _route(path, resources.files(__name__).joinpath(name).read_bytes(), media_type)


def _route(path: str, content: bytes, media_type: str) -> Route:
    packed = gzip.compress(content, mtime=0)

    async def serve(request: Request) -> Response:
        headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=media_type, headers=headers | {"content-encoding": "gzip"})
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, serve)

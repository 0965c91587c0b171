"""The live page: plain HTML, CSS and JavaScript out of this package, nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ASSETS: Final = "/assets/"

_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ASSETS: Final = ("page.css", "page.js", "stream.js", "format.js", "card.js", "totals.js", "trouble.js", "icon.svg")


def routes() -> list[Route]:
    """The page and its few files."""
    assets = [_route(ASSETS + name, name, _MEDIA_TYPES[name.rpartition(".")[2]]) for name in _ASSETS]
    return [_route("/", "page.html", "text/html"), *assets]


def _route(path: str, name: str, media_type: str) -> Route:
    content = resources.files(__name__).joinpath(name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return Route(path, serve)

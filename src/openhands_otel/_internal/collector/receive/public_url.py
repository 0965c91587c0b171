"""Where a viewer behind a reverse proxy is reached: another host, perhaps a path in front of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """``host`` as in a Host header without its port; ``path`` begins with a slash and ends with none, or is empty."""

    host: str
    path: str

    @classmethod
    def parse(cls, url: str | None) -> Self:
        """Of a setting, which has been checked."""
        parts = urlsplit(url or "")
        return cls((parts.hostname or "").lower(), parts.path.rstrip("/"))

    def inner(self, path: str) -> str:
        """A request's path as the viewer's own routes have it, whether the proxy took its part away or left it."""
        if self.path and (path == self.path or path.startswith(self.path + "/")):
            return path.removeprefix(self.path) or "/"
        return path


NOWHERE_ELSE: Final = PublicUrl("", "")

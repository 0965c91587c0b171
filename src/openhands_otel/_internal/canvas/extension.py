"""The extension as the folder that Canvas installs: a manifest, one module made of the viewer's own, an icon."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Final

from openhands_otel._internal import canvas, viewer
from openhands_otel._internal.canvas.backend import ARCHIVE, Backend
from openhands_otel._internal.canvas.bundle import bundle
from openhands_otel._internal.version import __version__

EXTENSION_NAME: Final = "openhands-otel"
PAGE_PATH: Final = "/spend"
EXTENSION_MANIFEST: Final = "canvas-extension.json"
_MODULE: Final = "spend.js"
_ICON: Final = "icon.svg"
_ENTRY: Final = "page"


def files(backend: Backend | None = None) -> dict[str, str]:
    """Each file of the folder by its name; of ``backend`` what the manifest says of it."""
    manifest = {
        "schema_version": 1,
        "name": EXTENSION_NAME,
        "display_name": "Spend",
        "version": __version__,
        "description": "What agents spend, live: from an openhands-otel viewer",
        "entrypoint": _MODULE,
        "icon": _ICON,
        "contributes": {"pages": [{"id": "spend", "title": "Spend", "path": PAGE_PATH}]},
        **({} if backend is None else {"backend": backend.manifest}),
    }
    return {
        EXTENSION_MANIFEST: json.dumps(manifest, indent=2) + "\n",
        _MODULE: bundle(_ENTRY, _source),
        _ICON: _text(viewer.__name__, _ICON),
    }


def write(folder: Path, backend: Backend | None = None) -> None:
    """Make ``folder`` the extension: what is in it by other names stays. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(backend).items():
        (folder / name).write_text(content)
    if backend is not None:
        (folder / ARCHIVE).write_bytes(backend.archive)


def _source(name: str) -> str:
    if name == _ENTRY:
        return _text(canvas.__name__, "page.js")
    if name == "facts":
        return viewer.facts_module()
    if name == "styles":
        theirs, own = _text(viewer.__name__, "page.css"), _text(canvas.__name__, "page.css")
        return f"export const VIEWER_STYLE = {json.dumps(theirs)};\nexport const OWN_STYLE = {json.dumps(own)};\n"
    return _text(viewer.__name__, f"{name}.js")


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text()

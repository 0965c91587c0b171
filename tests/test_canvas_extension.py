"""The page inside Agent Canvas as a folder: one module of many, which Canvas' own rules accept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from openhands.agent_server.canvas_extensions.manifest import (
    CanvasExtensionManifest,
    resolve_entrypoint,
    resolve_icon,
)

from openhands_otel._internal.canvas.bundle import UnsupportedModule, bundle
from openhands_otel._internal.canvas.extension import EXTENSION_MANIFEST, files, write


def bundled(modules: Mapping[str, str]) -> str:
    return bundle("entry", modules.__getitem__)


def test_canvas_accepts_the_folder(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = CanvasExtensionManifest.model_validate_json((tmp_path / EXTENSION_MANIFEST).read_text())
    assert resolve_entrypoint(manifest, tmp_path).name == "spend.js"
    assert resolve_icon(manifest, tmp_path) is not None
    assert set(json.loads(files()[EXTENSION_MANIFEST])) <= set(CanvasExtensionManifest.model_fields)


def test_the_module_stands_alone() -> None:
    module = files()["spend.js"]
    assert not re.search(r"^import\b", module, re.MULTILINE)
    assert not re.search(r"\bimport\(", module)
    assert re.findall(r"^export .*", module, re.MULTILINE) == ["export function activate(host) {"]
    # Nothing is loaded from anywhere: what it asks, it asks the viewer.
    assert set(re.findall(r"https?://[^\s\"'`)]+", module)) <= {"http://127.0.0.1:4318", "http://www.w3.org/2000/svg"}


def test_each_module_is_there_once_and_before_whoever_imports_it() -> None:
    made = bundled(
        {
            "entry": 'import { one as first } from "./one.js";\nimport { two } from "./two.js";\nexport const go=1;\n',
            "one": 'import { two } from "./two.js";\nexport const one = two + 1;\n',
            "two": "const hidden = 2;\nexport const two = hidden;\n",
        }
    )
    assert made.count("const hidden = 2;") == 1
    assert made.index("const $two =") < made.index("const $one =") < made.index("export const go")
    assert "const { one: first } = $one;" in made
    assert "return { two };" in made


@pytest.mark.parametrize(
    "line",
    [
        'import two from "./two.js";',
        'import * as two from "./two.js";',
        'import "./two.js";',
        'import { two } from "https://elsewhere.example/two.js";',
        "export default 1;",
        "export { one };",
        'export * from "./two.js";',
    ],
)
def test_what_cannot_be_taken_apart_is_named(line: str) -> None:
    entry = 'import { one } from "./one.js";\nexport function go() {}\n'
    with pytest.raises(UnsupportedModule, match=rf"one\.js: cannot be bundled: {re.escape(line)}"):
        bundled({"entry": entry, "one": f"{line}\nexport const one = 1;\n", "two": "export const two = 2;\n"})


def test_a_circle_is_named() -> None:
    one = 'import { two } from "./two.js";\nexport const one = 1;\n'
    two = 'import { one } from "./one.js";\nexport const two = 2;\n'
    with pytest.raises(UnsupportedModule, match="entry imports one imports two imports one: a circle"):
        bundled({"entry": 'import { one } from "./one.js";\n', "one": one, "two": two})


def test_a_name_that_a_module_does_not_have_is_named() -> None:
    modules = {"entry": 'import { two as one, three } from "./two.js";\n', "two": "export const two = 2;\n"}
    with pytest.raises(UnsupportedModule, match=r"entry\.js: two\.js has no three"):
        bundled(modules)

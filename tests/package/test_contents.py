"""Wheel and sdist hold what people need, nothing else, and one comes of the other."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from openhands_otel._internal.version import __version__

from .conftest import ROOT, build

NAME = f"openhands_otel-{__version__}"
SOURCE = "src/openhands_otel/"
SHARED = f"{NAME}.data/data/share/openhands-otel/"
PLACED = {
    "deploy/grafana/dashboards/": f"{SHARED}grafana/dashboards/",
    "deploy/prometheus/rules/": f"{SHARED}prometheus/rules/",
}
"""Folders of the repository that stand elsewhere in the wheel."""
MADE = {"METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "RECORD"}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Files that belong to the repository, those that are to be added included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no repository here")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_wheel(name: str) -> str | None:
    """Where a file of the repository is in the wheel."""
    for folder, place in {SOURCE: "openhands_otel/", **PLACED}.items():
        if name.startswith(folder):
            return place + name.removeprefix(folder)
    return None


def test_the_wheel_holds_the_package_page_dashboards_and_rules_and_no_stray_file(
    wheel: Path, tracked: set[str]
) -> None:
    expected = {place for name in tracked if (place := in_wheel(name))}
    expected |= {f"{NAME}.dist-info/{name}" for name in MADE}
    found = contents(wheel)
    assert found.keys() == expected
    assert {"openhands_otel/_internal/viewer/page.html", "openhands_otel/py.typed"} <= found.keys()
    for name in ("grafana/dashboards/openhands-spend.json", "prometheus/rules/recording.yml"):
        assert SHARED + name in found


def test_the_sdist_holds_what_is_tracked_and_the_tests_and_no_stray_file(sdist: Path, tracked: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        names = {each.name.removeprefix(f"{NAME}/") for each in archive.getmembers() if each.isfile()}
    assert names - tracked == {"PKG-INFO"}
    folders = ("src/", "tests/", "docs/", "deploy/", "examples/", "scripts/", "benchmarks/")
    assert {name for name in tracked if name.startswith(folders)} <= names


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_repository(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (again,) = build(tmp_path / NAME, tmp_path / "dist", "wheel")
    assert contents(again) == contents(wheel)


def test_the_metadata_says_what_the_changelog_says(wheel: Path) -> None:
    metadata = message_from_bytes(contents(wheel)[f"{NAME}.dist-info/METADATA"])
    assert metadata["Version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    # An index takes no package whose requirements name a place.
    assert not [each for each in metadata.get_all("Requires-Dist", []) if "@" in each]

"""What is installed, and whether auto-instrumentation finds us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openhands_otel._internal.doctor.finding import Finding, note, ok, problem
from openhands_otel._internal.terminal_text import printable

_ENTRY_POINT: Final = "openhands = openhands_otel:OpenHandsInstrumentor"
_ONE_RELEASE: Final = ("openhands-sdk", "openhands-tools", "openhands-agent-server")
"""OpenHands releases them together and lets none of them name the others' version: pip makes pairs that never were."""


def check_versions(found: Mapping[str, Any], bundled: bool = False) -> list[Finding]:
    """``found`` is what ``surroundings.look`` says of a Python; ``bundled``: what it lacks of us, ``run`` brings."""
    packages: Mapping[str, str | None] = found["packages"]
    python = f"Python {found['python']} ({printable(str(found['executable']), 200)})"
    if tuple(map(int, str(found["python"]).split(".")[:2])) < (3, 12):
        return [problem("versions", f"{python} runs no OpenHands", "use Python 3.12 or newer")]
    told = ok("versions", f"{python}: {_told(packages)}")
    return [told, *_missing(packages, bundled), *apart(packages), *_at_odds(packages), *_entry_point(found, packages)]


def _told(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {printable(version, 40)}" for name, version in packages.items() if version)


def _missing(packages: Mapping[str, str | None], bundled: bool) -> list[Finding]:
    findings: list[Finding] = []
    if packages["openhands-sdk"] is None:
        findings.append(
            note("versions", "openhands-sdk is not there, so nothing is measured in this Python",
                 "install it, or name the command that has it: openhands-otel doctor -- CMD")
        )  # fmt: skip
    if packages["openhands-otel"] is None and packages["openhands-sdk"] is not None and bundled:
        findings.append(note("versions", "openhands-otel is not there: openhands-otel run brings it, in a bundle"))
    elif packages["openhands-otel"] is None:
        findings.append(
            problem(
                "versions", "openhands-otel is not there", "pip install 'openhands-otel[otlp,spans]' in that Python"
            )
        )
    elif packages["opentelemetry-sdk"] is None:
        findings.append(
            problem("versions", "OpenTelemetry's SDK is not there: nothing can be sent",
                    "pip install 'openhands-otel[otlp]'")
        )  # fmt: skip
    elif packages["opentelemetry-util-genai"] is None:
        findings.append(
            note("versions", "opentelemetry-util-genai is not there, so there are no spans of ours",
                 "pip install 'openhands-otel[spans]'")
        )  # fmt: skip
    if packages["openhands-sdk"] and not packages["openhands-tools"] and not packages["openhands-agent-server"]:
        findings.append(
            note("versions", "openhands-sdk stands alone: a client of an agent server spends nothing itself",
                 "instrument the server (docs/agent-server.md); here OPENHANDS_OTEL_REMOTE_STATS shows its numbers")
        )  # fmt: skip
    return findings


def apart(packages: Mapping[str, str | None]) -> list[Finding]:
    """OpenHands' packages of several releases, which nobody has tried together."""
    found = {name: version for name in _ONE_RELEASE if (version := packages.get(name))}
    if len({_release(version)[:2] for version in found.values()}) < 2:
        return []
    said = " and ".join(f"{name} {printable(version, 40)}" for name, version in found.items())
    newest = printable(max(found.values(), key=_release), 40)
    cure = f"pip install {' '.join(f'{name}=={newest}' for name in found)}"
    return [note("versions", f"{said} are of different releases, which may not fit", cure)]


def _at_odds(packages: Mapping[str, str | None]) -> list[Finding]:
    """OpenHands takes an attribute for there that a newer litellm has deleted: between a call's cost and its tokens."""
    sdk, litellm = packages["openhands-sdk"], packages["litellm"]
    if sdk is None or litellm is None or _release(sdk)[:2] != (1, 49) or _release(litellm) < (1, 95):
        return []
    pair = f"openhands-sdk {printable(sdk, 40)} fails with litellm {printable(litellm, 40)}"
    cure = (
        "install 'litellm<1.95' there; where uvx installs it (Agent Canvas), UV_CONSTRAINT names a file with that line"
    )
    return [problem("versions", f"{pair} at each answer: its cost is recorded, its tokens are lost", cure)]


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _entry_point(found: Mapping[str, Any], packages: Mapping[str, str | None]) -> list[Finding]:
    if packages["openhands-otel"] is None:
        return []
    if _ENTRY_POINT in found["entry_points"]:
        return [ok("entry point", "opentelemetry-instrument and openhands-otel run find the instrumentor")]
    return [
        problem("entry point", "opentelemetry-instrument does not find the instrumentor",
                "install openhands-otel anew: pip install --force-reinstall --no-deps openhands-otel")
    ]  # fmt: skip

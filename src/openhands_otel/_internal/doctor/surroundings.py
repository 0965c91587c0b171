"""What a Python has: a program of its own, that any Python from 3.8 on runs, whether we are installed there or not."""

import json
import sys
from importlib import metadata

PACKAGES = (
    "openhands-otel",
    "openhands-sdk",
    "openhands-tools",
    "openhands-agent-server",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-instrumentation",
    "opentelemetry-util-genai",
    "lmnr",
    "litellm",
)
GROUP = "opentelemetry_instrumentor"


def version_of(package: str) -> "str | None":
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def entry_points() -> "list[str]":
    """Of instrumentors, ``name = module:class``; read as they stand, so that a broken one breaks nothing here."""
    found: set[str] = set()
    for distribution in metadata.distributions():
        try:
            found |= {f"{each.name} = {each.value}" for each in distribution.entry_points if each.group == GROUP}
        except Exception:  # of another's broken package
            continue
    return sorted(found)


def look() -> "dict[str, object]":
    return {
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "executable": sys.executable,
        "packages": {package: version_of(package) for package in PACKAGES},
        "entry_points": entry_points(),
    }


if __name__ == "__main__":
    print(json.dumps(look()))

"""Which servers there are: the Go module each is built from, and the release whose image docker-compose.yml names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Program:
    """One binary. ``pins`` is a folder beside this file with the go.mod and go.sum that it is built from."""

    name: str
    pins: str
    package: str
    release: str
    tags: tuple[str, ...] = ()
    version_variable: str = ""
    """Where the binary keeps the version it shows; a build from a module leaves it empty."""

    @property
    def folder(self) -> Path:
        return PINS / self.pins

    @property
    def generated(self) -> bool:
        """A collector's sources are made from its manifest by OpenTelemetry's builder."""
        return (self.folder / "manifest.yaml").exists()


_PROMETHEUS = "github.com/prometheus/prometheus"
_PROMETHEUS_TAGS = ("netgo", "remove_all_sd")
_PROMETHEUS_VERSION = "github.com/prometheus/common/version.Version"
_THANOS = "github.com/thanos-io/thanos"
_CADDY = "github.com/caddyserver/caddy/v2"
_JAEGER = "github.com/jaegertracing/jaeger"

PROGRAMS = {
    program.name: program
    for program in (
        Program("builder", "builder", "go.opentelemetry.io/collector/cmd/builder", "0.161.0"),
        Program("collector", "collector", ".", "0.161.0"),
        Program(
            "prometheus", "prometheus", f"{_PROMETHEUS}/cmd/prometheus", "3.16.0", _PROMETHEUS_TAGS, _PROMETHEUS_VERSION
        ),
        Program(
            "promtool", "prometheus", f"{_PROMETHEUS}/cmd/promtool", "3.16.0", _PROMETHEUS_TAGS, _PROMETHEUS_VERSION
        ),
        Program(
            "jaeger",
            "jaeger",
            f"{_JAEGER}/cmd/jaeger",
            "2.13.0",
            version_variable=f"{_JAEGER}/internal/version.latestVersion",
        ),
        # Without slicelabels it crashes at the first request.
        Program("thanos", "thanos", f"{_THANOS}/cmd/thanos", "0.42.4", ("netgo", "slicelabels"), _PROMETHEUS_VERSION),
        Program("caddy", "caddy", f"{_CADDY}/cmd/caddy", "2.11.9", version_variable=f"{_CADDY}.CustomVersion"),
    )
}

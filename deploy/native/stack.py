"""The stack as processes: the configuration that docker-compose.yml mounts, other addresses and folders.

Everything that has to survive is in one folder: the token, the collector's queue, Prometheus' and Jaeger's data.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploy.native import variables
from deploy.native.build import binary
from deploy.native.ports import HOST, Ports
from deploy.native.server import Server
from deploy.native.servers import Servers
from deploy.native.variables import url

ROOT = Path(__file__).resolve().parent.parent.parent
COLLECTOR_CONFIG = ROOT / "collector-config.yaml"
TLS_CONFIG = ROOT / "deploy" / "collector" / "tls.yaml"
PROMETHEUS_FOLDER = ROOT / "deploy" / "prometheus"
JAEGER_CONFIG = ROOT / "deploy" / "jaeger" / "jaeger.yaml"
PROMETHEUS_FLAGS = (
    "--web.enable-otlp-receiver",
    "--enable-feature=exemplar-storage",
    "--storage.tsdb.retention.time=90d",
    # Without this, any web page that is open in a browser of this machine could write here.
    "--web.cors.origin=https?://(127\\.0\\.0\\.1|localhost)(:[0-9]+)?",
)
"""What docker-compose.yml has too; addresses and folders come on top."""


class Stack(Servers):
    """Collector, Prometheus and Jaeger on loopback.

    ``overlays`` are configuration files over the collector's own, ``tls`` is a folder with tls.crt and tls.key, and
    ``scrape_ports`` are those of collectors that Prometheus scrapes, where its configuration is the one that does.
    """

    def __init__(
        self,
        data: Path,
        ports: Ports | None = None,
        *,
        overlays: Sequence[Path] = (),
        tls: Path | None = None,
        prometheus_config: str = "prometheus.yml",
        scrape_ports: Sequence[int] = (),
    ) -> None:
        self.data = data
        self.ports = ports or Ports.free()
        self.token_file = data / "token"
        self._overlays = [*([TLS_CONFIG] if tls else []), *overlays]
        self._tls = tls
        self._prometheus_config = prometheus_config
        self._scrape_ports = scrape_ports or (self.ports.scrape,)
        self.collector = self._collector()
        self.prometheus = self._prometheus()
        self.jaeger = self._jaeger()

    @property
    def servers(self) -> tuple[Server, ...]:
        """In the order in which they start; they stop in the opposite one."""
        return self.prometheus, self.jaeger, self.collector

    @property
    def otlp_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.ports.otlp_http}"

    @property
    def grpc_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.ports.otlp_grpc}"

    @property
    def prometheus_url(self) -> str:
        return url(self.ports.prometheus)

    @property
    def jaeger_url(self) -> str:
        return url(self.ports.jaeger_query)

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def _collector(self) -> Server:
        configs = [f"--config={path}" for path in (COLLECTOR_CONFIG, *self._overlays)]
        given = {**variables.of_collector(self.data, self.ports), "TLS_DIRECTORY": str(self._tls or "")}
        return self._server("collector", configs, url(self.ports.collector_health), given)

    def _prometheus(self) -> Server:
        arguments = [
            *PROMETHEUS_FLAGS,
            f"--config.file={self.data / 'etc' / 'prometheus' / self._prometheus_config}",
            f"--storage.tsdb.path={self.data / 'prometheus'}",
            f"--web.listen-address={HOST}:{self.ports.prometheus}",
        ]
        return self._server("prometheus", arguments, f"{self.prometheus_url}/-/ready")

    def _jaeger(self) -> Server:
        ready = f"{url(self.ports.jaeger_health)}/status"
        given = variables.of_jaeger(self.data, self.ports)
        return self._server("jaeger", [f"--config={JAEGER_CONFIG}"], ready, given)

    def _server(
        self, name: str, arguments: Sequence[str], ready_url: str, given: dict[str, str] | None = None
    ) -> Server:
        log = self.data / "logs" / f"{name}.log"
        return Server(name, [str(binary(name)), *arguments], ready_url, log, given)

    def _lay_out(self) -> None:
        # Prometheus looks for rules and targets beside its configuration; the targets are this stack's own.
        etc = self.data / "etc" / "prometheus"
        for folder in (etc / "targets", etc / "agents", self.data / "jaeger"):
            folder.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        for name in (self._prometheus_config, "rules"):
            with suppress(FileNotFoundError):
                (etc / name).unlink()
            (etc / name).symlink_to(PROMETHEUS_FOLDER / name)
        (etc / "targets" / "native.yml").write_text(json.dumps(self._targets(), indent=2))
        agents = [f"{HOST}:{port}" for port in self._scrape_ports]
        (etc / "agents" / "native.yml").write_text(json.dumps([{"targets": agents}]))
        if not self.token_file.exists():
            write_secret(self.token_file, secrets.token_hex(32))

    def _targets(self) -> list[dict[str, object]]:
        ports = {
            "collector": self.ports.collector_telemetry,
            "prometheus": self.ports.prometheus,
            "jaeger": self.ports.jaeger_telemetry,
            "jaeger-span-metrics": self.ports.jaeger_span_metrics,
        }
        return [{"targets": [f"{HOST}:{port}"], "labels": {"program": name}} for name, port in ports.items()]


def write_secret(file: Path, text: str) -> None:
    """Nobody else can read it, not even for a moment; what is there already stays."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)

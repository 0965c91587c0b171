"""The fleet as processes: gateways behind one address, Thanos Receive in three copies, Thanos Query and Ruler.

The same gateway.yaml and Caddyfile as in ``deploy/fleet/compose.yaml``. Traces are as in the stack of one machine.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Final

from deploy.native.build import binary
from deploy.native.ports import HOST, free_ports
from deploy.native.server import Server
from deploy.native.servers import Servers
from deploy.native.stack import COLLECTOR_CONFIG, PROMETHEUS_FOLDER, ROOT, write_secret
from deploy.native.variables import url

FOLDER: Final = ROOT / "deploy" / "fleet"
RECEIVE_FLAGS: Final = (
    "--receive.replication-factor=3",
    "--receive.hashrings-algorithm=ketama",
    "--receive.otlp-promote-resource-attributes=service.namespace",
    "--receive.otlp-promote-resource-attributes=service.version",
    "--receive.otlp-promote-resource-attributes=deployment.environment.name",
    "--receive.otlp-promote-resource-attributes=host.name",
    "--receive.otlp-promote-resource-attributes=openhands.label.team",
    "--receive.otlp-promote-resource-attributes=openhands.label.project",
    "--receive.otlp-promote-resource-attributes=openhands.label.experiment",
    "--tsdb.out-of-order.time-window=1d",
    "--tsdb.max-exemplars=100000",
    "--tsdb.retention=90d",
)
"""What compose.yaml has too; addresses and folders come on top."""
RULE_FLAGS: Final = ("--eval-interval=15s", '--label=rule_replica="0"', "--alert.label-drop=rule_replica")
RULE_REPLICA: Final = "rule_replica"
REPLICA: Final = "receive_replica"


class Fleet(Servers):
    """Starts in an order in which each finds what it needs; any part may be killed."""

    def __init__(self, data: Path, gateways: int = 2, receivers: int = 3) -> None:
        self._data = data
        self.token_file = data / "token"
        ports = iter(free_ports(8 + 4 * gateways + 4 * receivers))
        self._otlp_http, self._otlp_grpc, self._receive, self._query = (next(ports) for _ in range(4))
        self._query_grpc, self._rule, self._rule_grpc, self._scraper = (next(ports) for _ in range(4))
        self._gateway_ports = [[next(ports) for _ in range(4)] for _ in range(gateways)]
        self._receiver_ports = [[next(ports) for _ in range(4)] for _ in range(receivers)]
        self.receivers = [self._receiver(number) for number in range(receivers)]
        self.gateways = [self._gateway(number) for number in range(gateways)]
        self.balancer = self._balancer()
        self.query = self._querier()
        self.rule = self._ruler()
        self.scraper = self._scraping()

    @property
    def servers(self) -> tuple[Server, ...]:
        return *self.receivers, self.query, self.rule, self.balancer, *self.gateways, self.scraper

    @property
    def otlp_url(self) -> str:
        return url(self._otlp_http)

    @property
    def query_url(self) -> str:
        return url(self._query)

    def metrics_url(self, server: Server) -> str:
        """Where a gateway or a receiver tells of itself."""
        telemetry = dict(zip(self.gateways, (each[3] for each in self._gateway_ports), strict=True))
        telemetry |= dict(zip(self.receivers, (each[0] for each in self._receiver_ports), strict=True))
        return f"{url(telemetry[server])}/metrics"

    def _receiver(self, number: int) -> Server:
        http, grpc, write, capnproto = self._receiver_ports[number]
        ring = [{"endpoints": [f"{HOST}:{each[1]}" for each in self._receiver_ports]}]
        arguments = [
            "receive",
            *RECEIVE_FLAGS,
            f"--receive.hashrings={json.dumps(ring)}",
            f"--receive.local-endpoint={HOST}:{grpc}",
            f'--label={REPLICA}="{number}"',
            f"--tsdb.path={self._data / f'receive-{number}'}",
            f"--http-address={HOST}:{http}",
            f"--grpc-address={HOST}:{grpc}",
            f"--remote-write.address={HOST}:{write}",
            f"--receive.capnproto-address={HOST}:{capnproto}",
        ]
        return self._server("thanos", f"receive-{number}", arguments, f"{url(http)}/-/ready")

    def _querier(self) -> Server:
        arguments = [
            "query",
            *(f"--query.replica-label={label}" for label in (REPLICA, RULE_REPLICA)),
            *(f"--endpoint={HOST}:{each[1]}" for each in self._receiver_ports),
            f"--endpoint={HOST}:{self._rule_grpc}",
            f"--http-address={HOST}:{self._query}",
            f"--grpc-address={HOST}:{self._query_grpc}",
        ]
        return self._server("thanos", "query", arguments, f"{self.query_url}/-/ready")

    def _ruler(self) -> Server:
        arguments = [
            "rule",
            *RULE_FLAGS,
            f"--query={self.query_url}",
            f"--rule-file={PROMETHEUS_FOLDER / 'rules' / '*.yml'}",
            f"--data-dir={self._data / 'rule'}",
            f"--http-address={HOST}:{self._rule}",
            f"--grpc-address={HOST}:{self._rule_grpc}",
        ]
        return self._server("thanos", "rule", arguments, f"{url(self._rule)}/-/ready")

    def _scraping(self) -> Server:
        arguments = [
            "--agent",
            f"--config.file={self._data / 'scraper' / 'scraper.yml'}",
            f"--storage.agent.path={self._data / 'scraper' / 'data'}",
            f"--web.listen-address={HOST}:{self._scraper}",
        ]
        return self._server("prometheus", "scraper", arguments, f"{url(self._scraper)}/-/ready")

    def _lay_out(self) -> None:
        targets = self._data / "scraper" / "targets"
        targets.mkdir(parents=True, exist_ok=True)
        gateways = {
            "targets": [f"{HOST}:{each[3]}" for each in self._gateway_ports],
            "labels": {"program": "collector"},
        }
        (targets / "native.yml").write_text(json.dumps([gateways]))
        config = (FOLDER / "scraper.yml").read_text().replace("http://receivers:19291", url(self._receive))
        (self._data / "scraper" / "scraper.yml").write_text(config)
        if not self.token_file.exists():
            write_secret(self.token_file, secrets.token_hex(32))

    def _gateway(self, number: int) -> Server:
        http, grpc, health, telemetry = self._gateway_ports[number]
        variables = {
            "OTLP_TOKEN_FILE": str(self.token_file),
            "QUEUE_DIRECTORY": str(self._data / f"gateway-{number}"),
            "OTLP_HTTP_ADDRESS": f"{HOST}:{http}",
            "OTLP_GRPC_ADDRESS": f"{HOST}:{grpc}",
            "HEALTH_ADDRESS": f"{HOST}:{health}",
            "TELEMETRY_PORT": str(telemetry),
            "RECEIVE_URL": url(self._receive),
            "GOMEMLIMIT": "400MiB",
        }
        arguments = [f"--config={file}" for file in (COLLECTOR_CONFIG, FOLDER / "gateway.yaml")]
        return self._server("collector", f"gateway-{number}", arguments, url(health), variables)

    def _balancer(self) -> Server:
        variables = {
            "OTLP_BIND": HOST,
            "RECEIVE_BIND": HOST,
            "OTLP_HTTP_PORT": str(self._otlp_http),
            "OTLP_GRPC_PORT": str(self._otlp_grpc),
            "RECEIVE_PORT": str(self._receive),
            "GATEWAYS_HTTP": " ".join(f"{HOST}:{each[0]}" for each in self._gateway_ports),
            "GATEWAYS_GRPC": " ".join(f"{HOST}:{each[1]}" for each in self._gateway_ports),
            "RECEIVERS": " ".join(f"{HOST}:{each[2]}" for each in self._receiver_ports),
        }
        arguments = ["run", "--adapter=caddyfile", f"--config={FOLDER / 'Caddyfile'}"]
        return self._server("caddy", "balancer", arguments, f"{url(self._receive)}/ready", variables)

    def _server(
        self, program: str, name: str, arguments: list[str], ready_url: str, variables: dict[str, str] | None = None
    ) -> Server:
        log = self._data / "logs" / f"{name}.log"
        return Server(name, [str(binary(program)), *arguments], ready_url, log, variables)

"""What the configuration files ask the environment for: addresses, folders, limits; as docker-compose.yml has it."""

from __future__ import annotations

from pathlib import Path

from deploy.native.ports import HOST, Ports


def url(port: int) -> str:
    return f"http://{HOST}:{port}"


def of_collector(data: Path, ports: Ports) -> dict[str, str]:
    return {
        "OTLP_TOKEN_FILE": str(data / "token"),
        "QUEUE_DIRECTORY": str(data / "collector"),
        "OTLP_GRPC_ADDRESS": f"{HOST}:{ports.otlp_grpc}",
        "OTLP_HTTP_ADDRESS": f"{HOST}:{ports.otlp_http}",
        "HEALTH_ADDRESS": f"{HOST}:{ports.collector_health}",
        "SCRAPE_ADDRESS": f"{HOST}:{ports.scrape}",
        "TELEMETRY_HOST": HOST,
        "TELEMETRY_PORT": str(ports.collector_telemetry),
        "PROMETHEUS_URL": url(ports.prometheus),
        "JAEGER_URL": url(ports.jaeger_otlp),
        "GOMEMLIMIT": "400MiB",
    }


def of_jaeger(data: Path, ports: Ports) -> dict[str, str]:
    return {
        "JAEGER_DATA": str(data / "jaeger"),
        "JAEGER_HEALTH_ADDRESS": f"{HOST}:{ports.jaeger_health}",
        "JAEGER_QUERY_ADDRESS": f"{HOST}:{ports.jaeger_query}",
        "JAEGER_QUERY_GRPC_ADDRESS": f"{HOST}:{ports.jaeger_query_grpc}",
        "JAEGER_OTLP_ADDRESS": f"{HOST}:{ports.jaeger_otlp}",
        "JAEGER_SPAN_METRICS_ADDRESS": f"{HOST}:{ports.jaeger_span_metrics}",
        "JAEGER_TELEMETRY_HOST": HOST,
        "JAEGER_TELEMETRY_PORT": str(ports.jaeger_telemetry),
        "PROMETHEUS_URL": url(ports.prometheus),
        "GOMEMLIMIT": "800MiB",
    }

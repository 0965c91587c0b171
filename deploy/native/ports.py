"""Where each server of the stack listens: the customary port where it is free, otherwise one that is."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

HOST = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections, so that none is taken between look and use.
_RANGE = range(12000, 30000)


@dataclass(frozen=True)
class Ports:
    otlp_grpc: int = 4317
    otlp_http: int = 4318
    scrape: int = 8889
    collector_health: int = 13133
    collector_telemetry: int = 8888
    prometheus: int = 9090
    jaeger_query: int = 16686
    jaeger_query_grpc: int = 16685
    jaeger_otlp: int = 14318
    jaeger_span_metrics: int = 8890
    jaeger_telemetry: int = 8891
    jaeger_health: int = 13134

    @classmethod
    def free(cls, customary: bool = False) -> Ports:
        """All different, none of them in use now."""
        taken: set[int] = set()
        chosen: dict[str, int] = {}
        for name, usual in vars(cls()).items():
            chosen[name] = usual if customary and usual not in taken and is_free(usual) else _another(taken)
            taken.add(chosen[name])
        return cls(**chosen)


def free_ports(count: int) -> list[int]:
    """So many, all different, none of them in use now."""
    taken: set[int] = set()
    while len(taken) < count:
        taken.add(_another(taken))
    return list(taken)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _another(taken: set[int]) -> int:
    while True:
        port = random.choice(_RANGE)
        if port not in taken and is_free(port):
            return port

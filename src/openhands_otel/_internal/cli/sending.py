"""What the commands have in common that send what was kept: to where, as whom, and that it is told after the event."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import OtlpConfig, read_otlp_config
from openhands_otel._internal.export.spool.delivery import Send
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.process.replays import send_body
from openhands_otel.semconv import REPLAYED_HEADER


def add_destination(parser: argparse.ArgumentParser, to_where: str) -> None:
    """Options that say where to send; ``to_where`` is the endpoint's help."""
    parser.add_argument("--endpoint", metavar="URL", help=to_where)
    parser.add_argument("--protocol", choices=("http/protobuf", "grpc"), help="with --endpoint (http/protobuf)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to show")


def replay_config(arguments: argparse.Namespace, meant_for: Destination | None = None) -> OtlpConfig:
    """How to get to the endpoint that the options name, or else to whom it is ``meant_for``, or the environment names.

    What opens a door stands in the environment, and is shown at that door alone.
    """
    own = read_otlp_config(token_file=arguments.token_file)
    there = own
    if arguments.endpoint is not None:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": arguments.endpoint}
        given["OTEL_EXPORTER_OTLP_PROTOCOL"] = arguments.protocol or "http/protobuf"
        there = read_otlp_config(given, arguments.token_file)
    elif meant_for is not None:
        there = OtlpConfig(
            protocol="grpc" if meant_for.protocol == "grpc" else "http/protobuf",
            endpoint=meant_for.endpoint,
            insecure=meant_for.scheme == "http",
            token_file=arguments.token_file,
        )
    if _is(own, there):
        there = own
    return replace(there, headers={**there.headers, REPLAYED_HEADER: "1"})


def _is(one: OtlpConfig, other: OtlpConfig) -> bool:
    try:
        return _destination(one) == _destination(other)
    except ValueError:
        return False


def _destination(config: OtlpConfig) -> Destination:
    return Destination.of(config.protocol, config.endpoint, config.insecure)


def sender_to(config: OtlpConfig) -> Send:
    """What sends one request there."""
    transport = open_transport(config)
    return lambda body: send_body(transport, body, config.timeout_s)

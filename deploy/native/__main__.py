"""``python -m deploy.native up`` (or ``fleet``) runs servers; ``build PROGRAM ...`` builds what is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.native.build import BuildError, binary, lock
from deploy.native.programs import PROGRAMS
from deploy.native.server import ServerError
from deploy.native.up import default_data, fleet, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description="The stack as native processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, data, what in (
        ("up", "stack", "run collector, Prometheus and Jaeger until Ctrl-C"),
        ("fleet", "fleet", "run gateways, Thanos and what is before them until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("--data", type=Path, default=default_data(data), help="folder to keep (%(default)s)")
    for name, what in (("build", "build what is missing, print the binaries' paths"), ("lock", "resolve pins anew")):
        command = commands.add_parser(name, help=what)
        command.add_argument("programs", metavar="PROGRAM", nargs="+", choices=[*PROGRAMS])
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (BuildError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command in ("up", "fleet"):
        (up if arguments.command == "up" else fleet)(arguments.data.absolute())
        return
    for name in arguments.programs:
        if arguments.command == "lock":
            lock(name)
        print(binary(name), flush=True)


if __name__ == "__main__":
    sys.exit(main())

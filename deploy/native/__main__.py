"""``python -m deploy.native up`` runs the stack; ``build PROGRAM ...`` builds what is missing, says where it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.native.build import BuildError, binary, lock
from deploy.native.programs import PROGRAMS
from deploy.native.server import ServerError
from deploy.native.up import default_data, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description="The stack as native processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("up", help="run collector, Prometheus and Jaeger until Ctrl-C")
    command.add_argument("--data", type=Path, default=default_data(), help="folder to keep (default: %(default)s)")
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
    if arguments.command == "up":
        up(arguments.data.absolute())
        return
    for name in arguments.programs:
        if arguments.command == "lock":
            lock(name)
        print(binary(name), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m deploy.native build PROGRAM ...`` prints where each binary is, and builds what is missing."""

from __future__ import annotations

import argparse
import sys

from deploy.native.build import BuildError, binary, lock
from deploy.native.programs import PROGRAMS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.native", description="The stack as native processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("build", "build what is missing, print the binaries' paths"), ("lock", "resolve pins anew")):
        command = commands.add_parser(name, help=what)
        command.add_argument("programs", metavar="PROGRAM", nargs="+", choices=[*PROGRAMS])
    arguments = parser.parse_args()
    try:
        for name in arguments.programs:
            if arguments.command == "lock":
                lock(name)
            print(binary(name), flush=True)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

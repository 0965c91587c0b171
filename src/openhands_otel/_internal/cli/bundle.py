"""``openhands-otel bundle DIR``: the folder that instruments Pythons where this package is not installed."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from openhands_otel._internal.cli import PROGRAM, CommandError
from openhands_otel._internal.launch import bundle


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{PROGRAM} bundle DIR"
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder to make, or a bundle to replace")


def run(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder).absolute()
    try:
        contents = bundle.make(folder)
    except bundle.BundleError as error:
        raise CommandError(str(error), code=2) from None
    except OSError as error:
        raise CommandError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    packages = f"{len(contents.packages) - 1} packages"
    print(f"{PROGRAM} {contents.version} with {packages}, for Python {bundle.PYTHONS[0]} and later: {folder}")
    compiled = [name for name, reason in contents.left_out.items() if reason == "compiled"]
    others = [f"{name} ({reason})" for name, reason in contents.left_out.items() if reason != "compiled"]
    if compiled:
        print(f"left to the environment, being compiled: {', '.join(compiled)}")
    if others:
        print(f"left to the environment: {', '.join(others)}")
    print(f"to use it: PYTHONPATH={shlex.quote(str(bundle.site_of(folder)))}")
    return 0

"""What ``openhands-otel run`` makes of a program, in a process that was forked off a Python with OpenHands imported.

The environment is what the command computes, and our ``sitecustomize`` is found where it says so and run, as a Python
does at its start. What differs: OpenHands is there already, so instrumentation starts at once and not when the program
imports it. For tests of what is told of a run; those of the start itself execute the command.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence


def begin(options: Sequence[str], program: str) -> None:
    """Instrument this process. ``program``: the script that it is about to run."""
    from openhands_otel._internal.cli import run
    from openhands_otel._internal.launch.command import read_python

    parser = argparse.ArgumentParser()
    run.configure(parser)
    words = [sys.executable, program]
    way = run.way_in()
    os.environ |= run.environment_of(
        words, read_python(sys.executable, words), parser.parse_args([*options, "--", *words]), way
    )
    sys.path.insert(0, str(way.site))
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")
    # What waits there for OpenHands sees at the next import, of anything, that it is there.
    importlib.util.find_spec("nothing_of_this_name")

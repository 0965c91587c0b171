"""A Python that has imported OpenHands and forks a process of its own for each program: the import takes six seconds.

What a child runs is a main program that ends as main programs do (finalizers, threads, exit status, signals). Requests
come as JSON lines on standard input; the answers say when a child was born and when and how it ended. Nothing of ours
is imported before the fork, and there is no thread.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import time
import types
from typing import Any

from stopwatch import waited_s


def serve() -> dict[str, Any]:
    """Fork for each request; returns the request in the child, and exits at the end of input in the parent."""
    children: set[int] = set()
    while True:
        readable, _, _ = select.select([0], [], [], 0.003 if children else 1)
        for pid in tuple(children):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                at, waited = time.monotonic(), waited_s(f"/proc/{pid}")
                _, status, usage = os.wait4(pid, 0)
                children.discard(pid)
                cpu_s = usage.ru_utime + usage.ru_stime
                code = os.waitstatus_to_exitcode(status)
                say({"pid": pid, "code": code, "at": at, "waited_s": waited, "cpu_s": cpu_s})
        if not readable:
            continue
        line = sys.stdin.buffer.raw.readline()  # unbuffered: a child must inherit no half-read request
        if not line:
            os._exit(0)
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        children.add(pid)
        say({"born": pid})


def say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def become(request: dict[str, Any]) -> None:
    """Take on what the request names: environment, directory, standard streams."""
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["directory"])
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        opened = os.open(name, flags | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)


import openhands.sdk  # noqa: E402

gc.collect()
gc.freeze()
say({"ready": openhands.sdk.__version__})
_request = serve()
become(_request)
# It has no file, so that children that multiprocessing spawns don't run it again.
_main = types.ModuleType("__main__")
sys.modules["__main__"] = _main
sys.argv = [_request["program"]]
exec(compile(_request["source"], _request["program"], "exec"), _main.__dict__)

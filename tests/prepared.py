"""A Python that has imported what its arguments name, and forks a process of its own for each program.

The import of OpenHands takes six seconds, that of a viewer half of one. What a child runs is a main program that ends
as main programs do (finalizers, threads, exit status, signals). Requests come as JSON lines on standard input; the
answers say when a child was born and when and how it ended. There is no thread. It ends when its input does, as when
the tests are killed, and no child outlives it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import types
from typing import Any

from stopwatch import waited_s

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux; a child's own children do not inherit it."""


def serve() -> dict[str, Any]:
    """Fork for each request; returns the request in the child, and exits at the end of input in the parent."""
    children: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([0, *children], [], [])
        for ended in (set(readable) & children.keys()) - {0}:
            pid = children.pop(ended)
            # How long it waited for a processor can be read as long as nobody has reaped it.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            at, waited = time.monotonic(), waited_s(f"/proc/{pid}")
            _, status, usage = os.wait4(pid, 0)
            os.close(ended)
            cpu_s = usage.ru_utime + usage.ru_stime
            code = os.waitstatus_to_exitcode(status)
            say({"pid": pid, "code": code, "at": at, "waited_s": waited, "cpu_s": cpu_s})
        if 0 not in readable:
            continue
        line = sys.stdin.buffer.raw.readline()  # unbuffered: a child must inherit no half-read request
        if not line:
            os._exit(0)
        request = json.loads(line)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for other in children:
                os.close(other)
            return request
        children[os.pidfd_open(pid)] = pid
        say({"born": pid})


def say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def become(request: dict[str, Any]) -> None:
    """Take on what the request names: environment, directory, standard streams."""
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    streams = (request["in"], os.O_RDONLY), (request["out"], os.O_WRONLY), (request["err"], os.O_WRONLY)
    for number, (file, flags) in enumerate(streams):
        opened = os.open(file, flags | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["directory"])


_libc = ctypes.CDLL(None)
for _name in sys.argv[1:]:
    importlib.import_module(_name)
gc.collect()
gc.freeze()
say({"ready": sys.argv[1:]})
_request = serve()
become(_request)
if _request["under_run"] is not None:
    importlib.import_module("under_run").begin(_request["under_run"], _request["program"])
# It has no file, so that children that multiprocessing spawns don't run it again.
_main = types.ModuleType("__main__")
sys.modules["__main__"] = _main
sys.argv = [_request["program"], *_request["arguments"]]
exec(compile(_request["source"], _request["program"], "exec"), _main.__dict__)

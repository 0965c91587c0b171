"""Processes forked off a Python that has imported already what they need: a start takes milliseconds, not seconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Child:
    """A program that runs in a process of its own."""

    pid: int
    directory: Path
    ended: threading.Event = field(default_factory=threading.Event)
    code: int = 0
    at: float = 0.0
    waited_s: float = 0.0
    cpu_s: float = 0.0

    def wait(self, timeout_s: float = 400) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        assert self.ended.wait(timeout_s), f"still running after {timeout_s} s; {self.err_so_far}"
        return self.code

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text()

    @property
    def err_so_far(self) -> str:
        """The same where its streams are elsewhere: nothing."""
        return self.err if (self.directory / "err").exists() else ""

    @property
    def log(self) -> list[str]:
        """Lines on standard error."""
        return [line for line in self.err.splitlines() if line.strip()]

    @property
    def marks(self) -> dict[str, float]:
        """Times (monotonic) of the marks that it made."""
        return {name: float(at) for name, at, *_ in (line.split() for line in self.out.splitlines())}

    def wait_for(self, name: str, timeout_s: float = 400) -> float:
        """Wait for a mark."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.out.endswith("\n") and name in self.marks:
                return self.marks[name]
            assert not self.ended.is_set(), f"ended with {self.code} before {name!r}; {self.err}"
            time.sleep(0.005)
        raise AssertionError(f"no mark {name!r} within {timeout_s} s; {self.err}")

    def first_line(self) -> str:
        """What it prints first."""
        line = next(self.lines(), None)
        assert line is not None, f"ended with {self.code} without a word; {self.err}"
        return line

    def lines(self, timeout_s: float = 400) -> Iterator[str]:
        """What it prints, line by line as it comes, to its end."""
        known, deadline = 0, time.monotonic() + timeout_s
        while True:
            ended = self.ended.is_set()
            whole = self.out.split("\n")[:-1]
            yield from whole[known:]
            known = len(whole)
            if ended:
                return
            assert time.monotonic() < deadline, f"still running after {timeout_s} s; {self.err}"
            time.sleep(0.005)

    def exit_time(self, name: str = "end") -> float:
        """Seconds from a mark to the end of the process, without those in which its main thread had no processor."""
        _, at, waited_s = next(line.split() for line in self.out.splitlines() if line.startswith(f"{name} "))
        return self.at - float(at) - (self.waited_s - float(waited_s))

    def poll(self) -> int | None:
        """Its exit code, None as long as it runs."""
        return self.code if self.ended.is_set() else None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if not self.ended.is_set():
            # That it has ended is known a moment after it has.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    send_signal = kill

    def terminate(self) -> None:
        self.kill(signal.SIGTERM)


class Prepared:
    """Forks children off a Python that has imported ``modules``; see ``prepared.py``. ``paths``: first in theirs."""

    def __init__(self, *modules: str, paths: Sequence[Path] = ()) -> None:
        # Plain log lines, for counting; OpenHands would draw boxes.
        environ = {
            **os.environ,
            "LOG_AUTO_CONFIG": "false",
            "PYTHONPATH": os.pathsep.join((*map(str, paths), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep),
        }
        words = [sys.executable, str(Path(__file__).with_name("prepared.py")), *modules]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        self._children: dict[int, Child] = {}
        self._starting = threading.Lock()
        self._born = threading.Condition()
        self._answers: list[int] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(
        self,
        source: str,
        directory: Path,
        environ: Mapping[str, str],
        arguments: Sequence[str] = (),
        streams: tuple[Path, Path] | None = None,
        under_run: Sequence[str] | None = None,
        stdin: Path | str = os.devnull,
    ) -> Child:
        """Run ``source`` as a main program in ``directory``; what it prints goes to ``out`` and ``err`` in there.

        With ``under_run`` as under ``openhands-otel run`` with these options; see ``under_run.py``.
        """
        assert self._ready.wait(250), "what is to be prepared could not be imported"
        out, err = streams or (directory / "out", directory / "err")
        if streams is None:
            out.touch()
            err.touch()
        program = {
            "program": str(directory / "program.py"),
            "source": textwrap.dedent(source),
            "arguments": list(arguments),
            "directory": str(directory),
            "environ": dict(environ),
            "in": str(stdin),
            "out": str(out),
            "err": str(err),
            "under_run": None if under_run is None else list(under_run),
        }
        with self._starting, self._born:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(program).encode() + b"\n")
            self._process.stdin.flush()
            assert self._born.wait_for(lambda: self._answers, 100), "no child was born"
            child = self._children[self._answers.pop()]
        child.directory = directory
        return child

    def run(
        self,
        source: str,
        directory: Path,
        *options: str,
        arguments: Sequence[str] = (),
        stdin: Path | str = os.devnull,
        **environ: str,
    ) -> Child:
        """Do so as under ``openhands-otel run`` with these options, with a home in ``directory``: ``under_run.py``."""
        home = dict.fromkeys(("HOME", "XDG_STATE_HOME"), str(directory))
        # Where a bundle is kept; a new one would take longer than all else.
        home["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return self.start(source, directory, os.environ | home | environ, arguments, under_run=options, stdin=stdin)

    def stop(self) -> None:
        for child in self._children.values():
            if not child.ended.is_set():
                child.kill(signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(100)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                self._ready.set()
            elif "born" in answer:
                with self._born:
                    self._children[answer["born"]] = Child(answer["born"], Path())
                    self._answers.append(answer["born"])
                    self._born.notify_all()
            else:
                child = self._children[answer["pid"]]
                child.code, child.cpu_s = answer["code"], answer["cpu_s"]
                child.at, child.waited_s = answer["at"], answer["waited_s"]
                child.ended.set()


def with_openhands() -> Prepared:
    """Nothing of ours is imported before the fork; what the programs of ``telemetry`` share is found.

    The first call of an LLM imports ``openai.resources``, which is half a second.
    """
    return Prepared("openhands.sdk", "openai.resources", paths=(Path(__file__).with_name("telemetry"),))

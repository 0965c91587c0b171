"""Starts a Python in every way there is, for the application and from inside a tool of the agent: FOLDER.

Each child writes what it sees to ``FOLDER/SIDE-WAY``. OpenHands is imported where it is needed and not at the top: what
multiprocessing starts anew imports this module.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import multiprocessing
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

LOOK = """
import json, os, sys
seen = {
    "environment": sorted(item for item in os.environ.items() if item[0] != "OLDPWD"),
    "path": sys.path,
    "modules": sorted(sys.modules),
    "finders": [type(finder).__name__ for finder in sys.meta_path],
    "instrumented": "opentelemetry.instrumentation.auto_instrumentation" in sys.modules,
}
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(seen, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
"""


def look(file: str) -> None:
    """What a child sees that is started with a function and not with a command."""
    sys.argv = ["", file]
    exec(LOOK, {})


def command(file: str, *options: str) -> list[str]:
    return [sys.executable, *options, "-c", LOOK, file]


def shell_line(file: str) -> str:
    look_file = Path(file).with_name("look.py")
    look_file.write_text(LOOK)
    return f"'{sys.executable}' '{look_file}' '{file}'"


def waited(pid: int) -> None:
    assert os.waitpid(pid, 0)[1] == 0


def forked(execute: Callable[[], object], fork: Callable[[], tuple[int, int]] = lambda: (os.fork(), -1)) -> None:
    pid, terminal = fork()
    if pid == 0:
        try:
            execute()
        finally:
            os._exit(1)
    waited(pid)
    if terminal >= 0:
        os.close(terminal)


def popen_without_fork(file: str) -> None:
    # Popen takes posix_spawn then.
    assert subprocess.Popen(command(file), close_fds=False).wait() == 0


def popen_with_another_path(file: str) -> None:
    environment = {**os.environ, "PYTHONPATH": "/nowhere"}
    assert subprocess.run(command(file), env=environment, check=True).returncode == 0


def bytes_environment(file: str) -> None:
    subprocess.run(command(file), env=dict(os.environb), check=True)


def in_a_pty(file: str) -> None:
    with open(os.devnull, "rb") as nothing:
        keyboard = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            assert pty.spawn(command(file)) == 0
        finally:
            os.dup2(keyboard, 0)
            os.close(keyboard)


async def by_asyncio(file: str) -> None:
    process = await asyncio.create_subprocess_exec(*command(file))
    assert await process.wait() == 0


async def by_asyncio_shell(file: str) -> None:
    process = await asyncio.create_subprocess_shell(shell_line(file))
    assert await process.wait() == 0


def by_uvloop(run: Callable[[str], Coroutine[Any, Any, None]], file: str) -> None:
    import uvloop

    uvloop.run(run(file))


def process(method: str, file: str) -> None:
    child = multiprocessing.get_context(method).Process(target=look, args=(file,))
    child.start()
    child.join()
    assert child.exitcode == 0


def process_pool(file: str) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(look, file).result()


def by_joblib(file: str) -> None:
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        pool.submit(look, file).result()


def named(start: Callable[[str, list[str]], object], file: str) -> None:
    assert start(sys.executable, command(file)) == 0


WAYS: dict[str, Callable[[str], object]] = {
    "Popen": lambda file: subprocess.run(command(file), check=True),
    "Popen, environment given": lambda file: subprocess.run(command(file), env={**os.environ, "A": "B"}, check=True),
    "Popen, environment of bytes": bytes_environment,
    "Popen, another PYTHONPATH": popen_with_another_path,
    "Popen, shell": lambda file: subprocess.run(shell_line(file), shell=True, check=True),
    "Popen, posix_spawn": popen_without_fork,
    "python -I": lambda file: subprocess.run(command(file, "-I"), check=True),
    "python -uE": lambda file: subprocess.run(command(file, "-uE"), check=True),
    "a tool of the system": lambda file: subprocess.run(["/bin/sh", "-c", shell_line(file)], check=True),
    "os.popen": lambda file: os.popen(shell_line(file)).read(),
    "os.system": lambda file: os.system(shell_line(file)),
    "os.execv": lambda file: forked(lambda: os.execv(sys.executable, command(file))),
    "os.execve": lambda file: forked(lambda: os.execve(sys.executable, command(file), os.environ)),
    "os.execlp": lambda file: forked(lambda: os.execlp(sys.executable, *command(file))),
    "os.execvpe": lambda file: forked(lambda: os.execvpe(sys.executable, command(file), os.environ)),
    "os.posix_spawn": lambda file: waited(os.posix_spawn(sys.executable, command(file), os.environ)),
    "os.posix_spawnp": lambda file: waited(os.posix_spawnp(sys.executable, command(file), os.environ)),
    "os.spawnv": partial(named, partial(os.spawnv, os.P_WAIT)),
    "os.spawnvpe": lambda file: os.spawnvpe(os.P_WAIT, sys.executable, command(file), os.environ),
    "pty.fork": lambda file: forked(lambda: os.execv(sys.executable, command(file)), pty.fork),
    "pty.spawn": in_a_pty,
    "asyncio": lambda file: asyncio.run(by_asyncio(file)),
    "asyncio, shell": lambda file: asyncio.run(by_asyncio_shell(file)),
    "uvloop": partial(by_uvloop, by_asyncio),
    "uvloop, shell": partial(by_uvloop, by_asyncio_shell),
    "multiprocessing, spawn": partial(process, "spawn"),
    "multiprocessing, forkserver": partial(process, "forkserver"),
    "ProcessPoolExecutor": process_pool,
    "joblib": by_joblib,
}
"""Each starts one child and waits for it."""


class Application:
    """What an application has running before a tool comes: pools, a loop in a thread."""

    def __init__(self) -> None:
        from multiprocessing.pool import ThreadPool

        self.executor = concurrent.futures.ThreadPoolExecutor(1)
        self.pool = ThreadPool(1)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def hand_over(self) -> dict[str, Callable[[Callable[[], object]], object]]:
        """Ways to have something done elsewhere; each waits for it."""

        def thread(job: Callable[[], object]) -> None:
            started = threading.Thread(target=job)
            started.start()
            started.join()

        def timer(job: Callable[[], object]) -> None:
            started = threading.Timer(0, job)
            started.start()
            started.join()

        async def later(job: Callable[[], object]) -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            loop.call_soon(lambda: done.set_result(job()))
            await done

        async def in_executor(job: Callable[[], object]) -> None:
            await asyncio.get_running_loop().run_in_executor(None, job)

        async def in_task(job: Callable[[], object]) -> None:
            await asyncio.create_task(asyncio.to_thread(job))

        def on_loop(
            run: Callable[[Callable[[], object]], Coroutine[Any, Any, None]], job: Callable[[], object]
        ) -> None:
            asyncio.run_coroutine_threadsafe(run(job), self.loop).result()

        return {
            "a thread": thread,
            "a thread of a thread": lambda job: thread(lambda: thread(job)),
            "a timer": timer,
            "an executor": lambda job: self.executor.submit(job).result(),
            "an executor's map": lambda job: list(self.executor.map(lambda _: job(), [0])),
            "a pool": lambda job: self.pool.apply(job),
            "a pool's map": lambda job: self.pool.map(lambda _: job(), [0]),
            "a pool's imap": lambda job: list(self.pool.imap_unordered(lambda _: job(), [0])),
            "a loop": partial(on_loop, later),
            "a loop's executor": partial(on_loop, in_executor),
            "a loop's task": partial(on_loop, in_task),
        }


def start_all(folder: Path, side: str, ways: dict[str, Callable[[str], object]]) -> None:
    for name, start in ways.items():
        start(str(folder / f"{side}: {name}"))


def elsewhere(application: Application) -> dict[str, Callable[[str], object]]:
    def way(hand: Callable[[Callable[[], object]], object], file: str) -> None:
        hand(lambda: subprocess.run(command(file), check=True))

    return {name: partial(way, hand) for name, hand in application.hand_over().items()}


def main() -> None:
    from openhands.sdk.tool import Action, Observation, ToolDefinition, ToolExecutor

    folder = Path(sys.argv[1])
    application = Application()

    class StartAction(Action):
        pass

    class StartObservation(Observation):
        pass

    class StartExecutor(ToolExecutor[StartAction, StartObservation]):
        def __call__(self, action: StartAction, conversation: object = None) -> StartObservation:
            start_all(folder, "tool", {**WAYS, **elsewhere(application)})
            return StartObservation()

    class StartTool(ToolDefinition[StartAction, StartObservation]):
        @classmethod
        def create(cls, *_: object, **__: object) -> list[StartTool]:
            given = {"description": "start", "action_type": StartAction, "observation_type": StartObservation}
            return [cls(**given, executor=StartExecutor())]

    start_all(folder, "application", {**WAYS, **elsewhere(application)})
    StartTool.create()[0](StartAction())
    # The same threads again, in which a tool has been by now.
    start_all(folder, "afterwards", {**elsewhere(application), "forkserver": partial(process, "forkserver")})
    print(json.dumps({"waiting": [type(finder).__name__ for finder in sys.meta_path]}))


if __name__ == "__main__":
    main()

"""A miniature evaluation, as one writes them: a pool of forked workers, a conversation for each instance and attempt.

Run as ``python evaluation.py PROVIDER_URL JOBS_FILE``. Some jobs hang after their first run, as agents do: for each of
these a line of JSON with the worker's pid is printed; once a line comes in, the worker is taken for lost and its
instance is tried again by a new one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from openhands_otel import labels

WORKERS = 8
FORK = multiprocessing.get_context("fork")
Job = dict[str, Any]


def work(provider: str, pipe: Connection) -> None:
    """One worker: attempts instances until there are none."""
    from openhands.sdk import LLM, Agent, LocalConversation

    while (job := pipe.recv()) is not None:
        with labels(experiment=job["experiment"], instance=job["instance"], attempt=str(job["attempt"])):
            llm = LLM(
                model=job["model"],
                api_key="key",
                base_url=f"{provider}/s/{job['experiment']}-{job['instance']}-{job['attempt']}/v1",
                usage_id="agent",
                num_retries=2,
                retry_min_wait=0,
                retry_max_wait=0,
            )
            conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=os.getcwd(), visualizer=None)
            for run in range(2):
                conversation.send_message("Solve it.")
                conversation.run()
                if job["hangs"] and run == 0:
                    pipe.send("hangs")
                    pipe.recv()
            conversation.close()
        pipe.send("done")


def start(provider: str) -> tuple[ForkProcess, Connection]:
    ours, theirs = FORK.Pipe()
    worker = FORK.Process(target=work, args=(provider, theirs))
    worker.start()
    theirs.close()
    return worker, ours


def evaluate(provider: str, jobs: Iterator[Job]) -> None:
    """Have all jobs done, eight at a time."""
    pool = {pipe: (worker, next(jobs, None)) for worker, pipe in (start(provider) for _ in range(WORKERS))}
    for pipe, (_, job) in pool.items():
        pipe.send(job)
    while pool:
        for pipe in wait(list(pool)):
            assert isinstance(pipe, Connection)
            worker, job = pool.pop(pipe)
            if job is None:
                worker.join()
                continue
            if pipe.recv() == "hangs":
                print(json.dumps({"pid": worker.pid, **job}), flush=True)
                sys.stdin.readline()
                worker.join()
                worker, pipe = start(provider)
                job = {**job, "attempt": 2, "hangs": False}
            else:
                job = next(jobs, None)
            pipe.send(job)
            pool[pipe] = worker, job


if __name__ == "__main__":
    import openhands.sdk  # noqa: F401 - before the workers are forked, who share it

    evaluate(sys.argv[1], iter(json.loads(Path(sys.argv[2]).read_text())))

"""Imports OpenHands in one thread while others subscribe, spends, and writes what was seen: SCENARIO URL.

``before``: somebody has subscribed and gone before the import begins; others come and go all the time that it takes.
``within``: the import of the meters' module is under way when the first ones come: another thread, and the importing
thread itself. The import goes on only when the other thread has subscribed, so nobody may wait for it.
"""

from __future__ import annotations

import gc
import importlib.abc
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

METERS = "openhands.sdk.llm.utils.metrics"
PATIENCE_S = 100


class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has the import of the meters' module take until ``meanwhile`` has returned."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile
        self._loader: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname != METERS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        self._loader, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._meanwhile()


class Ending:
    """Ends a subscription when it is collected, wherever that happens to be."""

    def __init__(self, unsubscribe: Callable[[], None]) -> None:
        self.unsubscribe = unsubscribe
        self.cycle = self

    def __del__(self) -> None:
        self.unsubscribe()


def main() -> None:
    scenario, url = sys.argv[1:]
    logging.basicConfig(stream=sys.stderr)
    heard: list[tuple[int, str]] = []
    stays: list[Callable[[], None]] = []

    def hear(who: int) -> Callable[[], None]:
        from openhands_otel import events, subscribe

        return subscribe(
            lambda event: heard.append((who, type(event).__name__)), kinds=(events.CostAdded, events.ToolStarted)
        )

    importing = threading.Thread(target=lambda: __import__("openhands.sdk"))
    if scenario == "before":
        hear(0)()
        sys.setswitchinterval(1e-5)
        importing.start()
        while importing.is_alive():
            hear(0)()
            Ending(hear(0))
            stays.append(hear(len(stays) + 1))
            stays.pop(0)() if len(stays) > 2 else None
            time.sleep(0.001)
        gc.collect()
        sys.setswitchinterval(0.005)
    else:
        second: list[bool] = []

        def meanwhile() -> None:
            other = threading.Thread(target=lambda: stays.append(hear(2)))
            other.start()
            other.join(PATIENCE_S)
            second.append(not other.is_alive())
            stays.append(hear(1))

        sys.meta_path.insert(0, Slow(meanwhile))
        importing.start()
        importing.join()
        assert second, "nobody imported the meters"
        if not all(second):
            print(json.dumps({"waited for": "the import"}), flush=True)
            return
    importing.join()
    from openhands.sdk import LLM, Agent, LocalConversation
    from openhands.sdk.agent.agent import Agent as Acting
    from openhands.sdk.llm.utils.metrics import Metrics

    methods = ((Metrics, "add_cost"), (Acting, "_execute_action_event"), (LLM, "completion"))
    heard.clear()
    Metrics().add_cost(1.0)
    costs = [name for _, name in heard]
    heard.clear()
    llm = LLM(model="openai/gpt-4o", base_url=url, api_key="no-key-needed", num_retries=0, timeout=100)
    with_llm = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", visualizer=None)
    with_llm.send_message("hello")
    with_llm.run()
    with_llm.close()
    for unsubscribe in stays:
        unsubscribe()
    print(
        json.dumps(
            {
                "listeners": len(stays),
                "costs": costs,
                "tools": [name for _, name in heard].count("ToolStarted"),
                "calls": [name for _, name in heard].count("CostAdded"),
                "left": [name for owner, name in methods if inspect.unwrap(vars(owner)[name]) is not vars(owner)[name]],
            }
        ),
        flush=True,
    )


main()

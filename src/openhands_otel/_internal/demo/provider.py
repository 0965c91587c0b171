"""What the scripted provider does with a request: choose its script, play the next answer, charge for it.

Each request is played by a script, chosen by the first of these that names one: the URL (``/s/NAME/v1``), the API key
(``NAME`` or ``NAME:anything``), a marker in the prompt (``[[script:NAME]]``), the model, and last the script
``default``. Conversations that run at the same time each have their own place in it, told apart by the session that
OpenHands sends (1.30 on) and by API key.
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

from openhands_otel._internal.demo.answers import Answer, LLMApi, LLMRequest, Script, Usage, choose, say
from openhands_otel._internal.demo.bill import Bill, Charge
from openhands_otel._internal.demo.pricing import price
from openhands_otel._internal.demo.tokens import measure, prompt_text

DEFAULT_SCRIPT = "default"
SESSION_HEADER = "x-litellm-session-id"

_MARKER = re.compile(r"\[\[script:([\w.:-]+)\]\]")


def _done(request: LLMRequest) -> Answer:
    return say("Done.")


class Provider:
    """Scripts, how far each conversation is in them, and the bill. Safe to use from any thread."""

    def __init__(self) -> None:
        self.bill = Bill()
        self._lock = threading.Lock()
        self._scripts: dict[str, Script] = {}
        self._turns: dict[tuple[str, ...], int] = {}
        self._prompts: dict[tuple[str, ...], str] = {}
        self._requests = 0
        self.reset()

    @property
    def requests(self) -> int:
        """Requests seen, refused ones included."""
        return self._requests

    def script(self, name: str, answers: Script) -> None:
        """Play ``answers`` under this name from now on, from the first one."""
        with self._lock:
            self._scripts[name] = answers
            for key in [key for key in self._turns if key[0] == name]:
                del self._turns[key]
                self._prompts.pop(key, None)

    def reset(self) -> None:
        """Forget scripts, progress and bill."""
        with self._lock:
            self._scripts = {DEFAULT_SCRIPT: _done}
            self._turns.clear()
            self._prompts.clear()
            self._requests = 0
            self.bill.clear()

    def accept(
        self, api: LLMApi, named: str | None, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[LLMRequest, Answer]:
        """Give a request its number and its answer."""
        api_key = headers.get("authorization", "").removeprefix("Bearer ").strip()
        session_id = headers.get(SESSION_HEADER)
        model = str(body.get("model", ""))
        with self._lock:
            name = self._choose_script(named, api_key, body, model)
            number, self._requests = self._requests, self._requests + 1
            key = (name or "", session_id or "", api_key)
            turn = self._turns.get(key, 0)
            self._turns[key] = turn + 1
            script = self._scripts.get(name) if name else None
        request = LLMRequest(
            number=number,
            turn=turn,
            script=name or str(named),
            session_id=session_id,
            api_key=api_key,
            api=api,
            model=model,
            stream=bool(body.get("stream")),
            body=body,
            headers=headers,
        )
        if script is None:
            return request, Answer(status=404, text=f"no script '{named}'")
        return request, choose(script, request)

    def charge(self, request: LLMRequest, answer: Answer) -> Usage:
        """Write ``answer`` on the bill; returns its usage."""
        key = (request.script, request.session_id or "", request.api_key)
        with self._lock:
            usage = answer.usage or self._measure(key, request, answer)
        cost = price(request.model, usage) if answer.cost is None else answer.cost
        entry = Charge(request.number, request.script, request.model, request.session_id, usage, cost, time.time_ns())
        self.bill.add(entry)
        return usage

    def _measure(self, key: tuple[str, ...], request: LLMRequest, answer: Answer) -> Usage:
        prompt = prompt_text(request.body)
        usage = measure(prompt, answer, self._prompts.get(key, ""))
        self._prompts[key] = prompt
        return usage

    def _choose_script(self, named: str | None, api_key: str, body: dict[str, Any], model: str) -> str | None:
        if named is not None:
            return named if named in self._scripts else None
        marker = _MARKER.search(json.dumps(body.get("messages") or body.get("input")))
        candidates = (api_key, api_key.partition(":")[0], marker[1] if marker else "", model, DEFAULT_SCRIPT)
        return next((name for name in candidates if name in self._scripts), None)
